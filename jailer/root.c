#include "jailer/root.h"

#include "jailer/mounts.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * A folder of the jail's: `run` is where the VMM puts its socket. One that the caller prepared changes hands, as it
 * does in Firecracker's jailer; by descriptor, so that a link put in its place is refused, not followed.
 */
static struct error *make_folder(int root, const char *name, mode_t mode, uid_t uid, gid_t gid, struct undo *undo)
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
    if (fchown(folder, uid, gid) < 0 || fchmod(folder, mode) < 0)
        return error_errno(errno, "--uid, --gid: cannot give /%s to %u:%u", name, uid, gid);
    return NULL;
}

struct error *root_make_folders(const struct jail_config *config, int root, struct undo *undo)
{
    struct error *error = make_folder(root, "dev", 0700, config->uid, config->gid, undo);

    return error != NULL
               ? error
               : make_folder(root, "run", config->open_to_group ? 0710 : 0700, config->uid, config->gid, undo);
}

struct error *root_mount(const struct jail_config *config, const struct devices *devices, struct undo *undo, int *root)
{
    struct error *error = root_make_folders(config, *root, undo);

    if (error != NULL)
        return error;

    /*
     * A detached copy of the folder's mount, attached over itself: no path is walked a second time. Mounts that the
     * caller put below come along. Not nodev: a caller may have put the node of a disk there, and the VMM cannot make
     * nodes.
     */
    cleanup_fd int tree = mount_clone(*root, "", AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0)
        return error_errno(errno, "cannot bind the jail's root (open_tree)");
    if (mount_restrict(tree) < 0)
        return error_errno(errno, "cannot set the mount flags of the jail's root (mount_setattr)");
    if (mount_attach(tree, *root) < 0)
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
    if (umount2(".", MNT_DETACH) < 0)
        return error_errno(errno, "cannot drop the host's root");
    if (chdir("/") < 0)
        return error_errno(errno, "cannot go to the jail's root");
    return NULL;
}
