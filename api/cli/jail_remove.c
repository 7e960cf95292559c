#include "api/cli/jail_remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "api/cli/run_mounts_user.h"
#include "jailer/jail.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum {
    DEPTH_MAX = 32,
    GROUP_DEPTH_MAX = 3, /* of the cgroups that jails' groups are looked for in */
    /* A dead VMM's last threads leave its cgroup a little after its descriptors are closed. */
    EMPTY_PATIENCE_US = 2000000,
    EMPTY_LOOK_US = 200,
};

/* --- cgroups --- */

/* Nobody is killed: a jail of the same name below another base shares the group. */
static struct error *remove_group(const char *group)
{
    uint64_t until = clock_monotonic_us() + EMPTY_PATIENCE_US;

    while (rmdir(group) != 0) {
        /* Where an ordinary user may not even look, as in root's groups of the same name, none is the user's. */
        if (errno == ENOENT || (errno == EACCES && access(group, F_OK) != 0))
            return NULL;
        if (errno != EBUSY || clock_monotonic_us() > until)
            return error_errno(errno, "cannot remove the cgroup %s", group);
        nanosleep(&(struct timespec){.tv_nsec = EMPTY_LOOK_US * 1000}, NULL);
    }
    return NULL;
}

/* Calls `visit` with the mount point of every cgroup hierarchy. */
static void for_each_hierarchy(void (*visit)(void *context, const char *mount), void *context)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent entry;
    char line[PATH_MAX];

    while (mounts != NULL && getmntent_r(mounts, &entry, line, sizeof(line)) != NULL)
        if (strcmp(entry.mnt_type, "cgroup") == 0 || strcmp(entry.mnt_type, "cgroup2") == 0)
            visit(context, entry.mnt_dir);
    if (mounts != NULL)
        endmntent(mounts);
}

struct group_removal {
    const char *name;
    struct error *(*remove)(const char *group);
    struct error *first;
};

static void remove_below(void *context, const char *mount)
{
    struct group_removal *removal = context;
    char group[PATH_MAX];

    if (snprintf(group, sizeof(group), "%s/%s", mount, removal->name) >= (int)sizeof(group))
        return;

    struct error *error = removal->remove(group);
    if (removal->first == NULL)
        removal->first = error;
    else
        error_free(error);
}

/* Calls `remove` with <mount>/<name> for every cgroup hierarchy; the first error is kept, the rest still tried. */
static struct error *for_each_group(const char *name, struct error *(*remove)(const char *group))
{
    struct group_removal removal = {.name = name, .remove = remove};

    for_each_hierarchy(remove_below, &removal);
    return removal.first;
}

static struct error *remove_if_empty(const char *group)
{
    rmdir(group);
    return NULL;
}

void jail_remove_parent_cgroups(const char *parent)
{
    if (parent[0] != '\0' && parent[0] != '/' && strstr(parent, "..") == NULL)
        error_free(for_each_group(parent, remove_if_empty));
}

struct orphans {
    const char *base; /* NULL: of any */
    bool dry_run;
    void (*tell)(void *context, const char *group);
    void *context;
};

static bool is_below(const char *path, const char *base)
{
    size_t length = base == NULL ? 0 : strlen(base);

    return base == NULL || (strncmp(path, base, length) == 0 && path[length] == '/');
}

static bool has_no_process(const char *group)
{
    char path[PATH_MAX], byte;

    if (snprintf(path, sizeof(path), "%s/cgroup.procs", group) >= (int)sizeof(path))
        return false;
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, &byte, 1) == 0;
}

/* A jail's folder is there before its groups are; while its VMM lives they cannot be removed. */
static void look_at_group(const struct orphans *orphans, const char *group, const char *root)
{
    if (access(root, F_OK) == 0 || errno != ENOENT || !is_below(root, orphans->base))
        return;
    if (orphans->dry_run ? has_no_process(group) : rmdir(group) == 0)
        orphans->tell(orphans->context, group);
}

static void look_for_orphans(const struct orphans *orphans, const char *parent, unsigned depth)
{
    DIR *directory = opendir(parent);
    struct dirent *entry;

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        char group[PATH_MAX], root[PATH_MAX];

        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' ||
            snprintf(group, sizeof(group), "%s/%s", parent, entry->d_name) >= (int)sizeof(group))
            continue;
        ssize_t length = getxattr(group, JAIL_CGROUP_ROOT, root, sizeof(root) - 1);
        root[length > 0 ? length : 0] = '\0';
        if (length > 0)
            look_at_group(orphans, group, root);
        else if (depth < GROUP_DEPTH_MAX)
            look_for_orphans(orphans, group, depth + 1);
    }
    if (directory != NULL)
        closedir(directory);
}

static void look_for_orphans_below(void *context, const char *mount)
{
    look_for_orphans(context, mount, 0);
}

