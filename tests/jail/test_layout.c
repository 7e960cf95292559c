/* What the VMM and the caller find: arguments, environment, descriptors, folders, pid file, exit codes, cgroups. */
#include "tests/jail/jail.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/clock.h"

/* Descriptors and an environment that must not get in. */
static void pollute(void)
{
    setenv("SECRET", "in the environment", 1);
    umask(0);
    if (dup2(open("/etc/passwd", O_RDONLY), 77) != 77)
        _exit(124);
}

static void test_vmm_gets_its_arguments_and_nothing_else(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = pollute;
    jail_run(jail, &outcome, "--no-base-filter", "--", "--api-sock", "/run/x", "report", NULL);
    assert_exited(&outcome, 0);
    assert_reported(&outcome, "argument /%s\nargument --id\nargument jail\nargument --start-time-us\nargument ",
                    jail->exec_name);
    assert_reported(&outcome, "argument --start-time-cpu-us\nargument ");
    assert_reported(&outcome, "argument --parent-cpu-time-us\nargument 0\n"
                              "argument --api-sock\nargument /run/x\nargument report\n");
    assert_null(strstr(outcome.out, "environment"));
    assert_reported(&outcome, "uid %d %d gid %d %d groups 0\n", JAIL_UID, JAIL_UID, JAIL_GID, JAIL_GID);
    /* 3 is the pid file, for its lock. */
    const char *third = strstr(outcome.out, "descriptor 2\n");
    assert_non_null(third);
    third = strstr(third + 1, "descriptor");
    assert_non_null(third);
    assert_null(strstr(third + 1, "descriptor"));
    assert_reported(&outcome, "umask 0077\n");
    assert_reported(&outcome, "limit %d 2048 2048\n", RLIMIT_NOFILE);
    assert_reported(&outcome, "limit %d 0 0\n", RLIMIT_CORE);
}

static void test_folders_and_pid_file_are_where_firecracker_has_them(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--new-pid-ns", "--no-base-filter", "--", "report", NULL);
    assert_exited(&outcome, 0);
    assert_reported(&outcome, "pid 1 session ");
    assert_mode(jail_path(jail, "base/%s", jail->exec_name), 0755, 0, 0);
    assert_mode(jail_path(jail, "base/%s/jail", jail->exec_name), 0755, 0, 0);
    assert_mode(jail_root(jail, "."), 0700, JAIL_UID, JAIL_GID);
    assert_mode(jail_root(jail, "dev"), 0700, JAIL_UID, JAIL_GID);
    assert_mode(jail_root(jail, "run"), 0700, JAIL_UID, JAIL_GID);
    assert_mode(jail_pid_file(jail), 0644, 0, 0);

    /* Only digits, and whoever was it is dead: nobody holds the lock. */
    const char *pid = read_text(jail_pid_file(jail));
    assert_true(strlen(pid) > 0 && strspn(pid, "0123456789") == strlen(pid));
    cleanup_fd int file = open(jail_pid_file(jail), O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), 0);
}

static void test_exit_codes_are_passed_on(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--", "42", "leave", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 42);
    jail_run(jail, &outcome, "--new-pid-ns", "--", "43", "leave", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 43);
    jail_run(jail, &outcome, "--new-pid-ns", "--", "fork", NULL);
    assert_exited(&outcome, 128 + SIGSYS);
}

