/* Bad arguments and bad input: the exact error, and nothing left on the host. */
#include "tests/jail/jail.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The command line alone: these words and no others. */
static void refuses_line(struct jail *jail, const char *const *words, const char *message)
{
    const char *arguments[64] = {"mayfly-jailer"};
    struct outcome outcome;
    size_t count = 1;

    for (; *words != NULL; words++)
        arguments[count++] = *words;
    jail_run_arguments(jail, &outcome, arguments);
    assert_refused(&outcome, "%s", message);
    assert_nothing_left(jail);
}

static void test_command_lines_that_are_wrong_name_the_option(void **state)
{
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define REQUIRED "--id", "x", "--exec-file", "/x", "--uid", "1", "--gid", "1"
    const struct {
        const char *const *words;
        const char *message;
    } lines[] = {
        {WORDS("--exec-file", "/x"), "--id: is required; expected ID"},
        {WORDS("--id", "x"), "--exec-file: is required; expected PATH"},
        {WORDS("--id", "x", "--exec-file", "/x"), "--uid: is required; expected UID"},
        {WORDS("--id", "x", "--exec-file", "/x", "--uid", "1"), "--gid: is required; expected GID"},
        {WORDS("--id"), "--id: needs a value: ID"},
        {WORDS("--id", "--"), "--id: needs a value: ID"},
        {WORDS("--id", ""), "--id: \"\" is 0 characters long; expected 1 to 64"},
        {WORDS("--id", "a/b"), "--id: \"a/b\" has '/' at position 2; expected letters, digits and '-'"},
        {WORDS("--id", ".."), "--id: \"..\" has '.' at position 1; expected letters, digits and '-'"},
        {WORDS("--id", "a_b"), "--id: \"a_b\" has '_' at position 2; expected letters, digits and '-'"},
        {WORDS("--id", "0123456789012345678901234567890123456789012345678901234567890123x"),
         "--id: \"0123456789012345678901234567890123456789012345678901234567890123x\" is 65 characters long; expected "
         "1 "
         "to 64"},
        {WORDS("--id", "a", "--id", "b"), "--id: given twice"},
        {WORDS("--uid", "-1"), "--uid: \"-1\" is not a number from 0 to 4294967294"},
        {WORDS("--uid", "4294967295"), "--uid: \"4294967295\" is not a number from 0 to 4294967294"},
        {WORDS("--gid", "99999999999999999999"),
         "--gid: \"99999999999999999999\" is not a number from 0 to 4294967294"},
        {WORDS("--gid", "root"), "--gid: \"root\" is not a number from 0 to 4294967294"},
        {WORDS("--exec-file", "/usr/bin/"), "--exec-file: \"/usr/bin/\" does not name a file"},
        {WORDS("--exec-file", "/usr/.."), "--exec-file: \"/usr/..\" does not name a file"},
        {WORDS("--cgroup-version", "3"), "--cgroup-version: \"3\" is not a cgroup version; expected 1 or 2"},
        {WORDS("--cgroup", "cpu.shares"), "--cgroup: \"cpu.shares\" is not <file>=<value>, like cpu.shares=10"},
        {WORDS("--cgroup", "=1"), "--cgroup: \"=1\" is not <file>=<value>, like cpu.shares=10"},
        {WORDS("--cgroup", "cpu.shares="), "--cgroup: \"cpu.shares=\" is not <file>=<value>, like cpu.shares=10"},
        {WORDS("--cgroup", "tasks=1"), "--cgroup: \"tasks=1\" does not name a file of a controller, like cpu.shares"},
        {WORDS("--cgroup", "../cpu.shares=1"),
         "--cgroup: \"../cpu.shares=1\" does not name a file of a controller, like cpu.shares"},
        {WORDS("--cgroup", "cpu/../../cpu.shares=1"),
         "--cgroup: \"cpu/../../cpu.shares=1\" does not name a file of a controller, like cpu.shares"},
        {WORDS("--parent-cgroup", "/a"), "--parent-cgroup: \"/a\" is not a path relative to the cgroup mount"},
        {WORDS("--parent-cgroup", ""), "--parent-cgroup: \"\" is not a path relative to the cgroup mount"},
        {WORDS("--parent-cgroup", "a/../b"), "--parent-cgroup: \"a/../b\" must not have \"..\" in it"},
        {WORDS("--chroot-base-dir", ""), "--chroot-base-dir: is empty; expected a directory"},
        {WORDS("--netns", ""), "--netns: is empty; expected the path of a network namespace"},
        {WORDS("--resource-limit", "nofile=1"),
         "--resource-limit: \"nofile=1\" is not a known limit; expected fsize=<bytes> or no-file=<count>"},
        {WORDS("--resource-limit", "fsize=big"),
         "--resource-limit: \"big\" is not a number from 0 to 9223372036854775807"},
        {WORDS("--resource-limit", "no-file="), "--resource-limit: \"\" is not a number from 0 to 9223372036854775807"},
        {WORDS("--memory-limit", "0"), "--memory-limit: is 0; expected a number of bytes"},
        {WORDS("--memory-limit", "1G"), "--memory-limit: \"1G\" is not a number from 0 to 9223372036854775807"},
        {WORDS("--daemonize=yes"), "--daemonize: takes no value, was given \"yes\""},
        {WORDS("--node", "0"), "\"--node\" is not an option; see --help"},
        {WORDS("vm"), "\"vm\" is not an option; see --help"},
        {WORDS(REQUIRED, "--netns", "/x", "--new-net-ns"), "--new-net-ns: cannot be given together with --netns"},
    };

    for (size_t i = 0; i < array_length(lines); i++)
        refuses_line(*state, lines[i].words, lines[i].message);
}

