/*
 * `mayfly run` end to end, on a guest that speaks the protocol of the guest's init without being Linux
 * (tests/guest/fake_init.c: its commands are listed there).
 */
#pragma once

#include "tests/machine/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/clock.h"

enum { ARGUMENTS_MAX = 32, OUTPUT_MAX = 16 << 20 };

/* How a run is started; NULL and 0 are the usual. */
struct how {
    const char *const *options; /* of `mayfly run` */
    const char *cmdline;        /* --boot-args */
    bool merged;                /* stdout and stderr are one pipe */
    bool stdin_closed;
    bool stdin_null;
};

struct run {
    pid_t pid;
    int in, out, err; /* our ends of its pipes */
    char *output;     /* what came from stdout */
    size_t output_length;
    char *errors;
    size_t errors_length;
    char directory[40]; /* its TMPDIR */
};

static struct run current;

static inline const char *build_path(const char *rest, char path[256])
{
    const char *build = getenv("MAYFLY_BUILD");

    snprintf(path, 256, "%s/%s", build != NULL ? build : "build", rest);
    return path;
}

static inline const char *vmm(void)
{
    static char path[256];
    const char *named = getenv("MAYFLY_VMM");

    return named != NULL ? named : build_path("release/mayfly-vmm", path);
}

static inline void child(const char *path, char **arguments, const struct how *how, const int in[2], const int out[2],
                         const int err[2])
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("TMPDIR", current.directory, 1);
    unsetenv("XDG_RUNTIME_DIR");
    if (how->stdin_closed)
        close(STDIN_FILENO);
    else
        dup2(how->stdin_null ? open("/dev/null", O_RDONLY | O_CLOEXEC) : in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(how->merged ? out[1] : err[1], STDERR_FILENO);
    execv(path, arguments);
    _exit(99);
}

/* The one beside the VMM: of the same variant. */
static inline const char *mayfly(void)
{
    static char path[256];

    snprintf(path, sizeof(path), "%.*s/mayfly", (int)(strrchr(vmm(), '/') - vmm()), vmm());
    return path;
}

/* A VMM that is linked dynamically (for the sanitizers) cannot run in an empty root. */
static inline bool jailed(void)
{
    char path[256];

    return strcmp(vmm(), build_path("release/mayfly-vmm", path)) == 0;
}

/* Starts `mayfly run OPTIONS -- COMMAND...`. */
static inline struct run *start(const struct how *how, const char *const *command)
{
    char *arguments[ARGUMENTS_MAX] = {(char *)"mayfly",   (char *)"run",
                                      (char *)"--vmm",    (char *)(uintptr_t)vmm(),
                                      (char *)"--kernel", (char *)(uintptr_t)guest_image("fake_init")};
    size_t count = 6;
    char jails[64];
    int in[2], out[2], err[2];

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        print_message("skipped: /dev/kvm cannot be opened: %s\n", strerror(errno));
        skip();
    }
    strcpy(current.directory, "/tmp/mayfly-test-XXXXXX");
    assert_non_null(mkdtemp(current.directory));
    snprintf(jails, sizeof(jails), "%s/jails", current.directory);
    arguments[count++] = (char *)(uintptr_t)(jailed() ? "--jail-dir" : "--no-jail");
    if (jailed())
        arguments[count++] = jails;
    if (how->cmdline != NULL) {
        arguments[count++] = (char *)"--boot-args";
        arguments[count++] = (char *)(uintptr_t)how->cmdline;
    }
    for (size_t i = 0; how->options != NULL && how->options[i] != NULL; i++)
        arguments[count++] = (char *)(uintptr_t)how->options[i];
    arguments[count++] = (char *)"--";
    for (size_t i = 0; command[i] != NULL; i++)
        arguments[count++] = (char *)(uintptr_t)command[i];
    assert_true(count < ARGUMENTS_MAX);
    assert_true(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0);
    current.pid = fork();
    if (current.pid == 0)
        child(mayfly(), arguments, how, in, out, err);
    assert_true(current.pid > 0);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    current.in = in[1];
    current.out = out[0];
    current.err = err[0];
    return &current;
}

