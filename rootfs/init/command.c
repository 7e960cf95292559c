#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PATH_DEFAULT "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* What the child could not do, and why; written by the child, which shares init's memory. */
struct outcome {
    enum {
        STEP_DONE,
        STEP_DIRECTORY,
        STEP_EXECUTE,
    } step;
    int code;
};

static const char *environment_find(char *const *environment, const char *name_and_equals)
{
    size_t length = strlen(name_and_equals);

    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, name_and_equals, length) == 0) {
            return *environment + length;
        }
    }
    return NULL;
}

/* `given` and the defaults that it lacks, to be freed; NULL without memory. */
static char **environment_complete(char *const *given)
{
    static const struct {
        const char *name;
        const char *value;
    } defaults[] = {
        {"PATH=", PATH_DEFAULT},
        {"HOME=", "HOME=/root"},
        {"TERM=", "TERM=linux"},
    };
    size_t count = 0;
    char **environment;

    while (given[count] != NULL) {
        count++;
    }
    environment = calloc(count + sizeof(defaults) / sizeof(defaults[0]) + 1, sizeof(*environment));
    if (environment == NULL) {
        return NULL;
    }
    memcpy(environment, given, count * sizeof(*environment));
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
        if (environment_find(given, defaults[i].name) == NULL) {
            environment[count++] = (char *)(uintptr_t)defaults[i].value;
        }
    }
    return environment;
}

/* execve; returns only on failure, with the errno. ENOENT of a file that exists means that its
 * interpreter or loader is missing: ELIBACC here. */
static int execute(const char *path, char *const *arguments, char *const *environment)
{
    int code;

    execve(path, arguments, environment);
    code = errno;
    return code == ENOENT && access(path, F_OK) == 0 ? ELIBACC : code;
}

/* Looks `name` up in `path` as a shell does. Returns only on failure, with the errno. */
static int execute_search(const char *name, const char *path, char *const *arguments, char *const *environment)
{
    char candidate[PATH_MAX];
    int result = ENOENT;

    if (strchr(name, '/') != NULL) {
        return execute(name, arguments, environment);
    }
    while (*name != '\0' && path != NULL) {
        size_t length = strcspn(path, ":");
        /* An empty entry is the working directory. */
        const char *separator = length > 0 ? "/" : "";

        if (length + strlen(name) + 2 <= sizeof(candidate)) {
            int code;

            memcpy(candidate, path, length);
            strcpy(candidate + length, separator);
            strcat(candidate, name);
            code = execute(candidate, arguments, environment);
            if (code == EACCES) {
                result = code;
            } else if (code != ENOENT && code != ENOTDIR) {
                return code;
            }
        }
        path = path[length] == ':' ? path + length + 1 : NULL;
    }
    return result;
}

/* The child's side. It runs on init's memory until execve: it changes `outcome` and nothing else. */
static void child_run(const struct command *command, char *const *environment, volatile struct outcome *outcome)
{
    sigset_t none;

    for (int i = 0; i < 3; i++) {
        /* init keeps its own 0 to 2 on /dev/null, so none of stdio is one of them. */
        dup2(command->stdio[i], i);
    }
    if (command->terminal) {
        /* To come to the foreground from the background is allowed to whoever ignores this signal. */
        signal(SIGTTOU, SIG_IGN);
        setpgid(0, 0);
        tcsetpgrp(STDIN_FILENO, getpid());
        signal(SIGTTOU, SIG_DFL);
    } else {
        setsid();
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    outcome->step = STEP_DIRECTORY;
    if (command->directory != NULL && command->directory[0] != '\0' && chdir(command->directory) != 0) {
        outcome->code = errno;
        return;
    }
    outcome->step = STEP_EXECUTE;
    outcome->code =
        execute_search(command->arguments[0], environment_find(environment, "PATH="), command->arguments, environment);
}

static int outcome_explain(const struct command *command, const struct outcome *outcome, struct failure *failure)
{
    const char *name = command->arguments[0];

    if (outcome->step == STEP_DIRECTORY) {
        return failure_set(failure, FAILURE_OTHER, "cannot enter the directory '%s': %s", command->directory,
                           strerror(outcome->code));
    }
    switch (outcome->code) {
    case ENOENT:
    case ENOTDIR:
        return failure_set(failure, FAILURE_NOT_FOUND, "'%s': %s", name,
                           strchr(name, '/') != NULL ? "no such file" : "command not found");
    case ELIBACC:
        return failure_set(failure, FAILURE_NOT_EXECUTABLE,
                           "'%s': cannot be executed, its interpreter or loader is not there", name);
    default:
        return failure_set(failure, FAILURE_NOT_EXECUTABLE, "'%s': cannot be executed: %s", name,
                           strerror(outcome->code));
    }
}

pid_t command_start(const struct command *command, struct failure *failure)
{
    char **environment = environment_complete(command->environment);
    volatile struct outcome outcome = {STEP_DONE, 0};
    struct outcome told;
    pid_t pid;

    if (environment == NULL) {
        return failure_set(failure, FAILURE_OTHER, "out of memory");
    }
    /* vfork: no page table is copied, and execve's failure is known when it returns here. */
    pid = vfork();
    if (pid == 0) {
        child_run(command, environment, &outcome);
        _exit(FAILURE_NOT_FOUND);
    }
    free(environment);
    if (pid < 0) {
        return failure_errno(failure, "cannot make a process");
    }
    if (outcome.code != 0) {
        told = (struct outcome){outcome.step, outcome.code};
        return outcome_explain(command, &told, failure);
    }
    return pid;
}