void jail_remove_orphan_cgroups(const char *base, bool dry_run, void (*tell)(void *context, const char *group),
                                void *context)
{
    struct orphans orphans = {base, dry_run, tell, context};

    for_each_hierarchy(look_for_orphans_below, &orphans);
}

/* --- The folder --- */

/* Not through a link, not through a mount. */
static int open_folder(int parent, const char *name)
{
    struct open_how how = {.flags = (unsigned)(O_RDONLY | O_DIRECTORY | O_NOFOLLOW) | (unsigned)O_CLOEXEC,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_BENEATH};

    return (int)syscall(SYS_openat2, parent, name, &how, sizeof(how));
}

struct removal {
    int top;        /* where folders that lie too deep are moved to */
    unsigned moved; /* so far: names them */
};

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static struct error *empty_folder(struct removal *removal, int folder, unsigned depth);

/* The VMM may have nested folders without end: what lies deep comes up, instead of the stack going down. */
static struct error *remove_folder(struct removal *removal, int parent, const char *name, unsigned depth)
{
    cleanup_fd int folder = -1;
    struct error *error;

    if (depth == DEPTH_MAX) {
        char up[32];

        snprintf(up, sizeof(up), ".removed-%u", removal->moved++);
        return renameat(parent, name, removal->top, up) == 0
                   ? NULL
                   : error_errno(errno, "cannot move the folder \"%s\"", name);
    }
    folder = open_folder(parent, name);
    if (folder < 0)
        return error_errno(errno, "cannot remove the folder \"%s\"%s", name,
                           errno == EXDEV ? ": something is mounted on it" : "");
    error = empty_folder(removal, folder, depth + 1);
    if (error == NULL && unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        error = error_errno(errno, "cannot remove the folder \"%s\"", name);
    return error;
}

static struct error *empty_folder(struct removal *removal, int folder, unsigned depth)
{
    int copy =
        openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* reads from its start, whatever was read before */
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct error *error = NULL;
    struct dirent *entry;

    if (directory == NULL) {
        error = error_errno(errno, "cannot read a folder");
        fd_close(&copy);
        return error;
    }
    while (error == NULL && (entry = readdir(directory)) != NULL) {
        if (is_dots(entry->d_name) || unlinkat(folder, entry->d_name, 0) == 0 || errno == ENOENT)
            continue;
        if (errno == EISDIR)
            error = remove_folder(removal, folder, entry->d_name, depth);
        else
            error = error_errno(errno, "cannot remove \"%s\"%s", entry->d_name,
                                errno == EBUSY ? ": something is mounted on it" : "");
    }
    closedir(directory);
    return error;
}

/* Until a pass moves nothing up. */
static struct error *remove_root(int jail)
{
    struct removal removal = {.top = -1};
    struct error *error = NULL;
    unsigned before;