static void test_a_signal_to_the_jailer_ends_process_1_of_the_namespace(void **state)
{
    struct jail *jail = *state;
    const char *arguments[64];
    char ready[6];
    int in[2], out[2], status;

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    int ours = dup(STDIN_FILENO);
    dup2(in[0], STDIN_FILENO);
    jail_arguments(jail, arguments, (const char *const[]){"--new-pid-ns", "--", "wait", NULL});
    pid_t jailer = jail_start(jail, out[1], -1, arguments);
    assert_int_equal(read(out[0], ready, sizeof(ready)), sizeof(ready));
    assert_int_equal(kill(jailer, SIGTERM), 0);
    assert_int_equal(waitpid(jailer, &status, 0), jailer);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGTERM);
    jail_remove(jail);

    /* SIGKILL cannot be passed on: the kernel does it. The pipe ends when the VMM has. */
    jailer = jail_start(jail, out[1], -1, arguments);
    close(out[1]);
    assert_int_equal(read(out[0], ready, sizeof(ready)), sizeof(ready));
    assert_int_equal(kill(jailer, SIGKILL), 0);
    assert_int_equal(waitpid(jailer, &status, 0), jailer);
    struct pollfd wait = {.fd = out[0], .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 10000), 1);
    assert_int_equal(read(out[0], ready, sizeof(ready)), 0);
    dup2(ours, STDIN_FILENO);
    close(ours);
    close(out[0]);
    close(in[0]);
    close(in[1]);
}

static void test_a_daemon_leaves_its_caller_when_it_runs(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    /* stdin of the daemon is /dev/null: it ends at once. Nothing of it reaches our pipes. */
    jail_run(jail, &outcome, "--daemonize", "--", "wait", NULL);
    assert_exited(&outcome, 0);
    assert_string_equal(outcome.out, "");
    jail_await_end(jail);
}

static void test_a_daemon_that_fails_tells_its_caller(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--daemonize", "--new-pid-ns", "--resource-limit", "no-file=9223372036854775807", NULL);
    assert_refused(&outcome, "--resource-limit: cannot set no-file=9223372036854775807: Operation not permitted");
    assert_nothing_left(jail);
}

static void prepare_root(struct jail *jail)
{
    assert_int_equal(mkdir(jail_path(jail, "base/%s", jail->exec_name), 0755), 0);
    assert_int_equal(mkdir(jail_path(jail, "base/%s/jail", jail->exec_name), 0755), 0);
    assert_int_equal(mkdir(jail_root(jail, ""), 0755), 0);
}

static void test_what_the_caller_prepared_is_there(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    prepare_root(jail);
    assert_int_equal(mkdir(jail_root(jail, "run"), 0755), 0);
    assert_int_equal(mkdir(jail_root(jail, "etc"), 0755), 0);
    assert_int_equal(mount("tmpfs", jail_root(jail, "etc"), "tmpfs", 0, "mode=755"), 0);
    write_text(jail_root(jail, "etc/passwd"), "the caller's");
    jail_run(jail, &outcome, "--", "open", NULL);
    assert_int_equal(umount(jail_root(jail, "etc")), 0);
    assert_exited(&outcome, 0);
    assert_mode(jail_root(jail, "run"), 0700, JAIL_UID, JAIL_GID);
}

static void test_a_base_without_exec_and_devices_will_do(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    assert_int_equal(mount("tmpfs", jail->base, "tmpfs", MS_NOEXEC | MS_NODEV | MS_NOSUID, "mode=755"), 0);
    jail_run(jail, &outcome, "--", "kvm", NULL);
    assert_int_equal(umount2(jail->base, MNT_DETACH), 0);
    assert_exited(&outcome, 0);
}

static void test_cgroups_of_version_1_hold_the_vmm(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char path[256];

    jail_run(jail, &outcome, "--cgroup", "cpu.shares=77", "--cgroup", "cpuset.cpus=0", "--parent-cgroup",
             jail->exec_name, "--", "0", "leave", NULL);
    assert_exited(&outcome, 0);
    assert_string_equal(read_text(jail_cgroup(jail, "cpu", "cpu.shares")), "77\n");
    assert_string_equal(read_text(jail_cgroup(jail, "cpuset", "cpuset.cpus")), "0\n");
    assert_string_not_equal(read_text(jail_cgroup(jail, "cpuset", "cpuset.mems")), "\n");
    assert_string_equal(read_text(jail_cgroup(jail, "pids", "pids.max")), "512\n");
    snprintf(path, sizeof(path), "/sys/fs/cgroup/cpuset/%s/cpuset.cpus", jail->exec_name);
    assert_string_not_equal(read_text(path), "\n");
}

