/* `mayfly gc`: what it removes, and what it must leave alone. */
#include "tests/jail/jail.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/clock.h"

enum { PATIENCE_US = 30000000, DEEP = 200, RACES = 60 };

/* Runs it on the test's base; returns its exit code. */
static int gc(const struct jail *jail, const char *option, char output[4096])
{
    const char *build = getenv("MAYFLY_BUILD");
    char program[256];
    int pipe_fds[2], status;
    size_t length = 0;

    snprintf(program, sizeof(program), "%s/release/mayfly", build != NULL ? build : "build");
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipe_fds[1], STDOUT_FILENO);
        dup2(pipe_fds[1], STDERR_FILENO);
        execl(program, "mayfly", "gc", "--base", jail->base, option, NULL);
        _exit(99);
    }
    close(pipe_fds[1]);
    for (ssize_t got; (got = read(pipe_fds[0], output + length, 4095 - length)) > 0;)
        length += (size_t)got;
    output[length] = '\0';
    close(pipe_fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_says(const char *output, const char *text)
{
    if (strstr(output, text) == NULL)
        fail_msg("no \"%s\" in: %s", text, output);
}

/* Nobody writes into it, and nobody closes it. */
static int silence[2];

static void read_silence(void)
{
    dup2(silence[0], STDIN_FILENO);
}

/* A jail whose program waits for its input to end; it has said so when this returns. */
static pid_t start_jail(struct jail *jail)
{
    const char *arguments[64];
    int out[2];
    char byte;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    if (silence[1] == 0)
        assert_int_equal(pipe2(silence, O_CLOEXEC), 0);
    jail->before_exec = read_silence;
    jail_arguments(jail, arguments, (const char *const[]){"--", "wait", NULL});
    pid_t pid = jail_start(jail, out[1], -1, arguments);
    close(out[1]);
    struct pollfd wait = {.fd = out[0], .events = POLLIN};
    assert_int_equal(poll(&wait, 1, PATIENCE_US / 1000), 1);
    assert_int_equal(read(out[0], &byte, 1), 1);
    close(out[0]);
    return pid;
}

static void end_jail(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_a_dead_jail_goes_and_a_live_one_stays(void **state)
{
    struct jail *jail = *state;
    char output[4096], path[256];
    pid_t pid = start_jail(jail);

    assert_int_equal(gc(jail, "--json", output), 0);
    assert_says(output, "\"removed\":[]");
    assert_says(output, "\"alive\":1");
    assert_int_equal(access(jail_root(jail, "run"), F_OK), 0);
    assert_int_equal(access(jail_cgroup(jail, "pids", ""), F_OK), 0);

    end_jail(pid);
    snprintf(path, sizeof(path), "%s/%s/%s", jail->base, jail->exec_name, jail->id);
    assert_int_equal(gc(jail, "--dry-run", output), 0);
    assert_says(output, "would remove ");
    assert_says(output, path);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(gc(jail, NULL, output), 0);
    assert_says(output, path);
    assert_nothing_left(jail);
    assert_int_equal(gc(jail, NULL, output), 0);
    assert_string_equal(output, "");
}

/* Its cgroups are gone, and its process id may be anybody's. */
static void test_what_a_restart_of_the_host_left_goes(void **state)
{
    struct jail *jail = *state;
    char output[4096];

    end_jail(start_jail(jail));
    rmdir(jail_cgroup(jail, "pids", ""));
    write_text(jail_pid_file(jail), "1");
    assert_int_equal(gc(jail, NULL, output), 0);
    assert_nothing_left(jail);
}

static void test_what_others_made_is_not_touched(void **state)
{
    struct jail *jail = *state;
    char output[4096];
    const char *kernel;

    /* A jail of another jailer's, whose process lives and holds no lock; and one that is being prepared. */
    assert_int_equal(mkdir(jail_path(jail, "base/%s", jail->exec_name), 0755), 0);
    assert_int_equal(mkdir(jail_path(jail, "base/%s/%s", jail->exec_name, jail->id), 0755), 0);
    assert_int_equal(mkdir(jail_root(jail, ""), 0755), 0);
    kernel = jail_root(jail, "kernel");
    write_text(kernel, "a kernel");
    assert_int_equal(gc(jail, "--json", output), 0);
    assert_says(output, "\"removed\":[]");
    assert_string_equal(read_text(kernel), "a kernel");
}

/* A VMM that was taken over owns its root: whatever it put there, nothing outside is reached, and all of it goes. */
static void test_what_a_taken_vmm_left_leads_nowhere(void **state)
{
    struct jail *jail = *state;
    char output[4096];
    int folder;

    assert_int_equal(mkdir(jail_path(jail, "outside"), 0755), 0);
    write_text(jail_path(jail, "outside/kept"), "kept");
    end_jail(start_jail(jail));
    folder = open(jail_root(jail, ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < DEEP; i++) {
        assert_int_equal(mkdirat(folder, "deep", 0755), 0);
        assert_int_equal(symlinkat(jail_path(jail, "outside"), folder, "link"), 0);
        int next = openat(folder, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_true(next >= 0);
        close(folder);
        folder = next;
    }
    close(folder);
    rmdir(jail_root(jail, "run"));
    assert_int_equal(symlink(jail_path(jail, "outside"), jail_root(jail, "run")), 0);
    int code = gc(jail, NULL, output);
    assert_string_equal(strstr(output, "cannot") != NULL ? output : "", "");
    assert_int_equal(code, 0);
    assert_nothing_left(jail);
    assert_string_equal(read_text(jail_path(jail, "outside/kept")), "kept");
}

static void test_what_is_mounted_in_a_dead_jail_is_kept_and_told(void **state)
{
    struct jail *jail = *state;
    char output[4096];

    assert_int_equal(mkdir(jail_path(jail, "disk"), 0755), 0);
    write_text(jail_path(jail, "disk/kept"), "kept");
    end_jail(start_jail(jail));
    assert_int_equal(mkdir(jail_root(jail, "disk"), 0755), 0);
    assert_int_equal(mount(jail_path(jail, "disk"), jail_root(jail, "disk"), NULL, MS_BIND, NULL), 0);
    int code = gc(jail, NULL, output);
    assert_int_equal(umount2(jail_root(jail, "disk"), MNT_DETACH), 0);
    assert_int_equal(code, 1);
    assert_says(output, "something is mounted on it");
    assert_string_equal(read_text(jail_path(jail, "disk/kept")), "kept");
    assert_int_equal(gc(jail, NULL, output), 0);
    assert_nothing_left(jail);
}

/* As those do who know Firecracker's jailer, which makes no cgroup that it was not told of. */
static void test_cgroup_of_a_jail_that_was_removed_by_hand_goes(void **state)
{
    struct jail *jail = *state;
    char output[4096], group[600], command[600];
    pid_t pid = start_jail(jail);

    snprintf(group, sizeof(group), "%s", jail_cgroup(jail, "pids", ""));
    if (access(group, F_OK) != 0) {
        end_jail(pid);
        print_message("skipped: no cgroup of version 1 with the controller pids\n");
        skip();
    }
    snprintf(command, sizeof(command), "rm -r %s", jail_path(jail, "base/%s", jail->exec_name));
    assert_int_equal(system(command), 0);
    assert_int_equal(gc(jail, NULL, output), 0);
    assert_int_equal(access(group, F_OK), 0); /* it lives */
    end_jail(pid);
    assert_int_equal(gc(jail, "--dry-run", output), 0);
    assert_says(output, "would remove /sys/fs/cgroup/pids/");
    assert_int_equal(access(group, F_OK), 0);
    assert_int_equal(gc(jail, NULL, output), 0);
    assert_says(output, "removed /sys/fs/cgroup/pids/");
    assert_int_equal(access(group, F_OK), -1);
    jail_remove(jail);
}

/* It runs without a pause while jails begin and end: no start fails, and the one that lives on is left alone. */
static void test_jails_begin_and_live_beside_it(void **state)
{
    struct jail *jail = *state;
    char output[4096];
    pid_t living = start_jail(jail);
    pid_t collector = fork();

    assert_true(collector >= 0);
    if (collector == 0)
        for (;;)
            if (gc(jail, NULL, output) != 0) {
                fprintf(stderr, "%s\n", output);
                _exit(1);
            }
    for (unsigned i = 0; i < RACES; i++) {
        struct outcome outcome;

        snprintf(jail->id, sizeof(jail->id), "short-%u", i);
        jail_run(jail, &outcome, "--", "17", "leave", NULL);
        assert_exited(&outcome, 17);
    }
    assert_int_equal(waitpid(collector, NULL, WNOHANG), 0);
    kill(collector, SIGKILL);
    waitpid(collector, NULL, 0);
    strcpy(jail->id, "jail");
    assert_int_equal(access(jail_root(jail, "run"), F_OK), 0);
    assert_int_equal(kill(living, 0), 0);
    end_jail(living);
    /* The collector's last child may still hold a lock. */
    for (uint64_t until = clock_monotonic_us() + PATIENCE_US;
         access(jail_path(jail, "base/%s", jail->exec_name), F_OK) == 0 && clock_monotonic_us() < until;)
        assert_int_equal(gc(jail, NULL, output), 0);
    assert_nothing_left(jail);
}

JAIL_MAIN(jail_test(test_a_dead_jail_goes_and_a_live_one_stays), jail_test(test_what_a_restart_of_the_host_left_goes),
          jail_test(test_what_others_made_is_not_touched), jail_test(test_what_a_taken_vmm_left_leads_nowhere),
          jail_test(test_what_is_mounted_in_a_dead_jail_is_kept_and_told),
          jail_test(test_cgroup_of_a_jail_that_was_removed_by_hand_goes),
          jail_test(test_jails_begin_and_live_beside_it))
