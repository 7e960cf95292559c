/*
 * The jailer in containers that have /dev/kvm, but neither CAP_SYS_ADMIN nor user namespaces: the reduced jail, asked
 * for by --allow-reduced. A container is what it leaves a process: capabilities dropped, and a seccomp filter. The last
 * test has a real one, made by crun.
 */
#include "tests/jail/attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void become_root_that_makes_no_nodes(void)
{
    static const int kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETGID, CAP_SETUID, CAP_SETPCAP};

    keep_capabilities(kept, array_length(kept));
    forbid_user_namespaces();
}

#define ALL_NAMESPACES                                                                                                 \
    "--new-pid-ns", "--new-net-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns", "--new-time-ns"

/* Fails unless stderr has the one line that tells what is missing, with `walls` in it. */
static void assert_told(const struct outcome *outcome, const char *walls)
{
    const char *line = strstr(outcome->errors, "mayfly-jailer: reduced jail, without: ");

    if (line == NULL || strstr(line, walls) == NULL)
        fail_msg("no \"%s\" in:\n%s", walls, outcome->errors);
}

static void test_root_of_a_container_gets_an_empty_root_and_the_filters(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = become_root_of_a_container;
    jail_run(jail, &outcome, "--allow-reduced", ALL_NAMESPACES, "--", "kvm", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 0);
    assert_told(&outcome,
                "without: mount namespace, pid namespace, net namespace, ipc namespace, uts namespace, cgroup "
                "namespace, time namespace");
    assert_null(strstr(outcome.errors, "empty root"));
    assert_null(strstr(outcome.errors, "bounding set"));
    attempt_all(jail, (const char *const[]){"--allow-reduced", NULL}, true, NULL);
}

static void test_the_other_walls_of_a_containers_root_hold_without_the_filter(void **state)
{
    /* The container's own filter answers two; the node is on the jail's file system: Landlock refuses its link. */
    static const struct attempt_exception exceptions[] = {
        {"userns-mount", EPERM}, {"unshare", EPERM}, {"hard-link", EACCES}, {NULL, 0}};
    struct jail *jail = *state;

    jail->before_exec = become_root_of_a_container;
    attempt_all(jail, (const char *const[]){"--allow-reduced", "--no-base-filter", NULL}, false, exceptions);
}

/*
 * Paths are the container's: Landlock says EACCES where an empty root has nothing. The bounding set is full, and
 * no_new_privs makes nothing of it.
 */
static const struct attempt_exception outside[] = {{"open", EACCES},
                                                   {"ring-open", EACCES},
                                                   {"climb", EACCES},
                                                   {"climb-by-directory", EACCES},
                                                   {"proc", EACCES},
                                                   {"own-binary", ENOENT},
                                                   {"symlink", EACCES},
                                                   {"hard-link", EXDEV},
                                                   {"mknod", EACCES},
                                                   {"mknod-in-dev", EACCES},
                                                   {"umount", EPERM},
                                                   {"exec", ENOENT},
                                                   {"chown", EPERM},
                                                   {"userns-mount", EPERM},
                                                   {"chroot", EPERM},
                                                   {"pivot-root", EPERM},
                                                   {"handle", EACCES},
                                                   {"have-capabilities", 0},
                                                   {NULL, 0}};

static void test_an_ordinary_user_of_a_container_is_kept_in_the_folder_by_landlock(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = forbid_user_namespaces;
    jail_run(jail, &outcome, "--allow-reduced", "--", "kvm", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 0);
    assert_told(&outcome, "empty root (paths are the container's; Landlock allows those of the jail's folder)");
    assert_told(&outcome, "an empty capability bounding set and locked securebits (no CAP_SETPCAP)");
    assert_told(&outcome, "dropped supplementary groups (no CAP_SETGID)");
    if (strstr(outcome.errors, "any wall around files") != NULL) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    attempt_all(jail, (const char *const[]){"--allow-reduced", "--no-base-filter", NULL}, false, outside);
}

