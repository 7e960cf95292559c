#include "root.h"

#include "superblock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEW_ROOT "/.root"
#define LOWER "/.lower"
#define SCRATCH "/.scratch"

/* Reads up to `size` bytes at the start of the block device `path`; returns how many, or -1. */
static ssize_t device_read(const char *path, unsigned char *bytes, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;

    if (fd >= 0) {
        int code;

        got = pread(fd, bytes, size, 0);
        code = errno;
        close(fd);
        errno = code;
    }
    return got;
}

/* Finds the partition `uuid` on the virtio disks and writes its device's path. */
static int partition_find(char *path, size_t size, const char *uuid, struct failure *failure)
{
    static unsigned char table[PARTITION_TABLE_BYTES];
    DIR *directory = opendir("/sys/block");
    struct dirent *entry;

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        unsigned number;
        size_t last;
        ssize_t got;

        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path, size, "/dev/%s", entry->d_name);
        got = device_read(path, table, sizeof(table));
        number = got > 0 ? partition_number(table, (size_t)got, uuid) : 0;
        if (number != 0) {
            /* As the kernel names them: vda1, but nvme0n1p1. */
            last = strlen(entry->d_name) - 1;
            snprintf(path, size, "/dev/%s%s%u", entry->d_name,
                     entry->d_name[last] >= '0' && entry->d_name[last] <= '9' ? "p" : "", number);
            closedir(directory);
            return 0;
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return failure_set(failure, FAILURE_OTHER, "root=PARTUUID=%s: no disk has such a partition", uuid);
}

/* Writes the path of the device that root= names. */
static int root_device(char *path, size_t size, const char *root, struct failure *failure)
{
    static const char partuuid[] = "PARTUUID=";

    if (strncmp(root, partuuid, sizeof(partuuid) - 1) == 0) {
        return partition_find(path, size, root + sizeof(partuuid) - 1, failure);
    }
    if (strncmp(root, "/dev/", 5) != 0) {
        return failure_set(failure, FAILURE_OTHER, "root=%s: expected /dev/NAME or PARTUUID=ID", root);
    }
    snprintf(path, size, "%s", root);
    return 0;
}

static int root_mount(const struct cmdline *cmdline, const char *target, struct failure *failure)
{
    static unsigned char head[SUPERBLOCK_BYTES];
    char device[PATH_MAX];
    const char *type = cmdline->root_type;
    bool writable = cmdline->root_writable && !cmdline->overlay;

    if (root_device(device, sizeof(device), cmdline->root, failure) != 0) {
        return -1;
    }
    if (type == NULL) {
        ssize_t got = device_read(device, head, sizeof(head));

        if (got < 0) {
            return failure_errno(failure, "root=%s: cannot read the device", cmdline->root);
        }
        type = superblock_type(head, (size_t)got);
        if (type == NULL) {
            const char *mistaken = superblock_mistaken(head, (size_t)got);

            if (mistaken != NULL) {
                return failure_set(failure, FAILURE_OTHER, "root=%s: %s, expected erofs, squashfs or ext4",
                                   cmdline->root, mistaken);
            }
            return failure_set(failure, FAILURE_OTHER,
                               "root=%s: neither erofs, squashfs nor ext4 (rootfstype= names another)", cmdline->root);
        }
    }
    /* A type that has no writable form says EROFS or EACCES when asked for one. */
    if (writable && mount(device, target, type, 0, cmdline->root_flags) == 0) {
        return 0;
    }
    if (writable && errno != EROFS && errno != EACCES) {
        return failure_errno(failure, "root=%s: cannot mount it as %s", cmdline->root, type);
    }
    if (mount(device, target, type, MS_RDONLY, cmdline->root_flags) != 0) {
        return failure_errno(failure, "root=%s: cannot mount it as %s", cmdline->root, type);
    }
    return 0;
}

/* The root with a tmpfs over it: LOWER is what lies below, SCRATCH takes the writes. */
static int overlay_mount(const struct cmdline *cmdline, struct failure *failure)
{
    static const char options[] = "lowerdir=" LOWER ",upperdir=" SCRATCH "/upper,workdir=" SCRATCH "/work";

    if (mkdir(LOWER, 0755) != 0 || mkdir(SCRATCH, 0755) != 0 || mount("tmpfs", SCRATCH, "tmpfs", 0, "mode=0755") != 0 ||
        mkdir(SCRATCH "/upper", 0755) != 0 || mkdir(SCRATCH "/work", 0755) != 0) {
        return failure_errno(failure, "mayfly.overlay: cannot make the tmpfs");
    }
    if (root_mount(cmdline, LOWER, failure) != 0) {
        return -1;
    }
    if (mount("overlay", NEW_ROOT, "overlay", 0, options) != 0) {
        return failure_errno(failure, "mayfly.overlay: cannot mount the overlay");
    }
    /* Held by the overlay; the names are of no more use. */
    umount2(LOWER, MNT_DETACH);
    umount2(SCRATCH, MNT_DETACH);
    return 0;
}

/* Moves a file system of the kernel's into the new root, which may lack the directory for it. */
static int mount_move(const char *from, const char *to, struct failure *failure)
{
    if (mount(from, to, NULL, MS_MOVE, NULL) == 0 ||
        (errno == ENOENT && mkdir(to, 0755) == 0 && mount(from, to, NULL, MS_MOVE, NULL) == 0)) {
        return 0;
    }
    return failure_errno(failure, "the root file system has no usable directory %s", from);
}

/* Deletes what is in the directory `fd` (which it closes) and on its file system. */
static void tree_free(int fd, dev_t device)
{
    DIR *directory = fdopendir(fd);
    struct dirent *entry;
    struct stat status;

    if (directory == NULL) {
        close(fd);
        return;
    }
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 || status.st_dev != device) {
            continue;
        }
        if (S_ISDIR(status.st_mode)) {
            int child = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

            if (child >= 0) {
                tree_free(child, device);
            }
            unlinkat(fd, entry->d_name, AT_REMOVEDIR);
        } else {
            unlinkat(fd, entry->d_name, 0);
        }
    }
    closedir(directory);
}

int root_switch(const struct cmdline *cmdline, struct failure *failure)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    struct stat status;
    int old_root;

    if (mkdir(NEW_ROOT, 0755) != 0) {
        return failure_errno(failure, "cannot make a directory for the root file system");
    }
    if (cmdline->overlay ? overlay_mount(cmdline, failure) : root_mount(cmdline, NEW_ROOT, failure)) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(moved) / sizeof(moved[0]); i++) {
        char to[32];

        snprintf(to, sizeof(to), NEW_ROOT "%s", moved[i]);
        if (mount_move(moved[i], to, failure) != 0) {
            return -1;
        }
    }
    old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (old_root < 0 || fstat(old_root, &status) != 0 || chdir(NEW_ROOT) != 0) {
        return failure_errno(failure, "cannot enter the root file system");
    }
    /* pivot_root does not work on the initramfs: its mount is covered, and then left. */
    if (mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0) {
        return failure_errno(failure, "cannot switch to the root file system");
    }
    tree_free(old_root, status.st_dev);
    return 0;
}