/* Links where the jailer would make or open things: refused, and what they point to stays as it was. */
static void test_links_in_the_base_are_refused(void **state)
{
    static const char *const places[] = {"base/%s", "base/%s/jail", "base/%s/jail/root", "base/%s/jail/root/dev",
                                         "base/%s/jail/root/run"};
    struct jail *jail = *state;

    assert_int_equal(mkdir(jail_path(jail, "victim"), 0755), 0);
    for (size_t i = 0; i < array_length(places); i++) {
        struct outcome outcome;
        struct stat status;
        char place[160];

        for (size_t j = 0; j < i && j < 3; j++) {
            snprintf(place, sizeof(place), places[j], jail->exec_name);
            mkdir(jail_path(jail, "%s", place), 0755);
        }
        snprintf(place, sizeof(place), places[i], jail->exec_name);
        assert_int_equal(symlink(jail_path(jail, "victim"), jail_path(jail, "%s", place)), 0);
        jail_run(jail, &outcome, NULL);
        assert_exited(&outcome, 1);
        assert_non_null(
            strstr(outcome.errors, i < 3 ? "(a symbolic link is refused)" : "is there and is not a folder"));
        assert_int_equal(stat(jail_path(jail, "victim"), &status), 0);
        assert_int_equal(status.st_uid, 0);
        assert_int_equal(status.st_mode & 0777, 0755);
        assert_int_equal(rmdir(jail_path(jail, "victim")), 0); /* still empty */
        assert_int_equal(mkdir(jail_path(jail, "victim"), 0755), 0);
        jail_remove(jail);
    }
}

static void test_folders_of_others_in_the_base_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    prepare_root(jail);
    assert_int_equal(chown(jail_path(jail, "base/%s", jail->exec_name), 4711, 4711), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: \"%s\" belongs to user 4711; expected 0", jail->exec_name);
    assert_int_equal(chown(jail_path(jail, "base/%s", jail->exec_name), 0, 0), 0);
    assert_int_equal(chmod(jail_path(jail, "base/%s/jail", jail->exec_name), 0777), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: \"jail\" is writable by everybody (mode 0777)");
}

/* As scripts prepare it: chown -R UID:GID <base>/firecracker/<id>. */
static void test_folder_given_to_the_jails_user_beforehand_changes_hands(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    const char *folder;
    char victim[128];

    snprintf(victim, sizeof(victim), "%s", jail_path(jail, "victim"));
    prepare_root(jail);
    folder = jail_path(jail, "base/%s/jail", jail->exec_name);
    assert_int_equal(chown(jail_root(jail, ""), JAIL_UID, JAIL_GID), 0);
    assert_int_equal(chown(folder, JAIL_UID, JAIL_GID), 0);
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    assert_exited(&outcome, 0);
    assert_mode(folder, 0755, 0, 0);
    assert_mode(jail_root(jail, ""), 0700, JAIL_UID, JAIL_GID);
    jail_remove(jail);

    /* That user's marker is a name for somebody else's file. */
    prepare_root(jail);
    write_text(victim, "untouched");
    folder = jail_path(jail, "base/%s/jail", jail->exec_name);
    assert_int_equal(link(victim, jail_path(jail, "base/%s/jail/jail", jail->exec_name)), 0);
    assert_int_equal(chown(folder, JAIL_UID, JAIL_GID), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: user %d, whose folder \"jail\" was, made a \"jail\" in it", JAIL_UID);
    assert_string_equal(read_text(victim), "untouched");
}

