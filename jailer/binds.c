#include "jailer/binds.h"

#include "jailer/idmap.h"
#include "jailer/mounts.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COPY_STEP = 1 << 30 };

/* Where a device's node is, below the jail's root, until it is mounted. */
#define NODE_NAME "dev/.node"

static int open_without_links(const char *path, int flags)
{
    struct open_how how = {.flags = (unsigned)flags | (unsigned)O_CLOEXEC,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};

    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

struct error *binds_open(struct jail_config *config, int fds[JAIL_BINDS_MAX])
{
    bool reduced = config->mode == JAIL_REDUCED;

    for (size_t i = 0; i < config->bind_count; i++) {
        struct jail_bind *bind = &config->binds[i];
        struct stat status;

        /* What is to be copied is read, and nobody waits for a pipe's other end. */
        fds[i] = open_without_links(bind->source, reduced ? O_RDONLY | O_NONBLOCK | O_NOCTTY : O_PATH);
        if (fds[i] < 0 && errno == ELOOP)
            return error_new(ERROR_INPUT, "--bind: \"%s\" has a symbolic link in it; expected the path without one",
                             bind->source);
        if (fds[i] < 0 || fstat(fds[i], &status) < 0)
            return error_errno(errno, "--bind: cannot open \"%s\"", bind->source);
        bind->node = S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode);
        if (reduced && (!S_ISREG(status.st_mode) || !bind->read_only))
            return error_new(ERROR_HOST,
                             "--bind: a reduced jail, which has no mounts, cannot show \"%s\"; expected a file, with "
                             "ro, of which it has a copy",
                             bind->source);
    }
    return NULL;
}

/* The file or folder at `name` that something will be mounted on. The caller of undo needs `parent` open. */
static struct error *make_place(int parent, const char *name, bool folder, const char *target, struct undo *undo)
{
    int file = -1;

    bool made = folder && mkdirat(parent, name, 0755) == 0;

    if (made)
        undo_push(undo, UNDO_DIRECTORY, parent, name);
    else if (!folder && (file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444)) >= 0)
        undo_push(undo, UNDO_FILE, parent, name);
    else if (errno != EEXIST)
        return error_errno(errno, "--bind: cannot make \"%s\" in the jail", target);
    fd_close(&file);
    /* umask may have cut the mode. */
    if (made && fchmodat(parent, name, 0755, 0) < 0)
        return error_errno(errno, "--bind: cannot set the mode of \"%s\" in the jail", target);
    return NULL;
}

/*
 * Walks to the last part of `target`, *name, below `root`; makes the folders when there is an `undo`, which needs each
 * of them open: those descriptors are left to exec. Otherwise *parent is the caller's.
 */
static struct error *walk(int root, const char *target, struct undo *undo, int *parent, char name[NAME_MAX + 1])
{
    const char *at = target + strspn(target, "/");

    *parent = fcntl(root, F_DUPFD_CLOEXEC, 3);
    for (;;) {
        size_t length = strcspn(at, "/");
        const char *next = at + length + strspn(at + length, "/");
        struct error *error = NULL;

        if (*parent < 0)
            return error_errno(errno, "--bind: cannot open the way to \"%s\" in the jail (a link is refused)", target);
        if (length > NAME_MAX)
            return error_errno(ENAMETOOLONG, "--bind: cannot make \"%s\" in the jail", target);
        memcpy(name, at, length);
        name[length] = '\0';
        if (*next == '\0')
            return NULL;
        if (undo != NULL)
            error = make_place(*parent, name, true, target, undo);
        if (error != NULL)
            return error;

        int child = openat(*parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (undo == NULL)
            fd_close(parent);
        *parent = child;
        at = next;
    }
}

struct error *binds_make_places(const struct jail_config *config, const int fds[JAIL_BINDS_MAX], int root,
                                struct undo *undo)
{
    for (size_t i = 0; i < config->bind_count; i++) {
        const char *target = config->binds[i].target;
        char name[NAME_MAX + 1];
        struct stat status;
        int parent;
        struct error *error = walk(root, target, undo, &parent, name);

        if (error == NULL && fstat(fds[i], &status) < 0)
            error = error_errno(errno, "--bind: cannot look at \"%s\"", config->binds[i].source);
        if (error == NULL)
            error = make_place(parent, name, S_ISDIR(status.st_mode), target, undo);
        if (error != NULL)
            return error;
    }
    return NULL;
}

static struct error *set_attributes(const struct jail_config *config, const struct jail_bind *bind, int tree)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};
    cleanup_fd int map = -1;

    if (!bind->node)
        attributes.attr_set |= MOUNT_ATTR_NODEV;
    if (bind->read_only)
        attributes.attr_set |= MOUNT_ATTR_RDONLY;
    if (bind->own && !bind->node) {
        struct stat status;

        if (fstat(tree, &status) < 0)
            return error_errno(errno, "--bind: cannot look at \"%s\"", bind->source);
        if (status.st_uid != config->uid || status.st_gid != config->gid) {
            struct error *error = idmap_open(&status, config->uid, config->gid, &map);

            if (error != NULL)
                return error_wrap(error, "--bind: \"%s\" with own", bind->source);
            attributes.attr_set |= MOUNT_ATTR_IDMAP;
            attributes.userns_fd = (__u64)map;
        }
    }
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof(attributes)) == 0)
        return NULL;
    if (map >= 0 && (errno == EINVAL || errno == EPERM))
        return error_errno(errno,
                           "--bind: the file system of \"%s\" cannot show it as another user's (own takes idmapped "
                           "mounts, which a tmpfs has since Linux 6.3); chown it to %u:%u and leave own out",
                           bind->source, config->uid, config->gid);
    return error_errno(errno, "--bind: cannot set the mount flags of \"%s\" (mount_setattr)", bind->source);
}

