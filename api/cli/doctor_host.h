/*
 * The host that `mayfly doctor` looks at: files below a directory, so that tests bring their own, and the few questions
 * that only a system call answers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "api/cli/kvm_probe.h"

struct host {
    const char *root;     /* put in front of every path: "" for this machine */
    uid_t uid;            /* who will run microVMs */
    const char *programs; /* the directory that mayfly is in, for AppArmor; "/usr/local/bin" when unknown */
    /* Opens the file for reading and writing; 0 or an errno. Gets a path with the root in front. */
    int (*try_open)(const char *path);
    enum kvm_answer (*probe_kvm)(struct kvm_probe *probe);
    int (*landlock_abi)(void); /* the ABI's version, or -errno */
    int (*io_uring)(void);     /* 0 when a ring could be made, or an errno */
};

/* This machine as the calling process sees it. */
struct host host_here(void);

/* Reads the start of a file, without the white space at its end. False when it cannot be read; `text` is "" then. */
bool host_read(const struct host *host, const char *path, char *text, size_t size);
/* A file with one decimal number, perhaps with text behind it. */
bool host_read_number(const struct host *host, const char *path, uint64_t *number);
/* For reading line by line; NULL when it cannot be opened. The caller closes it. */
FILE *host_open(const struct host *host, const char *path);
bool host_has(const struct host *host, const char *path);
/* As try_open, of a path without the root. */
int host_try_open(const struct host *host, const char *path);

/* Whether `word` is in `text` between separators (any of blank, comma, line end, brackets). */
bool has_word(const char *text, const char *word);
/* Whether /proc/cpuinfo has the flag. */
bool host_cpu_has(const struct host *host, const char *flag);

/* A limit of this process, from /proc/self/limits: "Max open files"... UINT64_MAX: unlimited. */
bool host_limit(const struct host *host, const char *name, uint64_t *soft, uint64_t *hard);