static void test_exec_files_that_cannot_run_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    strcpy(jail->exec, jail_path(jail, "missing"));
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: cannot open \"%s\": No such file or directory", jail->exec);

    strcpy(jail->exec, jail_path(jail, "plain"));
    copy_file(jail_program("probe"), jail->exec, 0644);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: \"%s\" is not executable (mode 0644)", jail->exec);

    strcpy(jail->exec, jail->base);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: \"%s\" is not a regular file", jail->exec);

    strcpy(jail->exec, jail_path(jail, "fifo"));
    assert_int_equal(mkfifo(jail->exec, 0700), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: \"%s\" is not a regular file", jail->exec);

    strcpy(jail->exec, jail_path(jail, "link"));
    assert_int_equal(symlink("nowhere", jail->exec), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: cannot open \"%s\": No such file or directory", jail->exec);

    strcpy(jail->exec, jail_path(jail, "script"));
    write_text(jail->exec, "#!/bin/sh\nexec sh\n");
    assert_int_equal(chmod(jail->exec, 0755), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: \"%s\" is not a 64-bit ELF program", jail->exec);

    strcpy(jail->exec, jail_path(jail, "short"));
    copy_file(jail_program("probe"), jail->exec, 0755);
    assert_int_equal(truncate(jail->exec, 80), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: \"%s\" ends within its program headers", jail->exec);

    strcpy(jail->exec, "/proc/self/exe"); /* of the test, which is dynamic; and a link */
    char real[256] = {0};
    assert_true(readlink(jail->exec, real, sizeof(real) - 1) > 0);
    strcpy(jail->exec, real);
    jail_run(jail, &outcome, NULL);
    assert_refused(
        &outcome, "--exec-file: \"%s\" is dynamically linked and cannot run in an empty root; expected a static binary",
        jail->exec);
    assert_nothing_left(jail);
}

/* A copy of the probe, "file", and a link of the usual name to it in a folder of its own. */
static void make_link(struct jail *jail, uid_t link_owner, uid_t folder_owner, mode_t folder_mode)
{
    const char *folder = jail_path(jail, "folder");

    unlink(jail->exec);
    snprintf(jail->exec, sizeof(jail->exec), "%s/%s", folder, jail->exec_name);
    unlink(jail->exec);
    mkdir(folder, 0755);
    copy_file(jail_program("probe"), jail_path(jail, "file"), 0755);
    assert_int_equal(symlink("../file", jail->exec), 0);
    assert_int_equal(lchown(jail->exec, link_owner, 0), 0);
    assert_int_equal(chown(folder, folder_owner, 0), 0);
    assert_int_equal(chmod(folder, folder_mode), 0);
}