static inline void take(int *fd, char **text, size_t *length)
{
    char bytes[65536];
    ssize_t got = read(*fd, bytes, sizeof(bytes));

    if (got <= 0) {
        fd_close(fd);
        return;
    }
    assert_true(*length + (size_t)got < OUTPUT_MAX);
    *text = realloc(*text, *length + (size_t)got + 1);
    memcpy(*text + *length, bytes, (size_t)got);
    *length += (size_t)got;
    (*text)[*length] = '\0';
}

static inline void fail_run(const char *why)
{
    print_error("--- stdout: %.2000s\n--- stderr: %.4000s\n", current.output != NULL ? current.output : "",
                current.errors != NULL ? current.errors : "");
    fail_msg("%s", why);
}

/* Reads both outputs until stdout contains `text`, or, with NULL, until both have ended. */
static inline void await(struct run *run, const char *text)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;

    while (text != NULL ? run->output == NULL || strstr(run->output, text) == NULL : run->out >= 0 || run->err >= 0) {
        struct pollfd wait[] = {{.fd = run->out, .events = POLLIN}, {.fd = run->err, .events = POLLIN}};
        uint64_t now = clock_monotonic_us();

        if (now > until || (run->out < 0 && run->err < 0))
            fail_run(text != NULL ? text : "it does not end");
        poll(wait, 2, (int)((until - now) / 1000 + 1));
        if (wait[0].revents != 0)
            take(&run->out, &run->output, &run->output_length);
        if (wait[1].revents != 0)
            take(&run->err, &run->errors, &run->errors_length);
    }
}

/* Reads stderr until it contains `text`. */
static inline void await_error(struct run *run, const char *text)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;

    while (run->errors == NULL || strstr(run->errors, text) == NULL) {
        struct pollfd wait = {.fd = run->err, .events = POLLIN};
        uint64_t now = clock_monotonic_us();

        if (now > until || run->err < 0)
            fail_run(text);
        if (poll(&wait, 1, (int)((until - now) / 1000 + 1)) > 0)
            take(&run->err, &run->errors, &run->errors_length);
    }
}

/* Of the jail only the folder that all jails are in may be left. */
static inline bool something_left(const struct run *run)
{
    bool left = false;
    char path[80];
    DIR *directory;
    struct dirent *entry;

    snprintf(path, sizeof(path), "%s/jails/mayfly-vmm", run->directory);
    rmdir(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
    directory = opendir(run->directory);
    while ((entry = readdir(directory)) != NULL)
        left = left || entry->d_name[0] != '.';
    closedir(directory);
    snprintf(path, sizeof(path), "/sys/fs/cgroup/pids/mayfly-vmm/run-%d", run->pid);
    left = left || access(path, F_OK) == 0;
    snprintf(path, sizeof(path), "/sys/fs/cgroup/memory/mayfly-vmm/run-%d", run->pid);
    return left || access(path, F_OK) == 0;
}

/* Waits for the end; the code must be `code`, and its private directory gone. */
static inline void expect_code(struct run *run, int code)
{
    int status;

    await(run, NULL);
    assert_int_equal(waitpid(run->pid, &status, 0), run->pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
        char why[64];

        snprintf(why, sizeof(why), "ended with status 0x%x, expected exit code %d", status, code);
        fail_run(why);
    }
    if (something_left(run))
        fail_run("it left something behind");
    run->pid = 0;
}

static inline const char *output_of(const struct run *run)
{
    return run->output != NULL ? run->output : "";
}

static inline const char *errors_of(const struct run *run)
{
    return run->errors != NULL ? run->errors : "";
}

static inline int teardown(void **state)
{
    if (current.pid > 0) {
        kill(current.pid, SIGKILL);
        waitpid(current.pid, NULL, 0);
    }
    fd_close(&current.in);
    fd_close(&current.out);
    fd_close(&current.err);
    free(current.output);
    free(current.errors);
    if (current.directory[0] != '\0')
        rmdir(current.directory);
    current = (struct run){.in = -1, .out = -1, .err = -1};
    return machine_teardown(state);
}

#define COMMAND(...) ((const char *const[]){__VA_ARGS__, NULL})
#define cli_test(function) cmocka_unit_test_teardown(function, teardown)

static const struct how usual = {.stdin_null = true};
