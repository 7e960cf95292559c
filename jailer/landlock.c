#include "jailer/landlock.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * The kernel's ABI as of version 6, spelled out because Debian 12's <linux/landlock.h> ends at version 2. A kernel of
 * an older ABI refuses what it does not know, so each version says what it may be asked.
 */
struct ruleset_attr {
    __u64 handled_access_fs;
    __u64 handled_access_net;
    __u64 scoped;
};

struct path_beneath_attr {
    __u64 allowed_access;
    __s32 parent_fd;
} __attribute__((packed));

enum {
    CREATE_RULESET_VERSION = 1,
    RULE_PATH_BENEATH = 1,
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_BLOCK = 1 << 11,
    FS_MAKE_SYM = 1 << 12,
    FS_REFER = 1 << 13,
    FS_IOCTL_DEV = 1 << 15,
    FS_OF_A_NODE = FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV,
    FS_NEVER = FS_EXECUTE | FS_MAKE_CHAR | FS_MAKE_BLOCK | FS_MAKE_SYM | FS_REFER,
    NET_TCP = 3,  /* bind, connect */
    SCOPE_ALL = 3 /* abstract Unix sockets, signals */
};

static const struct {
    uint64_t fs;
    uint64_t net;
    uint64_t scoped;
    size_t size;
} abis[] = {
    {(1 << 13) - 1, 0, 0, 8},                /* 1 */
    {(1 << 14) - 1, 0, 0, 8},                /* 2: refer */
    {(1 << 15) - 1, 0, 0, 8},                /* 3: truncate */
    {(1 << 15) - 1, NET_TCP, 0, 16},         /* 4 */
    {(1 << 16) - 1, NET_TCP, 0, 16},         /* 5: ioctl on devices */
    {(1 << 16) - 1, NET_TCP, SCOPE_ALL, 24}, /* 6 */
};

static struct error *allow(int ruleset, int fd, uint64_t access, const char *what)
{
    struct path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};

    if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0)
        return error_errno(errno, "cannot allow %s (landlock_add_rule)", what);
    return NULL;
}

struct error *landlock_apply(int exec_fd, const char *const *nodes, bool *applied)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);

    if (version < 0 && errno != ENOSYS && errno != EOPNOTSUPP)
        return error_errno(errno, "cannot ask for Landlock's version (landlock_create_ruleset)");
    *applied = version >= 1;
    if (version < 1)
        return NULL; /* not in this kernel, or switched off at its boot */

    size_t abi = (size_t)version <= array_length(abis) ? (size_t)version - 1 : array_length(abis) - 1;
    struct ruleset_attr attributes = {abis[abi].fs, abis[abi].net, abis[abi].scoped};
    cleanup_fd int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, abis[abi].size, 0);
    if (ruleset < 0)
        return error_errno(errno, "cannot make Landlock rules (landlock_create_ruleset)");

    cleanup_fd int root = open(".", O_PATH | O_CLOEXEC);
    if (root < 0)
        return error_errno(errno, "cannot open the jail's root");

    struct error *error = allow(ruleset, root, abis[abi].fs & ~(uint64_t)FS_NEVER, "the jail's root");
    if (error == NULL)
        error = allow(ruleset, exec_fd, FS_EXECUTE | FS_READ_FILE, "the VMM");
    for (; error == NULL && *nodes != NULL; nodes++) {
        cleanup_fd int node = open(*nodes, O_PATH | O_CLOEXEC);

        error = node < 0 ? error_errno(errno, "cannot open %s", *nodes)
                         : allow(ruleset, node, abis[abi].fs & FS_OF_A_NODE, *nodes);
    }
    if (error == NULL && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        error = error_errno(errno, "cannot apply Landlock rules (landlock_restrict_self)");
    return error;
}
