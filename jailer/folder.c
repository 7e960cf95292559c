#include "jailer/folder.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VANISHED_MAX = 64 };

/* Whoever can write to a folder can replace what the jail finds in it. */
static struct error *check_owner(const struct jail_config *config, int fd, const char *what, const char *name)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_errno(errno, "%s: cannot look at \"%s\"", what, name);
    /* In a user namespace others have no numbers. */
    if (config->mode == JAIL_USER && status.st_uid != geteuid())
        return error_new(ERROR_INPUT, "%s: \"%s\" belongs to another user; expected your own, %u", what, name,
                         geteuid());
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return error_new(ERROR_INPUT, "%s: \"%s\" belongs to user %u; expected %u", what, name, status.st_uid,
                         geteuid());
    if ((status.st_mode & S_IWOTH) != 0)
        return error_new(ERROR_INPUT, "%s: \"%s\" is writable by everybody (mode %04o)", what, name,
                         status.st_mode & 07777);
    return NULL;
}

static struct error *open_child(int parent, const char *name, struct undo *undo, int *fd)
{
    bool made = mkdirat(parent, name, 0755) == 0;

    if (made)
        undo_push(undo, UNDO_DIRECTORY, parent, name);
    else if (errno != EEXIST)
        return error_errno(errno, "--chroot-base-dir: cannot make the folder \"%s\"", name);

    *fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0)
        return error_errno(errno, "--chroot-base-dir: cannot open the folder \"%s\" (a symbolic link is refused)",
                           name);
    /* umask may have cut the mode; a folder that was there keeps its own. */
    if (made && fchmod(*fd, 0755) < 0)
        return error_errno(errno, "--chroot-base-dir: cannot set the mode of \"%s\"", name);
    return NULL;
}

static struct error *check_unused(const struct jail_config *config, int root)
{
    char name[300];
    struct stat status;

