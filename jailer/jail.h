/*
 * What a jail is: plain data that arguments.c fills in and each mechanism reads its part of. A mechanism is one file;
 * its functions return an error that names the option, the value and what was expected.
 */
#pragma once

/* Of Firecracker's jailer, whose options these are. */
#define JAILER_COMPATIBLE_VERSION "1.17.0"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vmm/base/error.h"

enum {
    JAIL_ID_MAX = 64,
    JAIL_SETTINGS_MAX = 64,
    JAIL_BINDS_MAX = 16,
    JAIL_PIDS_MAX_DEFAULT = 512,
    JAIL_NO_FILE_DEFAULT = 2048
};

/* What the caller may do decides how the jail is built (privilege.h). */
enum jail_mode {
    JAIL_ROOT,    /* root: everything */
    JAIL_USER,    /* an ordinary user: everything, in a user namespace */
    JAIL_REDUCED, /* a container that may do neither: what is left, if --allow-reduced */
};

/* The line of --announce, up to the monotonic clock. */
#define JAIL_ANNOUNCEMENT "mayfly-jailer: the jail stands at "

/* What comes before the list of walls that a reduced jail lacks, one line on stderr. */
#define JAIL_REDUCED_NOTE "reduced jail, without: "

/* The file in <base>/<exec name>/<id> that says "a jail of mayfly-jailer's"; it holds the parent cgroup. */
#define JAIL_MARKER "jail"

/* The extended attribute of a jail's cgroups that has the path of its root: who removes jails by hand leaves them. */
#define JAIL_CGROUP_ROOT "trusted.mayfly.root"

/* One `--cgroup file=value`. */
struct cgroup_setting {
    const char *file; /* "cpu.shares": the part before the first dot is the controller */
    const char *value;
};

/* One `--bind SRC:DST[:OPTION,...]`. */
struct jail_bind {
    const char *source; /* on the host */
    const char *target; /* in the jail; begins with '/' and has no "." or ".." in it */
    bool read_only;
    bool own;  /* what belongs to the owner of `source` belongs to the jail's uid and gid in the jail */
    bool node; /* `source` is a device node: found by binds_open */
};

/* `--resource-limit`; UINT64_MAX: leave as it is. */
struct jail_limits {
    uint64_t fsize;
    uint64_t no_file;
    uint64_t processes; /* RLIMIT_NPROC, where no cgroup limits them */
};

struct jail_config {
    enum jail_mode mode;
    const char *id;
    const char *exec_file;
    const char *exec_name; /* last part of exec_file: names the jail's folder, cgroup and pid file */
    uid_t uid;
    gid_t gid;

    int cgroup_version;          /* 1, 2, or 0: whichever the host has */
    char delegated_cgroup[1024]; /* an ordinary user's: ends with '/', relative to the mount; "": none */
    const char *parent_cgroup;   /* relative to the mount; default exec_name */
    struct cgroup_setting cgroups[JAIL_SETTINGS_MAX];
    size_t cgroup_count;

    const char *chroot_base_dir;
    bool default_base; /* nobody named it */
    const char *netns; /* path of a network namespace; NULL: none */
    struct jail_limits limits;
    bool daemonize;
    bool new_pid_ns;

    /* Ours. */
    struct jail_bind binds[JAIL_BINDS_MAX];
    size_t bind_count;
    uint64_t memory_limit; /* bytes; 0: none */
    bool announce;
    bool open_to_group; /* the way to the socket */
    bool new_net_ns;
    bool new_ipc_ns;
    bool new_uts_ns;
    bool new_cgroup_ns;
    bool new_time_ns;
    bool no_base_filter;
    bool allow_reduced;
    bool no_tun;    /* no /dev/net/tun node */
    bool no_uffd;   /* no /dev/userfaultfd node */
    bool vhost_net; /* a /dev/vhost-net node */

    char *const *vmm_arguments; /* after `--`; NULL-terminated */
    size_t vmm_argument_count;
};
