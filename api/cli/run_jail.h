/* The jail around one `mayfly run`: which one, how mayfly-jailer is called for it, and its end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "api/cli/locate.h"
#include "api/cli/tail.h"
#include "vmm/base/error.h"

enum { RUN_JAIL_WORDS_MAX = 64, RUN_JAIL_FILES_MAX = 3 };

struct run_jail {
    bool used;
    const char *mounts; /* the folder with the sockets of --mount; borrowed; NULL: none. Set before preparing */
    char *exec;         /* folder <base>/<exec name>, where jails of this VMM are */
    char *exec_name;
    char id[40];
    char vsock[80]; /* the path of --vsock as the VMM sees it */
    uid_t uid;
    gid_t gid;
    char *words[RUN_JAIL_WORDS_MAX]; /* argv of mayfly-jailer, NULL-terminated */
    size_t word_count;
    struct {
        const char *place; /* where it is shown */
        char *path;        /* what the caller calls it */
    } files[RUN_JAIL_FILES_MAX];
    size_t file_count;
};

/*
 * Decides whether there will be a jail (not with --no-jail) and
 * prepares the call of the jailer. Kernel, initrd and rootfs are shown in the jail, not copied: their paths in
 * `located` become those that the VMM sees.
 */
struct error *run_jail_prepare(struct run_jail *jail, const struct run_options *options, struct located *located);

/*
 * Waits until the jail stands; stores when that was (CLOCK_MONOTONIC). What else the jailer says, and what the VMM says
 * right after, goes to `log`. The error is the jailer's own.
 */
struct error *run_jail_await(int log_fd, int process_fd, struct tail *log, uint64_t *stands_us);

/* What the VMM says of a file, in terms of the caller: by the caller's path. Consumes `error`, which may be NULL. */
struct error *run_jail_explain(const struct run_jail *jail, struct error *error);

/* Removes what is left of it, once its VMM has ended. */
struct error *run_jail_remove(const struct run_jail *jail);
void run_jail_free(struct run_jail *jail);