static void test_links_to_the_exec_file_that_others_could_change_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    make_link(jail, 4711, 0, 0755);
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    assert_refused(&outcome,
                   "--exec-file: the symbolic link \"%s\" belongs to user 4711; expected root, user 0 or the file's "
                   "owner, 0",
                   jail->exec);
    make_link(jail, 0, 4711, 0755);
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    assert_refused(&outcome,
                   "--exec-file: others may replace the symbolic link \"%s\": its folder belongs to user 4711, mode "
                   "0755",
                   jail->exec);
    make_link(jail, 0, 0, 0777);
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    assert_refused(&outcome,
                   "--exec-file: others may replace the symbolic link \"%s\": its folder belongs to user 0, mode 0777",
                   jail->exec);
    /* The second of two. */
    char second[400], target[128];
    snprintf(target, sizeof(target), "folder/%s", jail->exec_name);
    snprintf(second, sizeof(second), "%s/%s", jail->directory, target);
    assert_int_equal(symlink(target, jail_path(jail, "first")), 0);
    strcpy(jail->exec, jail_path(jail, "first"));
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    assert_refused(&outcome,
                   "--exec-file: others may replace the symbolic link \"%s\": its folder belongs to user 0, mode 0777",
                   second);
    assert_nothing_left(jail);
}

static void test_links_to_the_exec_file_that_only_its_owner_could_change_are_followed(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    make_link(jail, 0, 0, 01777);
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 0);
    make_link(jail, 4711, 4711, 0755);
    assert_int_equal(chown(jail_path(jail, "file"), 4711, 4711), 0);
    jail_run(jail, &outcome, "--", "0", "leave", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 0);
}

/* Another user's link leads to that user's program and to one of root's, which ends otherwise, by turns. */
static void test_swapping_the_link_to_the_exec_file_is_a_lost_race(void **state)
{
    struct jail *jail = *state;
    unsigned won = 0;

    copy_file(jail_program("../../mayfly-vmm"), jail_path(jail, "roots"), 0755);
    make_link(jail, 4711, 4711, 0755);
    assert_int_equal(chown(jail_path(jail, "file"), 4711, 4711), 0);
    pid_t attacker = fork();
    if (attacker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (chdir(jail_path(jail, "folder")) != 0 || setuid(4711) != 0)
            _exit(1);
        while (symlink("../roots", "other") == 0 && rename("other", jail->exec_name) == 0 &&
               symlink("../file", "other") == 0 && rename("other", jail->exec_name) == 0)
            ;
        _exit(1);
    }
    for (int i = 0; i < 100; i++) {
        struct outcome outcome;

        jail_run(jail, &outcome, "--", "0", "leave", NULL);
        jail_remove(jail);
        if (outcome.status == 0)
            won++;
        else
            assert_non_null(strstr(outcome.errors, "mayfly-jailer: --exec-file: "));
    }
    assert_int_equal(waitpid(attacker, NULL, WNOHANG), 0);
    kill(attacker, SIGKILL);
    waitpid(attacker, NULL, 0);
    print_message("# %u of 100 starts ran the user's own\n", won);
}

static void test_an_exec_file_that_everybody_may_write_is_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    assert_int_equal(chmod(jail->exec, 0757), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--exec-file: \"%s\" is writable by everybody (mode 0757)", jail->exec);
    assert_nothing_left(jail);
}

static void test_bases_that_are_not_safe_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    strcpy(jail->base, jail_path(jail, "missing"));
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: cannot open \"%s\": No such file or directory", jail->base);

    strcpy(jail->base, jail->exec);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: cannot open \"%s\": Not a directory", jail->base);

    strcpy(jail->base, jail_path(jail, "base"));
    assert_int_equal(chmod(jail->base, 01777), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: \"%s\" is writable by everybody (mode 1777)", jail->base);

    assert_int_equal(chmod(jail->base, 0755), 0);
    assert_int_equal(chown(jail->base, 4711, 4711), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: \"%s\" belongs to user 4711; expected 0", jail->base);
    assert_int_equal(chown(jail->base, 0, 0), 0);
    assert_nothing_left(jail);
}

static void test_base_on_a_read_only_file_system_is_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    assert_int_equal(mount("tmpfs", jail->base, "tmpfs", MS_RDONLY, "mode=755"), 0);
    jail_run(jail, &outcome, NULL);
    assert_int_equal(umount(jail->base), 0);
    assert_refused(&outcome, "--chroot-base-dir: cannot make the folder \"%s\": Read-only file system",
                   jail->exec_name);
}