/* The jail's user owns the root folder beforehand and swaps /run and /dev for links as fast as it can. */
static void test_swapping_folders_for_links_is_a_lost_race(void **state)
{
    struct jail *jail = *state;
    unsigned won = 0;

    prepare_root(jail);
    assert_int_equal(chown(jail_root(jail, ""), JAIL_UID, JAIL_GID), 0);
    assert_int_equal(mkdir(jail_path(jail, "victim"), 0755), 0);
    char root[512], victim[512], pid_file[512];
    snprintf(root, sizeof(root), "%s", jail_root(jail, ""));
    snprintf(victim, sizeof(victim), "%s", jail_path(jail, "victim"));
    snprintf(pid_file, sizeof(pid_file), "%s", jail_pid_file(jail));
    pid_t attacker = fork();
    if (attacker == 0) {
        if (setgid(JAIL_GID) != 0 || setuid(JAIL_UID) != 0 || chdir(root) != 0)
            _exit(1);
        for (;;) {
            static const char *const names[] = {"run", "dev"};

            for (size_t i = 0; i < array_length(names); i++) {
                mkdir(names[i], 0755);
                rename(names[i], "away");
                if (symlink(victim, names[i]) == 0)
                    unlink(names[i]);
                rmdir("away");
            }
        }
    }
    for (int i = 0; i < 100; i++) {
        struct outcome outcome;
        struct stat status;

        jail_run(jail, &outcome, "--", "0", "leave", NULL);
        assert_true(WIFEXITED(outcome.status));
        won += WEXITSTATUS(outcome.status) == 0;
        unlink(pid_file);
        assert_int_equal(stat(victim, &status), 0);
        assert_int_equal(status.st_uid, 0);
        assert_int_equal(status.st_mode & 0777, 0755);
        assert_true(status.st_nlink == 2);
    }
    kill(attacker, SIGKILL);
    waitpid(attacker, NULL, 0);
    assert_int_equal(rmdir(victim), 0); /* nothing was made or mounted in it */
    print_message("# %u of 100 starts got through\n", won);
}

/* 200 jails, 8 at a time; a failing one among them takes shared folders back while others make theirs. */
static void test_200_jails_start_side_by_side(void **state)
{
    enum { JAILS = 200, AT_A_TIME = 8 };
    struct jail *jail = *state;
    unsigned running = 0, failed = 0;
    uint64_t start = clock_monotonic_us();
    int status;

    for (int i = 0; i < JAILS; i++) {
        const char *arguments[64];

        snprintf(jail->id, sizeof(jail->id), "jail-%d", i);
        jail_arguments(jail, arguments,
                       i % 10 == 9 ? (const char *const[]){"--cgroup", "cpu.nosuch=1", NULL}
                                   : (const char *const[]){"--new-pid-ns", "--", "0", "leave", NULL});
        cleanup_fd int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        jail_start(jail, null, i % 10 == 9 ? null : -1, arguments);
        if (++running == AT_A_TIME) {
            assert_true(wait(&status) > 0);
            failed += status != 0;
            running--;
        }
    }
    while (wait(&status) > 0)
        failed += status != 0;
    print_message("# %.0f jails a second\n", JAILS * 1e6 / (double)(clock_monotonic_us() - start));
    assert_int_equal(failed, JAILS / 10);
    jail_remove(jail);
    assert_nothing_left(jail);
}

JAIL_MAIN(jail_test(test_vmm_gets_its_arguments_and_nothing_else),
          jail_test(test_folders_and_pid_file_are_where_firecracker_has_them), jail_test(test_exit_codes_are_passed_on),
          jail_test(test_a_signal_to_the_jailer_ends_process_1_of_the_namespace),
          jail_test(test_a_daemon_leaves_its_caller_when_it_runs), jail_test(test_a_daemon_that_fails_tells_its_caller),
          jail_test(test_what_the_caller_prepared_is_there), jail_test(test_a_base_without_exec_and_devices_will_do),
          jail_test(test_cgroups_of_version_1_hold_the_vmm), jail_test(test_links_in_the_base_are_refused),
          jail_test(test_folders_of_others_in_the_base_are_refused),
          jail_test(test_folder_given_to_the_jails_user_beforehand_changes_hands),
          jail_test(test_swapping_folders_for_links_is_a_lost_race), jail_test(test_200_jails_start_side_by_side))
