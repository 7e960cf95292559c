/* The command line of `mayfly run`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cli/run_net_options.h"
#include "vmm/base/error.h"

enum { RUN_MOUNTS_MAX = 8 };

/* --mount HOST:GUEST[:ro] */
struct run_mount {
    char *host;        /* owned */
    const char *guest; /* within the same block of memory */
    bool read_only;
};

/* Strings are borrowed from argv or the environment. NULL: not given. */
struct run_options {
    uint32_t vcpus;
    uint64_t memory_mib;
    const char *kernel;
    const char *initrd;
    const char *rootfs;
    bool writable; /* --rw */
    const char *boot_args;
    const char *cwd;
    const char *hostname;
    uint64_t timeout_ms;      /* 0: none */
    const char **environment; /* environment_count of "K=V"; owned */
    size_t environment_count;
    bool timeline;
    const char *timeline_path;
    bool json;
    const char *json_path;
    const char *console_path;
    const char *vmm;
    char *vsock_path; /* owned */
    uint32_t vsock_cid;
    struct run_mount mounts[RUN_MOUNTS_MAX];
    size_t mount_count;
    struct run_net_options net;
    bool no_jail;
    bool allow_reduced;
    const char *jail_dir;
    bool has_jail_uid;
    uint32_t jail_uid, jail_gid;
    bool help;
    char **command; /* NULL-terminated, at least one */
    size_t command_count;
};

/* Reads argv (argv[0] is "run"). Errors are of kind ERROR_INPUT and name the option. */
struct error *run_options_parse(struct run_options *options, int argc, char **argv);
void run_options_free(struct run_options *options);

/* "512", "512M" or "2G", in MiB. */
struct error *run_options_parse_memory(const char *text, uint64_t *mib);

extern const char run_help[];
