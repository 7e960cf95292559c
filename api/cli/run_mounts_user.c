#include "api/cli/run_mounts_user.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

enum { MAPS = 2, FILE_MAX = 1 << 20, NO_PROGRAM = 127 };

/* The kernel lets a user map its own id alone; these, which are set-uid root, map what the files give to it. */
static const struct {
    const char *file;
    const char *program;
} maps[MAPS] = {{"/etc/subuid", "/usr/bin/newuidmap"}, {"/etc/subgid", "/usr/bin/newgidmap"}};

bool mounts_user_range(const char *text, const char *name, unsigned uid, struct mounts_user_range *range)
{
    char number[16];

    snprintf(number, sizeof(number), "%u", uid);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t length = strcspn(line, ":\n");
        bool ours = (length == strlen(number) && strncmp(line, number, length) == 0) ||
                    (name != NULL && length > 0 && length == strlen(name) && strncmp(line, name, length) == 0);

        if (ours && sscanf(line + length, ":%llu:%llu", &range->first, &range->count) == 2 && range->count > 0)
            return true;
    }
    return false;
}

/* All of a small file, or NULL. */
static char *read_file(const char *path)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : calloc(1, FILE_MAX + 1);
    size_t length = 0;
    ssize_t got = 0;

    while (text != NULL && length < FILE_MAX && (got = read(fd, text + length, FILE_MAX - length)) > 0)
        length += (size_t)got;
    return text;
}

struct error *mounts_user_find(struct mounts_user *user)
{
    const struct passwd *entry = getpwuid(geteuid());
    const char *name = entry != NULL ? entry->pw_name : NULL;

    *user = (struct mounts_user){.own = {geteuid(), getegid()}};
    for (size_t i = 0; i < MAPS; i++) {
        cleanup_free char *text = read_file(maps[i].file);

        if (text == NULL || !mounts_user_range(text, name, geteuid(), &user->range[i]))
            return error_new(ERROR_INPUT,
                             "--mount: virtiofsd acts for all the users of a guest, and %s gives this user (%u) no "
                             "subordinate ids to do so; as root: usermod --add-subuids 100000-165535 --add-subgids "
                             "100000-165535 %s",
                             maps[i].file, geteuid(), name != NULL ? name : "USER");
        if (access(maps[i].program, X_OK) != 0)
            return error_new(ERROR_INPUT,
                             "--mount: %s is not there, which gives virtiofsd this user's subordinate ids; Debian has "
                             "it in the package uidmap",
                             maps[i].program);
    }
    return NULL;
}

static int map(const struct mounts_user *user, size_t which, pid_t process)
{
    char pid[16], own[16], first[24], count[24];
    const char *const arguments[] = {maps[which].program, pid, "0", own, "1", "1", first, count, NULL};
    int status;

    snprintf(pid, sizeof(pid), "%d", process);
    snprintf(own, sizeof(own), "%u", user->own[which]);
    snprintf(first, sizeof(first), "%llu", user->range[which].first);
    snprintf(count, sizeof(count), "%llu", user->range[which].count);
    pid_t child = fork();
    if (child == 0) {
        execv(maps[which].program, (char *const *)(uintptr_t)arguments);
        _exit(NO_PROGRAM);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return NO_PROGRAM;
    return status;
}

const char *mounts_user_enter(const struct mounts_user *user)
{
    pid_t process = getpid();
    char byte = 0;
    int start[2], status;

    if (pipe2(start, O_CLOEXEC) != 0)
        return "cannot make a pipe";
    /* Somebody who stays outside maps for us. */
    pid_t helper = fork();
    if (helper == 0) {
        close(start[1]);
        if (read(start[0], &byte, 1) != 1)
            _exit(0);
        _exit(map(user, 0, process) == 0 && map(user, 1, process) == 0 ? 0 : 1);
    }
    close(start[0]);
    if (helper < 0)
        return "cannot fork";
    if (unshare(CLONE_NEWUSER) != 0)
        return "cannot make a user namespace";
    if (write(start[1], &byte, 1) != 1)
        return "cannot have user ids mapped";
    close(start[1]);
    if (waitpid(helper, &status, 0) != helper || status != 0) {
        errno = 0;
        return "cannot map the user's subordinate ids";
    }
    return NULL;
}
