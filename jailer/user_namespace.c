#include "jailer/user_namespace.h"

#include "jailer/namespaces.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* How the mapping of one kind of ids ended. */
enum { MAPPED, REFUSED, NO_PROGRAM, FAILED };
enum { MAPS = 2, EXIT_NOT_EXECUTED = 126, EXIT_NOT_FOUND = 127 };

struct id_map {
    const char *option;
    const char *file;    /* below /proc/<pid> */
    const char *program; /* that may map what the kernel does not let us */
    unsigned own;
    unsigned wanted;
};

static struct error *write_proc(const char *process, const char *file, const char *text)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%s/%s", process, file);
    cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(errno, "cannot open %s", path);
    if (write(fd, text, strlen(text)) < 0)
        return error_errno(errno, "cannot write \"%s\" into %s", text, path);
    return NULL;
}

static struct error *map_own(const struct id_map *maps)
{
    char text[64];

    for (size_t i = 0; i < MAPS; i++) {
        /* Else the kernel does not let a group be mapped: leaving one may give rights. */
        struct error *error = i == 0 ? NULL : write_proc("self", "setgroups", "deny");

        snprintf(text, sizeof(text), "%u %u 1", maps[i].own, maps[i].own);
        if (error == NULL)
            error = write_proc("self", maps[i].file, text);
        if (error != NULL)
            return error;
    }
    return NULL;
}

/* The kernel's rule for the own id alone holds for its process itself; for more, somebody outside with rights does it.
 */
static int map_from_outside(const char *process, const struct id_map *map)
{
    char own[16], wanted[16], text[64];
    int status;

    snprintf(own, sizeof(own), "%u", map->own);
    snprintf(wanted, sizeof(wanted), "%u", map->wanted);
    if (geteuid() == 0) {
        int length = snprintf(text, sizeof(text), "%s %s 1\n", own, own);

        if (map->own != map->wanted)
            snprintf(text + length, sizeof(text) - (size_t)length, "%s %s 1\n", wanted, wanted);
        struct error *error = write_proc(process, map->file, text);
        status = error == NULL ? MAPPED : REFUSED;
        error_free(error);
        return status;
    }

    const char *const arguments[] = {map->program, process, own, own, "1", map->own == map->wanted ? NULL : wanted,
                                     wanted,       "1",     NULL};
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* our own message says more */

        if (null >= 0)
            dup2(null, STDERR_FILENO);
        execv(map->program, (char *const *)(uintptr_t)arguments);
        _exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTED);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
        WEXITSTATUS(status) == EXIT_NOT_EXECUTED)
        return FAILED;
    if (WEXITSTATUS(status) == EXIT_NOT_FOUND)
        return NO_PROGRAM;
    return WEXITSTATUS(status) == 0 ? MAPPED : REFUSED;
}

/* The process that stays outside: waits until the other has its namespace, maps, and tells by its exit code. */
static __attribute__((noreturn)) void help(int start, pid_t process, const struct id_map *maps)
{
    char name[16];
    char byte;

    snprintf(name, sizeof(name), "%d", process);
    ssize_t got = read(start, &byte, 1);
    if (got == 0)
        _exit(0); /* there is no namespace */
    for (size_t i = 0; i < MAPS; i++) {
        int code = got < 0 ? FAILED : map_from_outside(name, &maps[i]);

        if (code != MAPPED)
            _exit((int)i + MAPS * code);
    }
    _exit(0);
}

static struct error *wait_for_helper(pid_t helper, const struct id_map *maps)
{
    int status;

    if (waitpid(helper, &status, 0) != helper || !WIFEXITED(status))
        return error_new(ERROR_HOST, "the process that maps user ids died");
    if (WEXITSTATUS(status) == 0)
        return NULL;

    const struct id_map *map = &maps[WEXITSTATUS(status) % MAPS];
    if (WEXITSTATUS(status) / MAPS >= FAILED)
        return error_new(ERROR_HOST, "%s: cannot have %s map %u", map->option, map->program, map->wanted);
    if (WEXITSTATUS(status) / MAPS == NO_PROGRAM)
        return error_new(ERROR_INPUT, "%s: %u is not your own id (%u), and %s, which maps others, is not there",
                         map->option, map->wanted, map->own, map->program);
    return error_new(ERROR_INPUT, "%s: %u is neither your own id (%u) nor a subordinate one (see /etc/sub%.3s)",
                     map->option, map->wanted, map->own, map->option + 2);
}

static struct error *leave_users(void)
{
    if (unshare(CLONE_NEWUSER) == 0)
        return NULL;
    return error_new(ERROR_HOST,
                     "this process has neither CAP_SYS_ADMIN nor a user namespace (unshare: %s): there would be no "
                     "mount, pid, net, ipc, uts, cgroup and time namespaces; --allow-reduced accepts that",
                     strerror(errno));
}

struct error *user_namespace_enter(const struct jail_config *config)
{
    const struct id_map maps[MAPS] = {
        {"--uid", "uid_map", "/usr/bin/newuidmap", geteuid(), config->uid},
        {"--gid", "gid_map", "/usr/bin/newgidmap", getegid(), config->gid},
    };
    int start[2];

    if (maps[0].own == maps[0].wanted && maps[1].own == maps[1].wanted) {
        struct error *error = leave_users();

        return error != NULL ? error : map_own(maps);
    }

    if (pipe2(start, O_CLOEXEC) < 0)
        return error_errno(errno, "--uid: cannot make a pipe");
    pid_t process = getpid();
    pid_t helper = fork();
    if (helper < 0)
        return error_errno(errno, "--uid: cannot fork");
    if (helper == 0) {
        close(start[1]);
        help(start[0], process, maps);
    }
    struct error *error = leave_users();
    if (error == NULL && write(start[1], "", 1) != 1)
        error = error_errno(errno, "--uid: cannot start the mapping of user ids");
    /* Not before: a helper that failed already would make this write a SIGPIPE. */
    close(start[0]);
    close(start[1]);
    if (error == NULL)
        return wait_for_helper(helper, maps);
    waitpid(helper, NULL, 0);
    return error;
}

bool user_namespace_works(const struct jail_config *config)
{
    struct error *error = user_namespace_enter(config);

    if (error == NULL)
        error = namespaces_enter_mount();
    /* Some security modules leave the namespace, and take the rights in it. */
    if (error == NULL && mount("tmpfs", "/", "tmpfs", MS_NOSUID | MS_NODEV, "size=4k") < 0)
        error = error_errno(errno, "cannot mount");

    bool works = error == NULL;
    error_free(error);
    return works;
}