    snprintf(name, sizeof(name), "%s.pid", config->exec_name);
    if (fstatat(root, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return error_new(ERROR_STATE, "--id: the jail \"%s\" exists (it has a %s); end it or run `mayfly gc` first",
                         config->id, name);
    if (errno != ENOENT)
        return error_errno(errno, "--id: cannot look whether the jail \"%s\" exists", config->id);
    return NULL;
}

/* The lock is this process's until exec: two jailers with one id do not get past here, however close they are. */
static struct error *lock_jail(const struct jail_config *config, int jail)
{
    if (flock(jail, LOCK_EX | LOCK_NB) == 0)
        return NULL;
    if (errno == EWOULDBLOCK)
        return error_new(ERROR_STATE, "--id: the jail \"%s\" is being built or removed by another process", config->id);
    return error_errno(errno, "--id: cannot lock the folder of the jail \"%s\"", config->id);
}

/*
 * <id>/jail marks the folder as one of ours, and says where its cgroups are: `mayfly gc` removes no other. Made before
 * anything else below <id>; a dead jail's is there already, and overwritten once it is sure that the jail is ours.
 */
static struct error *write_marker(const struct jail_config *config, int file, bool made)
{
    char text[PATH_MAX];
    size_t length = (size_t)snprintf(text, sizeof(text), "%s%s", config->delegated_cgroup, config->parent_cgroup);

    /* A new file is not truncated: ext4 would write it to the disk as soon as it is closed. */
    if (length >= sizeof(text) || fchmod(file, 0644) < 0 || (!made && ftruncate(file, 0) < 0) ||
        write(file, text, length) != (ssize_t)length)
        return error_errno(errno, "--chroot-base-dir: cannot write the file \"%s\"", JAIL_MARKER);
    return NULL;
}

static struct error *open_marker(int jail, struct undo *undo, int *file, bool *made)
{
    *file = openat(jail, JAIL_MARKER, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    *made = *file >= 0;
    if (*made)
        undo_push(undo, UNDO_FILE, jail, JAIL_MARKER);
    else if (errno == EEXIST)
        *file = openat(jail, JAIL_MARKER, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    return *file >= 0 ? NULL : error_errno(errno, "--chroot-base-dir: cannot make the file \"%s\"", JAIL_MARKER);
}

/*
 * A caller may have given all that it prepared to the jail's user (chown -R), as Firecracker's jailer lets it. <id>
 * changes hands: what that user put there as the marker before, a hard link to somebody's file, is not written to.
 */
static struct error *take_over(const struct jail_config *config, int jail)
{
    struct stat status, marker;

    if (fstat(jail, &status) < 0)
        return error_errno(errno, "--chroot-base-dir: cannot look at \"%s\"", config->id);
    if (config->mode != JAIL_ROOT || status.st_uid != config->uid || config->uid == geteuid())
        return NULL;
    if (fchown(jail, geteuid(), getegid()) < 0)
        return error_errno(errno, "--chroot-base-dir: cannot take \"%s\" over from user %u", config->id, config->uid);
    if (fstatat(jail, JAIL_MARKER, &marker, AT_SYMLINK_NOFOLLOW) == 0)
        return error_new(ERROR_INPUT, "--chroot-base-dir: user %u, whose folder \"%s\" was, made a \"%s\" in it",
                         config->uid, config->id, JAIL_MARKER);
    return NULL;
}

static struct error *open_below(const struct jail_config *config, int base, struct undo *undo, int *root)
{
    int exec = -1;
    int jail = -1;
    struct error *error = open_child(base, config->exec_name, undo, &exec);

    if (error == NULL)
        error = check_owner(config, exec, "--chroot-base-dir", config->exec_name);
    if (error == NULL)
        error = open_child(exec, config->id, undo, &jail);
    if (error == NULL)
        error = take_over(config, jail);
    if (error == NULL)
        error = check_owner(config, jail, "--chroot-base-dir", config->id);
    if (error == NULL)
        error = lock_jail(config, jail);

    cleanup_fd int marker = -1;
    bool made = false;
    if (error == NULL)
        error = open_marker(jail, undo, &marker, &made);
    if (error == NULL && made)
        error = write_marker(config, marker, made);
    if (error == NULL)
        error = open_child(jail, "root", undo, root);
    if (error == NULL)
        error = check_unused(config, *root);
    if (error == NULL && !made)
        error = write_marker(config, marker, made);
    return error;
}

struct error *folder_open(const struct jail_config *config, struct undo *undo, int *root)
{
    /* An ordinary user's default: there is nobody else to make it. */
    if (config->mode != JAIL_ROOT && config->default_base && mkdir(config->chroot_base_dir, 0700) == 0)
        undo_push(undo, UNDO_DIRECTORY, AT_FDCWD, config->chroot_base_dir);

    int base = open(config->chroot_base_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base < 0)
        return error_errno(errno, "--chroot-base-dir: cannot open \"%s\"", config->chroot_base_dir);

    struct error *error = check_owner(config, base, "--chroot-base-dir", config->chroot_base_dir);
    if (error == NULL)
        error = open_below(config, base, undo, root);
    /* Another jailer's failed start took back a folder that both use: make it again. */
    for (int i = 0; error != NULL && error->code == ENOENT && i < VANISHED_MAX; i++) {
        error_free(error);
        error = open_below(config, base, undo, root);
    }
    if (error == NULL && fchown(*root, config->uid, config->gid) < 0)
        error = error_errno(errno, "--uid, --gid: cannot give the root folder to %u:%u", config->uid, config->gid);
    if (error == NULL && fchmod(*root, config->open_to_group ? 0710 : 0700) < 0)
        error = error_errno(errno, "--chroot-base-dir: cannot set the mode of \"root\"");
    return error;
}

struct error *folder_write_pid(const struct jail_config *config, int root, pid_t pid, struct undo *undo)
{
    char name[300];
    char text[32];

    snprintf(name, sizeof(name), "%s.pid", config->exec_name);
    int length = snprintf(text, sizeof(text), "%d", pid);

    cleanup_fd int file = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (file < 0)
        return error_errno(errno, "cannot make the pid file \"%s\"", name);
    undo_push(undo, UNDO_FILE, root, name);
    if (fchmod(file, 0644) < 0 || write(file, text, (size_t)length) != length)
        return error_errno(errno, "cannot write the pid file \"%s\"", name);

    /* A second opening, read-only, is what the VMM inherits: it can hold the lock and nothing else. */
    int held = openat(root, name, O_RDONLY | O_NOFOLLOW);
    if (held < 0 || flock(held, LOCK_SH | LOCK_NB) < 0)
        return error_errno(errno, "cannot lock the pid file \"%s\"", name);
    return NULL;
}