static void test_cgroup_settings_that_the_host_refuses_are_named(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--cgroup", "nosuch.thing=1", NULL);
    assert_refused(&outcome, "--cgroup: no cgroup version 1 hierarchy for nosuch is mounted on this host");
    assert_nothing_left(jail);

    jail_run(jail, &outcome, "--cgroup", "cpu.nosuch=1", NULL);
    assert_refused(&outcome, "--cgroup: this host's controller has no file \"cpu.nosuch\"");
    assert_nothing_left(jail);

    jail_run(jail, &outcome, "--cgroup", "cpu.shares=many", NULL);
    assert_refused(&outcome, "--cgroup: the kernel refuses \"many\" for \"cpu.shares\": Invalid argument");
    assert_nothing_left(jail);

    jail_run(jail, &outcome, "--cgroup", "cpu.shares=10", "--cgroup", "cpuset.cpus=4096", NULL);
    assert_string_not_equal(outcome.errors, "");
    assert_non_null(strstr(outcome.errors, "--cgroup: the kernel refuses \"4096\" for \"cpuset.cpus\": "));
    assert_exited(&outcome, 1);
    assert_nothing_left(jail);
}

static void test_files_that_are_no_network_namespace_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--netns", "/run/netns/no-such", NULL);
    assert_refused(&outcome, "--netns: cannot open \"/run/netns/no-such\": No such file or directory");
    jail_run(jail, &outcome, "--netns", "/etc/passwd", NULL);
    assert_refused(&outcome, "--netns: \"/etc/passwd\" is not a network namespace");
    jail_run(jail, &outcome, "--netns", "/proc/self/ns/uts", NULL);
    assert_refused(&outcome, "--netns: \"/proc/self/ns/uts\" is not a network namespace");
    assert_nothing_left(jail);
}

static void test_limits_that_the_kernel_refuses_are_named(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--resource-limit", "no-file=9223372036854775807", NULL);
    assert_refused(&outcome, "--resource-limit: cannot set no-file=9223372036854775807: Operation not permitted");
    assert_nothing_left(jail);
}

/* A jail that lives, with everything about it that a second start might touch. */
static void test_a_jail_that_exists_is_refused_and_untouched(void **state)
{
    struct jail *jail = *state;
    const char *arguments[64];
    struct outcome outcome;
    struct stat before, after;
    int in[2], out[2];
    char ready[6] = {0};

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    int stdin_of_ours = dup(STDIN_FILENO);
    assert_int_equal(dup2(in[0], STDIN_FILENO), STDIN_FILENO);
    jail_arguments(jail, arguments, (const char *const[]){"--cgroup", "cpu.shares=10", "--", "wait", NULL});
    pid_t pid = jail_start(jail, out[1], -1, arguments);
    dup2(stdin_of_ours, STDIN_FILENO);
    close(stdin_of_ours);
    close(in[0]);
    assert_int_equal(read(out[0], ready, sizeof(ready)), sizeof(ready));
    assert_int_equal(stat(jail_root(jail, "."), &before), 0);

    jail->uid = 4711;
    jail_run(jail, &outcome, "--cgroup", "cpu.shares=20", NULL);
    assert_refused(&outcome, "--id: the jail \"jail\" exists (it has a %s.pid); end it or run `mayfly gc` first",
                   jail->exec_name);
    assert_int_equal(stat(jail_root(jail, "."), &after), 0);
    assert_int_equal(before.st_uid, after.st_uid);
    assert_int_equal(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec);
    assert_string_equal(read_text(jail_cgroup(jail, "cpu", "cpu.shares")), "10\n");
    char tasks[32];
    snprintf(tasks, sizeof(tasks), "%d\n", pid);
    assert_string_equal(read_text(jail_cgroup(jail, "cpu", "tasks")), tasks);

    /* And it lives. */
    close(in[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_a_jail_that_another_jailer_builds_is_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    assert_int_equal(mkdir(jail_path(jail, "base/%s", jail->exec_name), 0755), 0);
    assert_int_equal(mkdir(jail_path(jail, "base/%s/jail", jail->exec_name), 0755), 0);
    cleanup_fd int folder = open(jail_path(jail, "base/%s/jail", jail->exec_name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(folder, LOCK_EX), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--id: the jail \"jail\" is being built or removed by another process");
}

static void test_a_user_who_may_not_open_kvm_is_told_who_may(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->kvm_group = 4711;
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "user %d may not open /dev/kvm; it belongs to group 4711, mode 0660: Permission denied",
                   JAIL_UID);
    assert_nothing_left(jail);
}

static void test_ids_that_are_not_the_users_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    bool helped = access("/usr/bin/newuidmap", X_OK) == 0;

    jail->uid = 0;
    jail_run(jail, &outcome, NULL);
    if (helped)
        assert_refused(&outcome, "--uid: 0 is neither your own id (%d) nor a subordinate one (see /etc/subuid)",
                       JAIL_UID);
    else
        assert_refused(&outcome,
                       "--uid: 0 is not your own id (%d), and /usr/bin/newuidmap, which maps others, is not there",
                       JAIL_UID);
    jail->uid = JAIL_UID;
    jail->gid = 0;
    jail_run(jail, &outcome, NULL);
    assert_exited(&outcome, 1);
    assert_non_null(
        strstr(outcome.errors, "mayfly-jailer: --")); /* newuidmap may want /etc/subuid for the own id, too */
    assert_nothing_left(jail);
}

static void test_bases_that_are_not_the_users_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char uid[16], gid[16];

    assert_int_equal(chown(jail->base, 0, 0), 0);
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome, "--chroot-base-dir: \"%s\" belongs to another user; expected your own, %d", jail->base,
                   JAIL_UID);

    snprintf(uid, sizeof(uid), "%d", JAIL_UID);
    snprintf(gid, sizeof(gid), "%d", JAIL_GID);
    unsetenv("XDG_RUNTIME_DIR");
    jail_run_arguments(jail, &outcome,
                       (const char *const[]){"mayfly-jailer", "--id", "jail", "--exec-file", jail->exec, "--uid", uid,
                                             "--gid", gid, NULL});
    assert_refused(&outcome, "--chroot-base-dir: is required where XDG_RUNTIME_DIR is not set; expected DIR");
}

