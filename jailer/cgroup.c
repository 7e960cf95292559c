#include "jailer/cgroup.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { VANISHED_MAX = 64 };

static struct error *open_child(int parent, const char *name, struct undo *undo, int *fd)
{
    if (mkdirat(parent, name, 0755) == 0)
        undo_push(undo, UNDO_DIRECTORY, parent, name);
    else if (errno != EEXIST)
        return error_errno(errno, "cannot make the cgroup \"%s\"", name);
    *fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0)
        return error_errno(errno, "cannot open the cgroup \"%s\"", name);
    return NULL;
}

static struct error *open_path(const struct jail_config *config, int top, cgroup_prepare *prepare, const void *argument,
                               struct undo *undo, int *group)
{
    char path[4096];
    char *rest = NULL;
    int at = top;

    snprintf(path, sizeof(path), "%s/%s", config->parent_cgroup, config->id);
    for (char *part = strtok_r(path, "/", &rest); part != NULL; part = strtok_r(NULL, "/", &rest)) {
        int child = -1;
        struct error *error = prepare(at, -1, argument);

        if (error == NULL)
            error = open_child(at, part, undo, &child);
        if (error == NULL)
            error = prepare(at, child, argument);
        if (error != NULL)
            return error;
        at = child;
    }
    *group = at;
    return NULL;
}

struct error *cgroup_open_group(const struct jail_config *config, const struct cgroup_tree *tree,
                                cgroup_prepare *prepare, const void *argument, struct undo *undo, int *group)
{
    struct error *error = open_path(config, tree->top, prepare, argument, undo, group);

    /* Another jailer's failed start took back a group that both use: make it again. */
    for (int i = 0; error != NULL && (error->code == ENOENT || error->code == ENODEV) && i < VANISHED_MAX; i++) {
        error_free(error);
        error = open_path(config, tree->top, prepare, argument, undo, group);
    }
    if (error != NULL)
        return error;

    /* Newest is undone first: the process leaves before its group is removed. Opened now: a cgroup namespace that is
     * entered later would not let it out. */
    int procs = openat(tree->home, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (procs < 0)
        return error_errno(errno, "--cgroup: cannot open cgroup.procs of the group to come back to");
    undo_push(undo, UNDO_LEAVE_CGROUP, procs, "cgroup.procs");
    return NULL;
}

bool cgroup_read(int group, const char *file, char *text, size_t size)
{
    cleanup_fd int fd = openat(group, file, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

    if (got < 0)
        return false;
    while (got > 0 && text[got - 1] == '\n')
        got--;
    text[got] = '\0';
    return true;
}

struct error *cgroup_write(int group, const char *file, const char *value)
{
    cleanup_fd int fd = openat(group, file, O_WRONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return error_new(ERROR_INPUT, "--cgroup: this host's controller has no file \"%s\"", file);
    if (fd < 0)
        return error_errno(errno, "--cgroup: cannot open \"%s\"", file);
    if (write(fd, value, strlen(value)) < 0)
        return error_errno(errno, "--cgroup: the kernel refuses \"%s\" for \"%s\"", value, file);
    return NULL;
}

void cgroup_controller_name(const char *file, char *name, size_t size)
{
    snprintf(name, size, "%.*s", (int)strcspn(file, "."), file);
}

/* The usual place may be a symlink (cpu -> cpu,cpuacct): that is how distributions mount them. */
struct error *cgroup_open_mount(const char *usual, long magic, const char *option, int *fd)
{
    struct statfs status;
    struct mntent entry;
    char line[4096];

    if (statfs(usual, &status) == 0 && (long)status.f_type == magic) {
        *fd = open(usual, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return *fd < 0 ? error_errno(errno, "cannot open \"%s\"", usual) : NULL;
    }

    FILE *mounts = setmntent("/proc/self/mounts", "re");
    if (mounts == NULL)
        return error_errno(errno, "cannot read /proc/self/mounts");
    *fd = -1;
    int failed = 0;
    while (*fd < 0 && getmntent_r(mounts, &entry, line, sizeof(line)) != NULL) {
        bool fits = magic == CGROUP2_SUPER_MAGIC ? strcmp(entry.mnt_type, "cgroup2") == 0
                                                 : strcmp(entry.mnt_type, "cgroup") == 0 && hasmntopt(&entry, option);
        if (fits && (*fd = open(entry.mnt_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            failed = errno;
    }
    if (failed == 0 && ferror(mounts))
        failed = EIO; /* getmntent_r(3) says no more than that it is the end */
    endmntent(mounts);
    if (*fd < 0 && failed != 0)
        return error_errno(failed, "--cgroup: cannot look for the cgroup version %s hierarchy in /proc/self/mounts",
                           magic == CGROUP2_SUPER_MAGIC ? "2" : "1");
    if (*fd < 0)
        return error_new(ERROR_INPUT, "--cgroup: no cgroup %s hierarchy%s%s is mounted on this host",
                         magic == CGROUP2_SUPER_MAGIC ? "version 2" : "version 1", option[0] == '\0' ? "" : " for ",
                         option);
    return NULL;
}

static int version_of_host(void)
{
    struct statfs status;

    return statfs("/sys/fs/cgroup", &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC ? 2 : 1;
}

struct error *cgroup_create(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo)
{
    cgroup->count = 0;
    cgroup->limits_processes = false;
    cgroup->version = config->cgroup_version != 0 ? config->cgroup_version : version_of_host();
    return cgroup->version == 2 ? cgroup_v2_create(config, cgroup, undo) : cgroup_v1_create(config, cgroup, undo);
}

struct error *cgroup_join(const struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        struct error *error = cgroup_write(cgroup->groups[i], cgroup->version == 2 ? "cgroup.procs" : "tasks", "0");

        if (error != NULL)
            return error;
    }
    return NULL;
}

void cgroup_note_root(const struct cgroup *cgroup, int root)
{
    char link[32], path[PATH_MAX];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", root);
    ssize_t length = readlink(link, path, sizeof(path));
    for (size_t i = 0; length > 0 && i < cgroup->count; i++)
        fsetxattr(cgroup->groups[i], JAIL_CGROUP_ROOT, path, (size_t)length, 0);
}
