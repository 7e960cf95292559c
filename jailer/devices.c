#include "jailer/devices.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const struct {
    const char *name; /* below /dev */
    bool required;
    size_t refused_by; /* a flag of jail_config, 0: none */
} nodes[DEVICES_COUNT] = {
    {"kvm", true, 0},
    {"net/tun", false, offsetof(struct jail_config, no_tun)},
    {"urandom", false, 0},
    {"userfaultfd", false, offsetof(struct jail_config, no_uffd)},
};

struct error *devices_look_up(struct devices *devices)
{
    for (size_t i = 0; i < DEVICES_COUNT; i++) {
        char path[64] = "/dev/";
        struct stat status;

        strcat(path, nodes[i].name);
        devices->numbers[i] = 0;
        if (stat(path, &status) == 0 && S_ISCHR(status.st_mode))
            devices->numbers[i] = status.st_rdev;
        else if (nodes[i].required)
            return error_new(ERROR_HOST, "%s is not there or not a character device: this host cannot run VMs", path);
    }
    return NULL;
}

static struct error *create_node(const struct jail_config *config, int dev, const char *name, dev_t number)
{
    if (mknodat(dev, name, S_IFCHR | 0600, number) < 0)
        return error_errno(errno, "cannot make the device node /dev/%s", name);
    if (fchownat(dev, name, config->uid, config->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(errno, "--uid, --gid: cannot give /dev/%s to %u:%u", name, config->uid, config->gid);
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
    if (mount("tmpfs", ".", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=4k,nr_inodes=16") < 0)
        return error_errno(errno, "cannot mount the jail's /dev");

    int dev = openat(root, "dev", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dev < 0)
        return error_errno(errno, "cannot open the jail's /dev");
    undo_push(undo, UNDO_MOUNT, dev, "dev");
    if (mkdirat(dev, "net", 0755) < 0 || fchmodat(dev, "net", 0755, 0) < 0)
        return error_errno(errno, "cannot make the jail's /dev/net");

    for (size_t i = 0; i < DEVICES_COUNT; i++) {
        bool refused = nodes[i].refused_by != 0 && *(const bool *)((const char *)config + nodes[i].refused_by);

        if (devices->numbers[i] == 0 || refused)
            continue;
        struct error *error = create_node(config, dev, nodes[i].name, devices->numbers[i]);
        if (error != NULL)
            return error;
    }
    return NULL;
}