static void test_root_that_makes_no_nodes_is_kept_in_the_folder_by_landlock(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = become_root_that_makes_no_nodes;
    jail->uid = jail->gid = 0;
    jail_run(jail, &outcome, "--allow-reduced", "--", "kvm", NULL);
    assert_exited(&outcome, 0);
    assert_told(&outcome, "empty root (");
    struct stat status;
    assert_int_equal(stat(jail_root(jail, "dev/kvm"), &status), -1);
}

static void test_a_start_that_fails_in_a_container_leaves_nothing(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = become_root_of_a_container;
    jail_run(jail, &outcome, "--allow-reduced", "--resource-limit", "no-file=9223372036854775807", NULL);
    assert_exited(&outcome, 1);
    assert_non_null(strstr(outcome.errors, "mayfly-jailer: --resource-limit: cannot set no-file="));
    assert_nothing_left(jail);

    jail_run(jail, &outcome, "--allow-reduced", "--netns", "/proc/self/ns/net", NULL);
    assert_refused(&outcome, "--netns: joining \"/proc/self/ns/net\" takes CAP_SYS_ADMIN, which this process has not");
    assert_nothing_left(jail);
}

static void test_who_has_all_rights_gets_all_walls_in_spite_of_the_option(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--allow-reduced", "--new-pid-ns", "--no-base-filter", "--", "kill-parent", NULL);
    assert_exited(&outcome, ESRCH);
    assert_string_equal(outcome.errors, "");
}

static void test_a_user_with_namespaces_gets_all_walls_in_spite_of_the_option(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--allow-reduced", "--new-pid-ns", "--no-base-filter", "--", "kill-parent", NULL);
    assert_exited(&outcome, ESRCH);
    assert_null(strstr(outcome.errors, "reduced jail"));
}

/* Root of a container where namespaces are allowed: any user, but the device is the host's. */
static void become_root_with_namespaces(void)
{
    keep_usual_capabilities();
}

static void test_root_of_a_container_with_namespaces_gets_all_walls(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail->before_exec = become_root_with_namespaces;
    jail->uid = jail->gid = 0;
    jail_run(jail, &outcome, "--new-pid-ns", "--no-base-filter", "--", "kill-parent", NULL);
    jail_remove(jail);
    assert_exited(&outcome, ESRCH);
    jail_run(jail, &outcome, "--", "kvm", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 0);

    struct stat status;
    assert_int_equal(stat("/dev/kvm", &status), 0);
    if ((status.st_mode & 0006) == 0006)
        return;
    jail->uid = jail->gid = JAIL_UID;
    jail_run(jail, &outcome, "--", "kvm", NULL);
    assert_exited(&outcome, 1);
    assert_non_null(strstr(outcome.errors, "--uid, --gid: 64123:64123 may not open /dev/kvm, which the jail has as the "
                                           "host has it: Permission denied"));
    assert_nothing_left(jail);
}

/* --- A container of crun's --- */

#define CAPABILITIES                                                                                                   \
    "\"CAP_CHOWN\",\"CAP_DAC_OVERRIDE\",\"CAP_FOWNER\",\"CAP_SETGID\",\"CAP_SETUID\",\"CAP_SETPCAP\",\"CAP_SYS_"       \
    "CHROOT\","                                                                                                        \
    "\"CAP_MKNOD\""

