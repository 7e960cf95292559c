/*
 * A file or block device of the host that is a disk: opening it, and the operations on it, run to their end. What a
 * system call leaves undone is continued, never repeated. file_ring.h runs the same operations through io_uring.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vmm/base/error.h"

enum {
    DISK_SECTOR = 512,
    DISK_ALIGNMENT_MAX = 4096,
    DISK_IDENTITY_SIZE = 20,
    DISK_PIECE_MAX = 1 << 20,
};

struct disk_file {
    int fd;        /* -1: none */
    uint64_t size; /* bytes */
    bool block_device;
    uint32_t alignment; /* of offsets, lengths and memory: DISK_SECTOR, or more when direct */
    /* Device and inode numbers as text, not always NUL-terminated: the same file has the same identity. */
    char identity[DISK_IDENTITY_SIZE];
};

/*
 * Opens the regular file or block device `path`, read-only or for both; with `direct` around the page cache. Errors
 * name the path. The caller closes the file with disk_file_close.
 */
struct error *disk_file_open(const char *path, bool read_only, bool direct, struct disk_file *file);
void disk_file_close(struct disk_file *file);

enum disk_operation {
    DISK_READ,
    DISK_WRITE,
    DISK_SYNC,         /* all that was written before is on the medium afterwards: fdatasync */
    DISK_DISCARD,      /* the range's contents are not needed any more: a hint */
    DISK_WRITE_ZEROES, /* the range reads as zeros afterwards */
    DISK_OPERATIONS,
};

struct disk_request {
    enum disk_operation operation;
    bool durable;    /* DISK_WRITE: on the medium before it is complete (RWF_DSYNC) */
    bool deallocate; /* DISK_WRITE_ZEROES: the file may give the range's blocks back */
    uint64_t offset; /* the range, in bytes; 0 for DISK_SYNC */
    uint64_t length;
    struct iovec *iov;         /* DISK_READ, DISK_WRITE: `length` bytes in all; consumed as the transfer goes on */
    size_t iov_count;          /* at most IOV_MAX */
    struct iovec part;         /* what one system call transfers of an entry that is longer than DISK_PIECE_MAX */
    uint64_t done;             /* bytes transferred so far; 0 at the beginning */
    unsigned attempt;          /* which of several ways is being tried; 0 at the beginning */
    struct disk_request *next; /* a file_ring's, while it holds the request */
    /* Called when a file_ring has finished the request; `code` is 0 or an errno. */
    void (*complete)(struct disk_request *request, int code);
};

/*
 * What the next system call of a DISK_READ or DISK_WRITE transfers: at most DISK_PIECE_MAX bytes. A guest may ask for
 * gigabytes in one request, and nobody else has a turn while a system call copies them. Valid until the request goes
 * on.
 */
const struct iovec *disk_request_piece(struct disk_request *request, unsigned *count);

/*
 * Issues one system call for `request`, as a rule: returns the bytes or the negative errno of which
 * disk_request_advance is to be told, for this request or for those that it was made of.
 */
ssize_t disk_request_issue(const struct disk_file *file, struct disk_request *request);

/* Does both. Returns true when `request` is finished, `*code` being its result. */
bool disk_request_step(const struct disk_file *file, struct disk_request *request, int *code);

/* Runs `request` to its end. Returns 0 or an errno; a file that ends before the range does is EIO. */
int disk_request_run(const struct disk_file *file, struct disk_request *request);

/* Whether there is no system call for it but a blocking one of its own, so that a ring cannot take it. */
bool disk_request_blocks(const struct disk_file *file, const struct disk_request *request);

/* The mode for fallocate(2) of a DISK_DISCARD or DISK_WRITE_ZEROES at its present attempt; -1: no way is left. */
int disk_request_fallocate_mode(const struct disk_request *request);

/*
 * Takes note of what a system call for `request` returned, bytes or a negative errno. Returns true when the request is
 * finished, `*code` being its result; false when it is to be issued again, for the rest or in another way.
 */
bool disk_request_advance(struct disk_request *request, ssize_t result, int *code);