static void test_network_namespaces_that_are_not_the_users_are_refused(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--netns", "/proc/self/ns/net", NULL);
    assert_non_null(strstr(outcome.errors, "--netns: cannot join \"/proc/self/ns/net\": Operation not permitted\n"));
    assert_exited(&outcome, 1);
    assert_nothing_left(jail);
}

/* Seccomp, as containers have it: no user namespaces, and no reduced jail without a word. */
static void test_without_user_namespaces_the_missing_walls_are_told(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = forbid_user_namespaces;
    jail_run(jail, &outcome, NULL);
    assert_refused(&outcome,
                   "this process has neither CAP_SYS_ADMIN nor a user namespace (unshare: Operation not permitted): "
                   "there would be no mount, pid, net, ipc, uts, cgroup and time namespaces; --allow-reduced accepts "
                   "that");
    assert_nothing_left(jail);
}

JAIL_MAIN(jail_test(test_links_to_the_exec_file_that_others_could_change_are_refused),
          jail_test(test_links_to_the_exec_file_that_only_its_owner_could_change_are_followed),
          jail_test(test_swapping_the_link_to_the_exec_file_is_a_lost_race),
          jail_test(test_an_exec_file_that_everybody_may_write_is_refused),

          jail_test(test_command_lines_that_are_wrong_name_the_option),
          jail_test(test_exec_files_that_cannot_run_are_refused), jail_test(test_bases_that_are_not_safe_are_refused),
          jail_test(test_base_on_a_read_only_file_system_is_refused),
          jail_test(test_cgroup_settings_that_the_host_refuses_are_named),
          jail_test(test_files_that_are_no_network_namespace_are_refused),
          jail_test(test_limits_that_the_kernel_refuses_are_named),
          jail_test(test_a_jail_that_exists_is_refused_and_untouched),
          jail_test(test_a_jail_that_another_jailer_builds_is_refused),
          user_test(test_a_user_who_may_not_open_kvm_is_told_who_may),
          user_test(test_ids_that_are_not_the_users_are_refused),
          user_test(test_bases_that_are_not_the_users_are_refused),
          user_test(test_network_namespaces_that_are_not_the_users_are_refused),
          user_test(test_without_user_namespaces_the_missing_walls_are_told))