/*
 * A device as the jail is to have it: a new node of the same number, as no mount keeps who may write to a device from
 * doing so, and the host's /dev takes no other owner. With own the group is the jail's; its user could chmod(2) what it
 * owns. Once it is mounted elsewhere the name goes.
 */
static struct error *clone_node(const struct jail_config *config, const struct jail_bind *bind, int fd, int root,
                                int *tree)
{
    const char *name = &NODE_NAME[strlen("dev/")];
    cleanup_fd int dev = openat(root, "dev", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;

    if (dev < 0 || fstat(fd, &status) < 0)
        return error_errno(errno, "--bind: cannot look at \"%s\"", bind->source);
    mode_t mode = bind->own ? 0660 : status.st_mode & 0666;
    if (bind->read_only)
        mode &= (mode_t)~0222;
    if (mknodat(dev, name, status.st_mode & S_IFMT, status.st_rdev) < 0)
        return error_errno(errno, "--bind: cannot make a node for the device \"%s\"", bind->source);

    struct error *error = NULL;
    uid_t uid = bind->own ? 0 : status.st_uid;
    gid_t gid = bind->own ? config->gid : status.st_gid;
    if (fchownat(dev, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 || fchmodat(dev, name, mode, 0) < 0)
        error = error_errno(errno, "--bind: cannot give the jail the device \"%s\"", bind->source);
    if (error == NULL && (*tree = mount_clone(dev, name, 0)) < 0)
        error = error_errno(errno, "--bind: cannot take \"%s\" along (open_tree)", bind->source);
    return error;
}

/* The source as a mount of the jail's own, attached nowhere. */
static struct error *clone_source(const struct jail_config *config, const struct jail_bind *bind, int fd, int root,
                                  int *tree)
{
    if (bind->node && config->mode == JAIL_ROOT)
        return clone_node(config, bind, fd, root, tree);
    if (bind->node && bind->read_only)
        return error_new(ERROR_INPUT,
                         "--bind: \"%s\" is a device, which only root can show as read-only; expected rw, and the "
                         "limits that the device itself sets",
                         bind->source);
    *tree = mount_clone(fd, "", AT_EMPTY_PATH | AT_RECURSIVE);
    return *tree >= 0 ? NULL : error_errno(errno, "--bind: cannot take \"%s\" along (open_tree)", bind->source);
}

static struct error *mount_bind(const struct jail_config *config, const struct jail_bind *bind, int fd, int root,
                                struct undo *undo)
{
    char name[NAME_MAX + 1];
    int parent = -1; /* undo needs it: left to exec */
    struct error *error = walk(root, bind->target, NULL, &parent, name);

    if (error != NULL)
        return error;
    cleanup_fd int place = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (place < 0)
        return error_errno(errno, "--bind: cannot open \"%s\" in the jail", bind->target);
    cleanup_fd int tree = -1;
    error = clone_source(config, bind, fd, root, &tree);
    if (error == NULL)
        error = set_attributes(config, bind, tree);
    if (error == NULL && mount_attach(tree, place) < 0)
        error = error_errno(errno, "--bind: cannot mount \"%s\" on \"%s\" in the jail (move_mount)", bind->source,
                            bind->target);
    if (error == NULL)
        undo_push(undo, UNDO_BIND, parent, name);
    if (error == NULL && bind->node && config->mode == JAIL_ROOT && unlinkat(root, NODE_NAME, 0) < 0)
        error = error_errno(errno, "--bind: cannot remove the node of \"%s\"", bind->source);
    return error;
}

struct error *binds_mount(const struct jail_config *config, const int fds[JAIL_BINDS_MAX], int root, struct undo *undo)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->bind_count && error == NULL; i++)
        error = mount_bind(config, &config->binds[i], fds[i], root, undo);
    return error;
}

/* Shares the blocks where the file system can. */
static int copy_bytes(int from, int to)
{
    ssize_t sent = 1;

    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    while (sent > 0)
        sent = sendfile(to, from, NULL, COPY_STEP);
    return sent == 0 ? 0 : -1;
}

static struct error *copy_bind(const struct jail_config *config, const struct jail_bind *bind, int fd, int root,
                               struct undo *undo)
{
    char name[NAME_MAX + 1];
    int parent = -1; /* undo needs it: left to exec */
    struct error *error = walk(root, bind->target, undo, &parent, name);

    if (error != NULL)
        return error;
    cleanup_fd int copy = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
    if (copy < 0)
        return error_errno(errno, "--bind: cannot make \"%s\" in the jail", bind->target);
    undo_push(undo, UNDO_FILE, parent, name);
    if (copy_bytes(fd, copy) < 0)
        return error_errno(errno, "--bind: cannot copy \"%s\" into the jail", bind->source);
    if (fchown(copy, config->uid, config->gid) < 0)
        return error_errno(errno, "--bind: cannot give the copy of \"%s\" to %u:%u", bind->source, config->uid,
                           config->gid);
    return NULL;
}

struct error *binds_copy(const struct jail_config *config, const int fds[JAIL_BINDS_MAX], int root, struct undo *undo)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->bind_count && error == NULL; i++)
        error = copy_bind(config, &config->binds[i], fds[i], root, undo);
    return error;
}
