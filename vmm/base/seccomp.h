/*
 * Compiled seccomp filters: the file that `mayfly-seccomp-compiler` writes, that lies in the binaries, and that
 * --seccomp-filter reads.
 *
 * Little-endian: struct seccomp_file, then `count` filters, each a struct seccomp_file_filter followed by its
 * `length` struct sock_filter instructions. Filters have names: a thread loads the one that is called like its role.
 */
#pragma once

#include <linux/audit.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"

enum { SECCOMP_FILE_VERSION = 1, SECCOMP_NAME_SIZE = 24, SECCOMP_INSTRUCTIONS_MAX = 4096 };
#define SECCOMP_FILE_MAGIC "MFSCMP\r\n"

/* The architecture whose system calls this program makes. */
#if defined(__x86_64__)
#define SECCOMP_ARCH_HERE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SECCOMP_ARCH_HERE AUDIT_ARCH_AARCH64
#endif

struct seccomp_file {
    char magic[8];
    uint32_t version;
    uint32_t arch; /* AUDIT_ARCH_* */
    uint32_t count;
};

struct seccomp_file_filter {
    char name[SECCOMP_NAME_SIZE]; /* NUL-padded */
    uint32_t length;              /* instructions */
};

/* A file in memory; borrowed. */
struct seccomp_blob {
    const uint8_t *data;
    size_t size;
};

/* Checks the whole file: magic, version, architecture, lengths. `what` names it in the error. */
struct error *seccomp_file_check(const struct seccomp_blob *blob, const char *what);

/* Whether a file that passed the check has a filter of that name. */
bool seccomp_file_has(const struct seccomp_blob *blob, const char *name);

/*
 * Loads filter `name` for the calling thread, on top of those it has. The blob must have passed seccomp_file_check; a
 * name that it does not have is an error. Needs no_new_privs.
 */
struct error *seccomp_file_load(const struct seccomp_blob *blob, const char *name);