    cleanup_fd int root = open_folder(jail, "root");
    if (root < 0 && errno == ENOENT)
        return NULL;
    if (root < 0)
        return error_errno(errno, "cannot open \"root\"");
    removal.top = root;
    do {
        before = removal.moved;
        error = empty_folder(&removal, root, 0);
    } while (error == NULL && removal.moved != before);
    if (error == NULL && unlinkat(jail, "root", AT_REMOVEDIR) != 0)
        error = error_errno(errno, "cannot remove the folder \"root\"");
    return error;
}

/* --- The jail --- */

/* <id> must be a folder that only root or we can write; false: it is nothing of ours. */
static bool open_jail(int exec, const char *id, int *jail, struct stat *status)
{
    *jail = openat(exec, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *jail >= 0 && fstat(*jail, status) == 0 && (status->st_uid == 0 || status->st_uid == geteuid()) &&
           (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* The parent cgroup that the jailer noted. False: there is no note. "": it was killed before it wrote it. */
static bool read_marker(int jail, char *parent, size_t size)
{
    cleanup_fd int file = openat(jail, JAIL_MARKER, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;

    if (file < 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
        return false;
    ssize_t got = read(file, parent, size - 1);
    parent[got > 0 ? got : 0] = '\0';
    return true;
}

static bool is_empty(int folder)
{
    int copy = fcntl(folder, F_DUPFD_CLOEXEC, 3);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    bool empty = directory != NULL;
    struct dirent *entry;

    while (empty && (entry = readdir(directory)) != NULL)
        empty = is_dots(entry->d_name);
    if (directory != NULL)
        closedir(directory);
    else
        fd_close(&copy);
    return empty;
}

/* Whether somebody holds the lock that a live VMM has. */
static bool is_alive(int jail, const char *exec_name)
{
    char name[NAME_MAX + 1];
    cleanup_fd int root = open_folder(jail, "root");

    if (root < 0 || snprintf(name, sizeof(name), "%s.pid", exec_name) >= (int)sizeof(name))
        return false;
    cleanup_fd int file = openat(root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return file >= 0 && flock(file, LOCK_EX | LOCK_NB) != 0;
}

/* Whether the jailer itself made the group, in one that was delegated: those at the top are gc's. */
static bool is_ours_below_another(const char *parent, const char *exec_name)
{
    const char *slash = strrchr(parent, '/');

    return slash != NULL && strcmp(slash + 1, exec_name) == 0;
}

/* A note that is empty was being written: the jail has the usual one, if any. */
static struct error *remove_dead(int exec, int jail, const char *exec_name, const char *id, const char *parent)
{
    char group[PATH_MAX];
    struct error *error = NULL;

    if (snprintf(group, sizeof(group), "%s/%s", parent, id) < (int)sizeof(group))
        error = for_each_group(group, remove_group);
    if (error == NULL && is_ours_below_another(parent, exec_name))
        error = for_each_group(parent, remove_if_empty);
    if (error == NULL)
        error = remove_root(jail);
    /* Last, so that who is interrupted before can begin again. */
    if (error == NULL && unlinkat(jail, JAIL_MARKER, 0) != 0 && errno != ENOENT)
        error = error_errno(errno, "cannot remove \"%s\"", JAIL_MARKER);
    if (error == NULL && unlinkat(exec, id, AT_REMOVEDIR) != 0 && errno != ENOENT)
        error = error_errno(errno, "cannot remove the folder");
    return error == NULL ? NULL : error_wrap(error, "jail %s", id);
}

/* Who has the lock of <id> calls it. */
static struct error *remove_locked(int exec, int jail, const char *exec_name, const char *id, bool dry_run,
                                   const char *parent, enum jail_state *state)
{
    if (is_alive(jail, exec_name)) {
        *state = JAIL_ALIVE;
        return NULL;
    }
    *state = JAIL_DEAD;
    return dry_run ? NULL : remove_dead(exec, jail, exec_name, id, parent);
}

/* A user's jail may be of one of the user's subordinate ids: the user itself cannot look into it. */
static bool is_out_of_reach(int jail)
{
    struct stat status;

    return geteuid() != 0 && fstatat(jail, "root", &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_uid != geteuid();
}

/* The same by a child that is all of the user's ids; what went wrong comes back as text. */
static struct error *remove_with_all_ids(int exec, int jail, const char *exec_name, const char *id, bool dry_run,
                                         const char *parent, enum jail_state *state)
{
    char text[1024] = "";
    size_t length = 0;
    int pipe_fds[2], status = 0;

    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return error_errno(errno, "jail %s: cannot make a pipe", id);
    pid_t child = fork();
    if (child == 0) {
        struct mounts_user user;
        struct error *error = mounts_user_find(&user);
        const char *failed = error == NULL ? mounts_user_enter(&user) : "it is another user's";

        error_free(error);
        error = failed != NULL ? error_new(ERROR_HOST, "jail %s: cannot look into \"root\": %s", id, failed)
                               : remove_locked(exec, jail, exec_name, id, dry_run, parent, state);
        if (error != NULL)
            dprintf(pipe_fds[1], "%s", error->message);
        _exit((int)*state);
    }
    close(pipe_fds[1]);
    for (ssize_t got; (got = read(pipe_fds[0], text + length, sizeof(text) - 1 - length)) > 0;)
        length += (size_t)got;
    close(pipe_fds[0]);
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return error_new(ERROR_HOST, "jail %s: the process that was to remove it died", id);
    *state = (enum jail_state)WEXITSTATUS(status);
    return length == 0 ? NULL : error_new(ERROR_HOST, "%s", text);
}

struct error *jail_remove(int exec, const char *exec_name, const char *id, bool dry_run, enum jail_state *state)
{
    char parent[PATH_MAX];
    struct stat status, again;
    cleanup_fd int jail = -1;

    *state = JAIL_GONE;
    if (!open_jail(exec, id, &jail, &status)) {
        *state = jail < 0 && errno == ENOENT ? JAIL_GONE : JAIL_FOREIGN;
        return NULL;
    }
    if (!read_marker(jail, parent, sizeof(parent))) {
        /* A jailer that was killed before its first note, or one that is about to write it and makes the folder again.
         */
        bool empty = is_empty(jail);

        *state = empty && (dry_run || unlinkat(exec, id, AT_REMOVEDIR) == 0) ? JAIL_DEAD : JAIL_FOREIGN;
        return NULL;
    }
    if (flock(jail, LOCK_EX | LOCK_NB) != 0) {
        *state = JAIL_BUILDING;
        return NULL;
    }
    /* Somebody may have removed it, and another made one of this name, before the lock was ours. */
    if (fstatat(exec, id, &again, AT_SYMLINK_NOFOLLOW) != 0 || again.st_ino != status.st_ino ||
        again.st_dev != status.st_dev)
        return NULL;
    *state = JAIL_DEAD;
    return (is_out_of_reach(jail) ? remove_with_all_ids : remove_locked)(exec, jail, exec_name, id, dry_run,
                                                                         parent[0] == '\0' ? exec_name : parent, state);
}
