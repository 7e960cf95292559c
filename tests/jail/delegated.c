#include "tests/jail/delegated.h"

#include "tests/jail/jail.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    char path[256];
    char from[256]; /* cgroup.procs of where this process was */
} delegated;

static void move_here(const char *procs)
{
    write_text(procs, "0");
}

bool delegated_make(void)
{
    static const char *const files[] = {"", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"};
    const char *mount = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
    char path[300], own[128] = "";

    const char *line = strstr(read_text("/proc/self/cgroup"), "0::/");
    snprintf(path, sizeof(path), "%s/cgroup.procs", mount);
    if (line == NULL || access(path, W_OK) != 0)
        return false;
    snprintf(own, sizeof(own), "%.*s", (int)strcspn(line + 4, "\n"), line + 4);
    snprintf(delegated.from, sizeof(delegated.from), "%s/%s/cgroup.procs", mount, own);
    snprintf(delegated.path, sizeof(delegated.path), "%s/mayfly-faults-%d", mount, getpid());
    assert_int_equal(mkdir(delegated.path, 0755), 0);
    for (size_t i = 0; i < array_length(files); i++) {
        snprintf(path, sizeof(path), "%s%s", delegated.path, files[i]);
        assert_int_equal(chown(path, JAIL_UID, JAIL_GID), 0);
    }
    snprintf(path, sizeof(path), "%s/cgroup.procs", delegated.path);
    move_here(path);
    return true;
}

void delegated_end(void)
{
    move_here(delegated.from);
    assert_int_equal(rmdir(delegated.path), 0);
    delegated.path[0] = '\0';
}

static int remove_group(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    if (kind == FTW_DP && walk->level > 0)
        assert_int_equal(rmdir(path), 0);
    return 0;
}

void delegated_empty(void)
{
    if (delegated.path[0] != '\0')
        nftw(delegated.path, remove_group, 8, FTW_DEPTH | FTW_PHYS);
}

static int find_group(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    if (kind == FTW_D && walk->level > 0)
        fail_msg("left behind: %s", path);
    return 0;
}

void assert_delegated_is_empty(void)
{
    if (delegated.path[0] != '\0')
        nftw(delegated.path, find_group, 8, FTW_PHYS);
}
