#include "jailer/root.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* musl 1.2.3 has no wrappers for the descriptor-based mount calls, and its <sys/mount.h> clashes with the kernel's. */
int umount2(const char *target, int flags);
enum { UMOUNT_DETACH = 2 };

static int tree_clone(int folder)
{
    return (int)syscall(SYS_open_tree, folder, "",
                        AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | (unsigned)OPEN_TREE_CLOEXEC);
}

static long tree_restrict(int tree)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};

    return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof(attributes));
}

static long tree_attach(int tree, int folder)
{
    return syscall(SYS_move_mount, tree, "", folder, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/*
 * A folder of the jail's: `run` is where the VMM puts its socket. One that the caller prepared changes hands, as it
 * does in Firecracker's jailer; by descriptor, so that a link put in its place is refused, not followed.
 */
static struct error *make_folder(int root, const char *name, uid_t uid, gid_t gid, struct undo *undo)
{
    if (mkdirat(root, name, 0700) == 0)
        undo_push(undo, UNDO_DIRECTORY, root, name);
    else if (errno != EEXIST)
        return error_errno(errno, "cannot make the jail's /%s", name);

    cleanup_fd int folder = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 && (errno == ENOTDIR || errno == ELOOP))
        return error_new(ERROR_INPUT, "the jail's /%s is there and is not a folder", name);
    if (folder < 0)
        return error_errno(errno, "cannot open the jail's /%s", name);
    if (fchown(folder, uid, gid) < 0 || fchmod(folder, 0700) < 0)
        return error_errno(errno, "--uid, --gid: cannot give /%s to %u:%u", name, uid, gid);
    return NULL;
}

struct error *root_mount(const struct jail_config *config, const struct devices *devices, struct undo *undo, int *root)
{
    struct error *error = make_folder(*root, "dev", config->uid, config->gid, undo);

    if (error == NULL)
        error = make_folder(*root, "run", config->uid, config->gid, undo);
    if (error != NULL)
        return error;

    /*
     * A detached copy of the folder's mount, attached over itself: no path is walked a second time. Mounts that the
     * caller put below come along. Not nodev: a caller may have put the node of a disk there, and the VMM cannot make
     * nodes.
     */
    cleanup_fd int tree = tree_clone(*root);
    if (tree < 0)
        return error_errno(errno, "cannot bind the jail's root (open_tree)");
    if (tree_restrict(tree) < 0)
        return error_errno(errno, "cannot set the mount flags of the jail's root (mount_setattr)");
    if (tree_attach(tree, *root) < 0)
        return error_errno(errno, "cannot attach the jail's root (move_mount)");

    /* The folder's own descriptor stays open: undo needs it. */
    *root = take_fd(&tree);
    undo_push(undo, UNDO_MOUNT, *root, "root");
    return devices_create(config, devices, undo, *root);
}

struct error *root_enter(int root)
{
    if (fchdir(root) < 0)
        return error_errno(errno, "cannot enter the jail's root");
    /* Stacks the old root below the new one, at the same place: it needs no folder in the jail. */
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return error_errno(errno, "cannot make the jail's root the root (pivot_root)");
    if (umount2(".", UMOUNT_DETACH) < 0)
        return error_errno(errno, "cannot drop the host's root");
    if (chdir("/") < 0)
        return error_errno(errno, "cannot go to the jail's root");
    return NULL;
}
