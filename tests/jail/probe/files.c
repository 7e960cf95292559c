/* The file system: paths, links, nodes, mounts, another root. */
#include "tests/jail/probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int attempt_open(void)
{
    return stopped(open("/etc/passwd", O_RDONLY));
}

static int attempt_climb(void)
{
    return stopped(open("../../../../../../../../etc/passwd", O_RDONLY));
}

static int attempt_climb_by_directory(void)
{
    for (int i = 0; i < 16; i++)
        if (chdir("..") < 0)
            return errno;
    return stopped(open("etc/passwd", O_RDONLY));
}

static int attempt_proc(void)
{
    return stopped(open("/proc/1/root/etc/passwd", O_RDONLY));
}

static int attempt_own_binary(void)
{
    return stopped(open((const char *)getauxval(AT_EXECFN), O_WRONLY));
}

static int attempt_write_binary_by_fd(void)
{
    for (int fd = 3; fd < 64; fd++)
        if (write(fd, "x", 1) == 1)
            return 0;
    return EBADF;
}

static int attempt_symlink(void)
{
    return stopped(symlink("/etc/passwd", "/link")) ?: stopped(open("/link", O_RDONLY));
}

static int attempt_hard_link(void)
{
    return stopped(link("/dev/kvm", "/run/kvm"));
}

static int attempt_mknod(void)
{
    return stopped(mknod("/disk", S_IFBLK | 0600, makedev(8, 0)));
}

static int attempt_mknod_in_dev(void)
{
    return stopped(mknod("/dev/mem", S_IFCHR | 0600, makedev(1, 1)));
}

static int attempt_mount(void)
{
    return stopped(mount("tmpfs", "/run", "tmpfs", 0, NULL));
}

static int attempt_remount(void)
{
    return stopped(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
}

static int attempt_umount(void)
{
    return stopped(umount2("/dev", MNT_DETACH));
}

static int attempt_fsopen(void)
{
    return stopped(syscall(SYS_fsopen, "proc", 0));
}

static int attempt_open_tree(void)
{
    return stopped(syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
}

static int attempt_handle(void)
{
    struct {
        struct file_handle handle;
        unsigned char bytes[16];
    } handle = {.handle = {.handle_bytes = 8, .handle_type = 1}};
    int root = open("/", O_RDONLY | O_DIRECTORY);

    return root < 0 ? errno : stopped(open_by_handle_at(root, &handle.handle, O_RDONLY));
}

static int attempt_chroot(void)
{
    return stopped(chroot("/run"));
}

static int attempt_pivot_root(void)
{
    return stopped(syscall(SYS_pivot_root, ".", "."));
}

const struct command attempts_on_files[] = {
    {"open", attempt_open},
    {"climb", attempt_climb},
    {"climb-by-directory", attempt_climb_by_directory},
    {"proc", attempt_proc},
    {"own-binary", attempt_own_binary},
    {"write-binary-by-fd", attempt_write_binary_by_fd},
    {"symlink", attempt_symlink},
    {"hard-link", attempt_hard_link},
    {"mknod", attempt_mknod},
    {"mknod-in-dev", attempt_mknod_in_dev},
    {"mount", attempt_mount},
    {"remount", attempt_remount},
    {"umount", attempt_umount},
    {"fsopen", attempt_fsopen},
    {"open-tree", attempt_open_tree},
    {"handle", attempt_handle},
    {"chroot", attempt_chroot},
    {"pivot-root", attempt_pivot_root},
    {NULL, NULL},
};
