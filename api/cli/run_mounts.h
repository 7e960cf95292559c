/* The directories that one `mayfly run` shares with its guest (--mount): a virtiofsd for each. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "api/cli/run_mounts_user.h"
#include "api/cli/run_options.h"
#include "vmm/base/error.h"

enum { RUN_MOUNTS_PATH_SIZE = 104 };

struct run_mounts {
    const struct run_mount *mounts; /* borrowed from the options */
    size_t count;
    char directory[RUN_MOUNTS_PATH_SIZE]; /* mode 0700, with the sockets "0", "1", ...; "" when there is none */
    int directory_fd;                     /* holds its lock */
    int words_fd, told_fd;                /* what the virtiofsds say: we read here, they write there; non-blocking */
    int ended_fd;                         /* readable when one has ended; -1: there is none */
    char *program;
    pid_t pids[RUN_MOUNTS_MAX];      /* 0: none */
    int process_fds[RUN_MOUNTS_MAX]; /* pidfds of them */
    unsigned restarts[RUN_MOUNTS_MAX];
    struct mounts_user user; /* for an ordinary user's */
};

/* A state that run_mounts_end accepts. */
void run_mounts_init(struct run_mounts *mounts);

/*
 * Starts them; each listens by the time this returns. A read-only one sees its directory through a read-only mount, so
 * that not even a hostile guest writes.
 */
struct error *run_mounts_start(struct run_mounts *mounts, const struct run_options *options);

/* Puts in front of an error what a virtiofsd said last, which is why it could not be reached. */
struct error *run_mounts_explain(const struct run_mounts *mounts, struct error *error);

/*
 * Something came on ended_fd: says on stderr which mount has lost its virtiofsd, and how that ended, and starts another
 * one, at which the guest can mount the directory again. A directory whose virtiofsds end again and again gets no more.
 */
void run_mounts_tend(struct run_mounts *mounts);

void run_mounts_end(struct run_mounts *mounts);
