#include "jailer/devices.h"

#include "jailer/mounts.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct {
    const char *path;
    bool required;
    size_t refused_by;   /* a flag of jail_config, 0: none */
    size_t wanted_by;    /* likewise: then it must be there, else the jail has it not */
    const char *missing; /* what to say where it must be there and is not */
} nodes[DEVICES_COUNT] = {
    {"/dev/kvm", true, 0, 0, ": this host cannot run VMs"},
    {"/dev/net/tun", false, offsetof(struct jail_config, no_tun), 0, NULL},
    {"/dev/urandom", false, 0, 0, NULL},
    {"/dev/userfaultfd", false, offsetof(struct jail_config, no_uffd), 0, NULL},
    {"/dev/vhost-net", false, 0, offsetof(struct jail_config, vhost_net),
     ", as --vhost-net asks for: modprobe vhost_net"},
};

/* A path below the jail's /dev. */
static const char *name_of(size_t i)
{
    return nodes[i].path + strlen("/dev/");
}

static bool flag(const struct jail_config *config, size_t offset)
{
    return offset != 0 && *(const bool *)((const char *)config + offset);
}

static struct error *look_up(const struct jail_config *config, size_t i, dev_t *number)
{
    const char *path = nodes[i].path;
    bool required = nodes[i].required || flag(config, nodes[i].wanted_by);
    struct stat status;
    bool there = stat(path, &status) == 0;

    if (!there && errno != ENOENT && required)
        return error_errno(errno, "cannot look at %s", path);
    if (!there || !S_ISCHR(status.st_mode)) {
        if (!required)
            return NULL;
        return error_new(ERROR_HOST, "%s is not there or not a character device%s", path, nodes[i].missing);
    }
    if (config->mode != JAIL_ROOT && faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) < 0) {
        if (!required)
            return NULL;
        return error_errno(errno, "user %u may not open %s; it belongs to group %u, mode %04o", geteuid(), path,
                           status.st_gid, status.st_mode & 07777);
    }
    *number = status.st_rdev;
    return NULL;
}

struct error *devices_look_up(const struct jail_config *config, struct devices *devices)
{
    for (size_t i = 0; i < DEVICES_COUNT; i++) {
        devices->numbers[i] = 0;
        if (nodes[i].wanted_by != 0 && !flag(config, nodes[i].wanted_by))
            continue;

        struct error *error = look_up(config, i, &devices->numbers[i]);
        if (error != NULL)
            return error;
    }
    return NULL;
}

struct error *devices_check_access(const struct jail_config *config)
{
    if (faccessat(AT_FDCWD, nodes[0].path, R_OK | W_OK, AT_EACCESS) == 0)
        return NULL;
    return error_errno(errno, "--uid, --gid: %u:%u may not open %s, which the jail has as the host has it", config->uid,
                       config->gid, nodes[0].path);
}

const char *devices_path(const struct jail_config *config, const struct devices *devices, size_t i)
{
    return devices->numbers[i] == 0 || flag(config, nodes[i].refused_by) ? NULL : nodes[i].path;
}

static struct error *create_node(const struct jail_config *config, int dev, const char *name, dev_t number)
{
    if (mknodat(dev, name, S_IFCHR | 0600, number) < 0)
        return error_errno(errno, "cannot make the device node /dev/%s", name);
    if (fchownat(dev, name, config->uid, config->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(errno, "--uid, --gid: cannot give /dev/%s to %u:%u", name, config->uid, config->gid);
    return NULL;
}

/* The host's node over an empty file. Found by its path: /dev is root's. */
static struct error *bind_node(int dev, const char *name, const char *path)
{
    cleanup_fd int place = openat(dev, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (place < 0)
        return error_errno(errno, "cannot make a place for the device node /dev/%s", name);

    cleanup_fd int node = mount_clone(AT_FDCWD, path, 0);
    if (node < 0)
        return error_errno(errno, "cannot bind %s (open_tree)", path);
    if (mount_attach(node, place) < 0)
        return error_errno(errno, "cannot bind %s (move_mount)", path);
    return NULL;
}

struct error *devices_create(const struct jail_config *config, const struct devices *devices, struct undo *undo,
                             int root)
{
    /* Mounted by way of the working directory: no path that somebody could swap is walked. */
    int folder = openat(root, "dev", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fchdir(folder) < 0) {
        struct error *error = error_errno(errno, "cannot enter the jail's /dev");

        fd_close(&folder);
        return error;
    }
    fd_close(&folder);
    if (mount("tmpfs", ".", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=4k,nr_inodes=64") < 0)
        return error_errno(errno, "cannot mount the jail's /dev");

    int dev = openat(root, "dev", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dev < 0)
        return error_errno(errno, "cannot open the jail's /dev");
    undo_push(undo, UNDO_MOUNT, dev, "dev");
    if (mkdirat(dev, "net", 0755) < 0 || fchmodat(dev, "net", 0755, 0) < 0)
        return error_errno(errno, "cannot make the jail's /dev/net");

    bool bind = config->mode == JAIL_USER;
    for (size_t i = 0; i < DEVICES_COUNT; i++) {
        struct error *error = NULL;

        if (devices_path(config, devices, i) == NULL)
            continue;
        if (!bind)
            error = create_node(config, dev, name_of(i), devices->numbers[i]);
        if (error != NULL && error->code == EPERM) { /* root of a container in a user namespace */
            error_free(error);
            error = NULL;
            bind = true;
        }
        if (error == NULL && bind)
            error = bind_node(dev, name_of(i), nodes[i].path);
        if (error != NULL)
            return error;
    }
    return NULL;
}

/* Some file systems, and some containers, have nodes that nobody may open. */
static bool can_be_opened(int dev, const char *name)
{
    cleanup_fd int fd = openat(dev, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    return fd >= 0;
}

bool devices_create_in_folder(const struct jail_config *config, const struct devices *devices, struct undo *undo,
                              int root)
{
    size_t mark = undo->count;
    int dev = openat(root, "dev", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); /* undo borrows it until exec */
    bool fine = dev >= 0;

    if (fine && mkdirat(dev, "net", 0755) == 0)
        undo_push(undo, UNDO_DIRECTORY, dev, "net");
    for (size_t i = 0; fine && i < DEVICES_COUNT; i++) {
        if (devices_path(config, devices, i) == NULL)
            continue;
        struct error *error = create_node(config, dev, name_of(i), devices->numbers[i]);
        if (error == NULL || error->code != EEXIST)
            undo_push(undo, UNDO_FILE, dev, name_of(i));
        fine = error == NULL && can_be_opened(dev, name_of(i));
        error_free(error);
    }
    if (!fine) {
        undo_run_to(undo, mark);
        fd_close(&dev);
    }
    return fine;
}
