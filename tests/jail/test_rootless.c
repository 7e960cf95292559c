/* What is particular to an ordinary user's jail: ids, folders, limits, and that nothing of the host changes hands. */
#include "tests/jail/jail.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int stdin_of_jail;

static void take_stdin(void)
{
    dup2(stdin_of_jail, STDIN_FILENO);
}

static void test_folders_are_the_users(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--new-pid-ns", "--no-base-filter", "--", "report", NULL);
    assert_exited(&outcome, 0);
    assert_reported(&outcome, "pid 1 session ");
    assert_mode(jail_path(jail, "base/%s/jail", jail->exec_name), 0755, JAIL_UID, JAIL_GID);
    assert_mode(jail_root(jail, "."), 0700, JAIL_UID, JAIL_GID);
    assert_mode(jail_root(jail, "run"), 0700, JAIL_UID, JAIL_GID);
    assert_mode(jail_pid_file(jail), 0644, JAIL_UID, JAIL_GID);
    cleanup_fd int file = open(jail_pid_file(jail), O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), 0);
}

static void test_vmm_is_the_user_with_fewer_rights(void **state)
{
    struct outcome outcome;
    char line[96];

    jail_run(*state, &outcome, "--no-base-filter", "--", "report", NULL);
    assert_exited(&outcome, 0);
    /* The group that opens /dev/kvm: it cannot be dropped. */
    snprintf(line, sizeof(line), "uid %d %d gid %d %d groups 1\n", JAIL_UID, JAIL_UID, JAIL_GID, JAIL_GID);
    assert_reported(&outcome, "%s", line);
    assert_reported(&outcome, "umask 0077\n");
    assert_null(strstr(outcome.out, "environment"));
    snprintf(line, sizeof(line), "limit %d 0 0\n", RLIMIT_CORE);
    assert_reported(&outcome, "%s", line);
}

/* This host has delegated nothing to the test's user. */
static void test_without_a_delegated_cgroup_a_note_says_what_is_lost(void **state)
{
    struct outcome outcome;
    char line[96];

    jail_run(*state, &outcome, "--cgroup", "memory.max=1000000", "--cgroup", "pids.max=20", "--no-base-filter", "--",
             "report", NULL);
    assert_exited(&outcome, 0);
    assert_string_equal(outcome.errors,
                        "mayfly-jailer: note: no cgroup: none is delegated to the user that this process is in "
                        "(`systemd-run --user --scope` gives one); without effect: memory.max=1000000, pids.max=20\n");
    /* Counted in the user namespace, which is the jail's alone. */
    snprintf(line, sizeof(line), "limit %d 512 512\n", RLIMIT_NPROC);
    assert_reported(&outcome, "%s", line);
}

static void become_poor(void)
{
    struct rlimit limit = {.rlim_cur = 100, .rlim_max = 100};

    setrlimit(RLIMIT_NOFILE, &limit);
}

static void test_a_user_with_few_files_gets_those(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char line[96];

    jail->before_exec = become_poor;
    jail_run(jail, &outcome, "--no-base-filter", "--", "report", NULL);
    assert_exited(&outcome, 0);
    snprintf(line, sizeof(line), "limit %d 100 100\n", RLIMIT_NOFILE);
    assert_reported(&outcome, "%s", line);
}

static void test_jails_are_below_the_users_runtime_folder(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char uid[16], gid[16];
    const char *const arguments[] = {"mayfly-jailer", "--id", "jail", "--exec-file", jail->exec, "--uid", uid,
                                     "--gid",         gid,    "--",   "0",           "leave",    NULL};

    snprintf(uid, sizeof(uid), "%d", JAIL_UID);
    snprintf(gid, sizeof(gid), "%d", JAIL_GID);
    setenv("XDG_RUNTIME_DIR", jail->base, 1);
    jail_run_arguments(jail, &outcome, arguments);
    assert_exited(&outcome, 0);
    assert_mode(jail_path(jail, "base/mayfly"), 0700, JAIL_UID, JAIL_GID);
    assert_mode(jail_path(jail, "base/mayfly/%s/jail/root", jail->exec_name), 0700, JAIL_UID, JAIL_GID);

    /* A failed start takes nothing back that was there. */
    jail_run_arguments(jail, &outcome, arguments);
    unsetenv("XDG_RUNTIME_DIR");
    assert_exited(&outcome, 1);
    assert_mode(jail_path(jail, "base/mayfly/%s/jail/root", jail->exec_name), 0700, JAIL_UID, JAIL_GID);
}

static void test_a_users_daemon_tells_its_failure_and_leaves_when_it_runs(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--daemonize", "--new-pid-ns", "--resource-limit", "no-file=9223372036854775807", NULL);
    assert_exited(&outcome, 1);
    assert_non_null(strstr(outcome.errors, "--resource-limit: cannot set no-file=9223372036854775807: "));
    assert_nothing_left(jail);

    jail_run(jail, &outcome, "--daemonize", "--", "wait", NULL);
    assert_exited(&outcome, 0);
    jail_await_end(jail);
}