static const char container[] =
    "{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},\"cwd\":\"/\",\"env\":[\"PATH=/bin\"],"
    "\"args\":[\"/bin/mayfly-jailer\",\"--id\",\"a\",\"--exec-file\",\"/bin/probe\",\"--uid\",\"64123\",\"--gid\","
    "\"64124\",%s\"--\",\"%s\"],"
    "\"capabilities\":{\"bounding\":[" CAPABILITIES "],\"effective\":[" CAPABILITIES "],\"permitted\":[" CAPABILITIES
    "]}},\"root\":{\"path\":\"rootfs\"},"
    "\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
    "{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\",\"mode=755\"]}],"
    "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"}],"
    "\"devices\":[{\"path\":\"/dev/"
    "kvm\",\"type\":\"c\",\"major\":%u,\"minor\":%u,\"fileMode\":384,\"uid\":0,\"gid\":0}],"
    "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"unshare\",\"setns\",\"mount\","
    "\"pivot_root\",\"open_tree\",\"move_mount\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":1}]}}}";

static void run_container(const struct jail *jail, const char *options, const char *command, struct outcome *outcome)
{
    char text[4096], line[512];
    struct stat kvm;
    size_t got;

    assert_int_equal(stat("/dev/kvm", &kvm), 0);
    snprintf(text, sizeof(text), container, options, command, major(kvm.st_rdev), minor(kvm.st_rdev));
    write_text(jail_path(jail, "config.json"), text);
    /* crun refuses hosts that have both versions of cgroups, even when it is to use neither. */
    snprintf(
        line, sizeof(line),
        "unshare --mount sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec crun --root %s --cgroup-manager=disabled "
        "run --bundle %s %s' 2>&1 </dev/null",
        jail_path(jail, "crun"), jail->directory, jail->exec_name);
    FILE *crun = popen(line, "re");
    assert_non_null(crun);
    got = fread(outcome->errors, 1, sizeof(outcome->errors) - 1, crun);
    outcome->errors[got] = outcome->out[0] = '\0';
    outcome->status = pclose(crun);
}

static void test_jailer_runs_in_a_container_of_crun(void **state)
{
    static const char *const folders[] = {"rootfs", "rootfs/bin", "rootfs/dev",       "rootfs/proc",
                                          "crun",   "rootfs/srv", "rootfs/srv/jailer"};
    struct jail *jail = *state;
    struct outcome outcome;
    char program[256];

    if (system("crun --version >/dev/null 2>&1") != 0) {
        print_message("skipped: crun is not installed\n");
        skip();
    }
    for (size_t i = 0; i < array_length(folders); i++)
        assert_int_equal(mkdir(jail_path(jail, "%s", folders[i]), 0755), 0);
    snprintf(program, sizeof(program), "%s", jail_program("../../mayfly-jailer"));
    copy_file(program, jail_path(jail, "rootfs/bin/mayfly-jailer"), 0755);
    copy_file(jail_program("probe"), jail_path(jail, "rootfs/bin/probe"), 0755);

    run_container(jail, "", "kvm", &outcome);
    assert_exited(&outcome, 1);
    if (strstr(outcome.errors, "neither CAP_SYS_ADMIN nor a user namespace") == NULL)
        fail_msg("refused otherwise: %s", outcome.errors);

    run_container(jail, "\"--allow-reduced\",\"--new-pid-ns\",", "kvm", &outcome);
    assert_exited(&outcome, 0);
    assert_told(&outcome, "without: mount namespace, pid namespace");
    assert_null(strstr(outcome.errors, "empty root"));
}

JAIL_MAIN(jail_test(test_root_of_a_container_gets_an_empty_root_and_the_filters),
          jail_test(test_the_other_walls_of_a_containers_root_hold_without_the_filter),
          user_test(test_an_ordinary_user_of_a_container_is_kept_in_the_folder_by_landlock),
          jail_test(test_root_that_makes_no_nodes_is_kept_in_the_folder_by_landlock),
          jail_test(test_a_start_that_fails_in_a_container_leaves_nothing),
          jail_test(test_who_has_all_rights_gets_all_walls_in_spite_of_the_option),
          user_test(test_a_user_with_namespaces_gets_all_walls_in_spite_of_the_option),
          jail_test(test_root_of_a_container_with_namespaces_gets_all_walls),
          jail_test(test_jailer_runs_in_a_container_of_crun))