static void test_vmm_runs_as_a_subordinate_id_of_the_user(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char line[96];

    give_subordinate_ids(jail);
    jail_run(jail, &outcome, "--new-pid-ns", "--no-base-filter", "--", "report", NULL);
    assert_exited(&outcome, 0);
    snprintf(line, sizeof(line), "uid %d %d gid %d %d groups ", jail->uid, jail->uid, jail->gid, jail->gid);
    assert_reported(&outcome, "%s", line);
    assert_mode(jail_path(jail, "base/%s/jail", jail->exec_name), 0755, JAIL_UID, JAIL_GID);
    assert_mode(jail_root(jail, "run"), 0700, jail->uid, jail->gid);
    jail_remove(jail);
    jail_run(jail, &outcome, "--", "kvm", NULL);
    assert_exited(&outcome, 0);
    jail_remove(jail);

    /* Out of the range: refused, and nothing stays behind. */
    jail->uid = JAIL_SUBORDINATE + 65536;
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--uid: %d is neither your own id (%d) nor a subordinate one (see /etc/subuid)",
                   JAIL_SUBORDINATE + 65536, JAIL_UID);
    assert_nothing_left(jail);
    jail->uid = JAIL_UID;
    jail->gid = JAIL_SUBORDINATE - 1;
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--gid: %d is neither your own id (%d) nor a subordinate one (see /etc/subgid)",
                   JAIL_SUBORDINATE - 1, JAIL_GID);
    assert_nothing_left(jail);
}

static void start_gc(struct jail *jail, struct outcome *outcome)
{
    struct jail with_gc = *jail;
    const char *const arguments[] = {"mayfly", "gc", "--base", jail->base, NULL};

    snprintf(with_gc.jailer, sizeof(with_gc.jailer), "%s", jail_path(jail, "mayfly"));
    copy_file(jail_program("../../mayfly"), with_gc.jailer, 0755);
    jail_run_arguments(&with_gc, outcome, arguments);
}

static void test_gc_of_a_user_removes_what_a_subordinate_id_left_when_it_is_dead(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    const char *arguments[64];
    int in[2], out[2];
    char line[16];

    give_subordinate_ids(jail);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    stdin_of_jail = in[0];
    jail->before_exec = take_stdin;
    jail_arguments(jail, arguments, (const char *const[]){"--no-base-filter", "--", "wait", NULL});
    pid_t pid = jail_start(jail, out[1], -1, arguments);
    close(in[0]);
    close(out[1]);
    jail->before_exec = NULL;
    assert_int_equal(read(out[0], line, sizeof(line)), 6); /* "ready" */

    start_gc(jail, &outcome);
    assert_exited(&outcome, 0);
    assert_string_equal(outcome.errors, "");
    assert_mode(jail_root(jail, "."), 0700, jail->uid, jail->gid);

    close(in[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(out[0]);
    start_gc(jail, &outcome);
    assert_exited(&outcome, 0);
    assert_nothing_left(jail);
}

/* Two at a time with one id: one is refused, the other is untouched. And many with different ones. */
static void test_100_jails_of_a_user_start_side_by_side(void **state)
{
    enum { JAILS = 100, AT_A_TIME = 8 };
    struct jail *jail = *state;
    unsigned running = 0, failed = 0;
    int status;

    for (int i = 0; i < JAILS; i++) {
        const char *arguments[64];
        cleanup_fd int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        snprintf(jail->id, sizeof(jail->id), "jail-%d", i);
        jail_arguments(jail, arguments,
                       i % 10 == 9 ? (const char *const[]){"--resource-limit", "no-file=9223372036854775807", NULL}
                                   : (const char *const[]){"--new-pid-ns", "--", "0", "leave", NULL});
        jail_start(jail, null, null, arguments);
        if (++running == AT_A_TIME) {
            assert_true(wait(&status) > 0);
            failed += status != 0;
            running--;
        }
    }
    while (wait(&status) > 0)
        failed += status != 0;
    assert_int_equal(failed, JAILS / 10);
    jail_remove(jail);
    assert_nothing_left(jail);
}

JAIL_MAIN(user_test(test_folders_are_the_users), user_test(test_vmm_is_the_user_with_fewer_rights),
          user_test(test_without_a_delegated_cgroup_a_note_says_what_is_lost),
          user_test(test_a_user_with_few_files_gets_those), user_test(test_jails_are_below_the_users_runtime_folder),
          user_test(test_a_users_daemon_tells_its_failure_and_leaves_when_it_runs),
          user_test(test_vmm_runs_as_a_subordinate_id_of_the_user),
          user_test(test_gc_of_a_user_removes_what_a_subordinate_id_left_when_it_is_dead),
          user_test(test_100_jails_of_a_user_start_side_by_side))
