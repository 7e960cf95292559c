/*
 * The jailer in containers that have /dev/kvm, but neither CAP_SYS_ADMIN nor user namespaces: the reduced jail, asked
 * for by --allow-reduced. A container is what it leaves a process: capabilities dropped, and a seccomp filter. The last
 * test has a real one, made by crun.
 */
#include "tests/jail/attempts.h"
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
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

/* --- mayfly run --- */

/* The programs and a guest, where the container's user can execute them, below `folder` of the test's directory. */
static void copy_programs(struct jail *jail, const char *folder)
{
    static const char *const names[] = {"mayfly", "mayfly-vmm", "mayfly-jailer"};
    char from[256];

    for (size_t i = 0; i < array_length(names); i++) {
        snprintf(from, sizeof(from), "../../%s", names[i]);
        snprintf(from, sizeof(from), "%s", jail_program(from));
        copy_file(from, jail_path(jail, "%s/%s", folder, names[i]), 0755);
    }
    copy_file(jail_program("../../mayfly-vmm"), jail->exec, 0755); /* a name that no other test's cgroups have */
    copy_file(guest_image("fake_init"), jail_path(jail, "%s/vmlinux", folder), 0644);
    snprintf(jail->jailer, sizeof(jail->jailer), "%s", jail_path(jail, "%s/mayfly", folder));
}

static void run_mayfly(struct jail *jail, struct outcome *outcome, const char *option)
{
    char kernel[256];
    /* The guest looks at neither initrd nor disk; the VMM must find both. */
    const char *const arguments[] = {"mayfly",   "run",  "--vmm",    jail->exec, "--kernel",   kernel,
                                     "--initrd", kernel, "--rootfs", kernel,     "--jail-dir", jail->base,
                                     option,     "--",   "exit",     "7",        NULL};

    snprintf(kernel, sizeof(kernel), "%s", jail_path(jail, "./vmlinux"));
    jail_run_arguments(jail, outcome, arguments);
}

/* Nothing of the jail is left, not even the folder of all jails; the cgroup that they share is empty. */
static void assert_only_base_is_left(const struct jail *jail)
{
    static const char *const controllers[] = {"pids", "memory"};
    char path[256];

    for (size_t i = 0; i < array_length(controllers); i++) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s", controllers[i], jail->exec_name);
        if (rmdir(path) != 0)
            assert_int_equal(errno, ENOENT);
    }
    assert_int_equal(rmdir(jail->base), 0);
    assert_int_equal(mkdir(jail->base, 0755), 0);
    if (jail->as_user)
        assert_int_equal(chown(jail->base, JAIL_UID, JAIL_GID), 0);
}

static void run_reduced_when_allowed(struct jail *jail, const char *lacks)
{
    struct outcome outcome;

    copy_programs(jail, ".");
    run_mayfly(jail, &outcome, "--json=/dev/null");
    assert_exited(&outcome, 125);
    if (strstr(outcome.errors, "there would be no mount, pid, net, ipc, uts, cgroup and time namespaces; "
                               "--allow-reduced accepts that; --no-jail does without\n") == NULL)
        fail_msg("refused otherwise: %s", outcome.errors);
    assert_only_base_is_left(jail);

    run_mayfly(jail, &outcome, "--allow-reduced");
    assert_exited(&outcome, 7);
    if (strncmp(outcome.errors, "mayfly: reduced jail, without: mount namespace, ", 48) != 0 ||
        strstr(outcome.errors, lacks) == NULL || strchr(outcome.errors, '\n')[1] != '\0')
        fail_msg("told otherwise than with \"%s\": %s", lacks, outcome.errors);
    assert_only_base_is_left(jail);
}

static void test_a_containers_root_runs_a_command_when_it_allows_a_reduced_jail(void **state)
{
    struct jail *jail = *state;

    jail->before_exec = become_root_of_a_container;
    run_reduced_when_allowed(jail, "mount namespace, pid namespace");
}

static void test_a_containers_root_with_few_rights_runs_a_command_as_itself(void **state)
{
    struct jail *jail = *state;

    jail->before_exec = become_root_that_makes_no_nodes;
    run_reduced_when_allowed(jail, "a user of its own, ");
}

static void test_a_containers_user_runs_a_command_when_it_allows_a_reduced_jail(void **state)
{
    struct jail *jail = *state;

    jail->before_exec = forbid_user_namespaces;
    run_reduced_when_allowed(jail, "empty root (");
}

static void test_a_user_cannot_run_a_microvm_out_of_its_reach(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char message[160];

    copy_programs(jail, ".");
    run_mayfly(jail, &outcome, "--jail-uid=400005");
    assert_exited(&outcome, 125);
    snprintf(message, sizeof(message),
             "mayfly: --jail-uid \"400005\": the microVM's sockets would be out of your reach; expected your own, %d\n",
             JAIL_UID);
    assert_string_equal(outcome.errors, message);
    assert_only_base_is_left(jail);
}

static void test_what_a_reduced_jail_cannot_show_is_refused_by_name(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    char bind[320], file[256];

    jail->before_exec = become_root_of_a_container;
    snprintf(file, sizeof(file), "%s", jail_path(jail, "file"));
    write_text(file, "text");
    for (int folder = 0; folder <= 1; folder++) {
        snprintf(bind, sizeof(bind), "%s:/x:%s", folder ? jail->directory : file, folder ? "ro" : "rw");
        jail_run(jail, &outcome, "--allow-reduced", "--bind", bind, "--", "0", "leave", NULL);
        assert_refused(&outcome,
                       "--bind: a reduced jail, which has no mounts, cannot show \"%s\"; expected a file, with ro, of "
                       "which it has a copy",
                       folder ? jail->directory : file);
        assert_nothing_left(jail);
    }
    snprintf(bind, sizeof(bind), "%s:/a/b:ro", file);
    jail_run(jail, &outcome, "--allow-reduced", "--bind", bind, "--", "0", "leave", NULL);
    assert_exited(&outcome, 0);
    assert_string_equal(read_text(jail_root(jail, "a/b")), "text");
    assert_mode(jail_root(jail, "a/b"), 0400, JAIL_UID, JAIL_GID);
}

/* Whoever started a jailer that becomes the VMM, and asked for that, takes it along. */
static void test_the_vmm_of_a_reduced_jail_ends_with_a_killed_mayfly(void **state)
{
    struct jail *jail = *state;
    char kernel[256], text[192];
    const char *const arguments[] = {"mayfly", "run",        "--allow-reduced", "--vmm", jail->exec, "--kernel",
                                     kernel,   "--jail-dir", jail->base,        "--",    "wait",     NULL};
    int out[2];

    jail->before_exec = become_root_of_a_container;
    copy_programs(jail, ".");
    snprintf(kernel, sizeof(kernel), "%s", jail_path(jail, "./vmlinux"));
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = jail_start(jail, out[1], -1, arguments);
    close(out[1]);
    assert_true(read(out[0], text, sizeof(text)) > 0); /* "waiting" */
    close(out[0]);

    snprintf(text, sizeof(text), "base/%s/run-%d/root/%s.pid", jail->exec_name, pid, jail->exec_name);
    cleanup_fd int file = open(jail_path(jail, "%s", text), O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(flock(file, LOCK_SH | LOCK_NB), 0);
    assert_int_equal(flock(file, LOCK_UN), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(flock(file, LOCK_EX), 0); /* waits for its end */
}

/* --- A container of crun's --- */

#define CAPABILITIES                                                                                                   \
    "\"CAP_CHOWN\",\"CAP_DAC_OVERRIDE\",\"CAP_FOWNER\",\"CAP_SETGID\",\"CAP_SETUID\",\"CAP_SETPCAP\",\"CAP_SYS_"       \
    "CHROOT\","                                                                                                        \
    "\"CAP_MKNOD\""

static const char container[] =
    "{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},\"cwd\":\"/\",\"env\":[\"PATH=/bin\"],"
    "\"args\":[%s],"
    "\"capabilities\":{\"bounding\":[" CAPABILITIES "],\"effective\":[" CAPABILITIES "],\"permitted\":[" CAPABILITIES
    "]}},\"root\":{\"path\":\"rootfs\"},"
    "\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
    "{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\",\"mode=755\"]}],"
    "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"}],"
    "\"devices\":[{\"path\":\"/dev/"
    "kvm\",\"type\":\"c\",\"major\":%u,\"minor\":%u,\"fileMode\":384,\"uid\":0,\"gid\":0}],"
    "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"unshare\",\"setns\",\"mount\","
    "\"pivot_root\",\"open_tree\",\"move_mount\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":1}]}}}";

/* `words`: of the command line, as in JSON. */
static void run_container(const struct jail *jail, const char *words, struct outcome *outcome)
{
    char text[4096], line[512];
    struct stat kvm;
    size_t got;

    assert_int_equal(stat("/dev/kvm", &kvm), 0);
    snprintf(text, sizeof(text), container, words, major(kvm.st_rdev), minor(kvm.st_rdev));
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

#define JAILER(id)                                                                                                     \
    "\"/bin/mayfly-jailer\",\"--id\",\"" id "\",\"--exec-file\",\"/bin/"                                               \
    "probe\",\"--uid\",\"64123\",\"--gid\",\"64124\","
#define RUN                                                                                                            \
    "\"/bin/mayfly\",\"run\",\"--kernel\",\"/bin/vmlinux\",\"--jail-dir\",\"/srv/jailer\",\"--allow-reduced\","        \
    "\"--\",\"exit\",\"9\""

static void test_jailer_and_mayfly_run_in_a_container_of_crun(void **state)
{
    static const char *const folders[] = {"rootfs", "rootfs/bin", "rootfs/dev",       "rootfs/proc",
                                          "crun",   "rootfs/srv", "rootfs/srv/jailer"};
    struct jail *jail = *state;
    struct outcome outcome;
    char line[32];

    if (system("crun --version >/dev/null 2>&1") != 0) {
        print_message("skipped: crun is not installed\n");
        skip();
    }
    for (size_t i = 0; i < array_length(folders); i++)
        assert_int_equal(mkdir(jail_path(jail, "%s", folders[i]), 0755), 0);
    copy_programs(jail, "rootfs/bin");
    copy_file(jail_program("probe"), jail_path(jail, "rootfs/bin/probe"), 0755);

    run_container(jail, JAILER("a") "\"--\",\"kvm\"", &outcome);
    assert_exited(&outcome, 1);
    if (strstr(outcome.errors, "neither CAP_SYS_ADMIN nor a user namespace") == NULL)
        fail_msg("refused otherwise: %s", outcome.errors);

    run_container(jail, JAILER("b") "\"--allow-reduced\",\"--new-pid-ns\",\"--\",\"kvm\"", &outcome);
    assert_exited(&outcome, 0);
    assert_told(&outcome, "without: mount namespace, pid namespace");
    assert_null(strstr(outcome.errors, "empty root"));

    /* It has no cgroups. */
    run_container(jail, JAILER("c") "\"--allow-reduced\",\"--no-base-filter\",\"--\",\"report\"", &outcome);
    assert_exited(&outcome, 0);
    assert_non_null(strstr(outcome.errors, "mayfly-jailer: no cgroup limit on processes: "));
    snprintf(line, sizeof(line), "limit %d 512 512\n", RLIMIT_NPROC);
    if (strstr(outcome.errors, line) == NULL)
        fail_msg("no %s in: %s", line, outcome.errors);

    run_container(jail, RUN, &outcome);
    assert_exited(&outcome, 9);
    if (strstr(outcome.errors, "mayfly: reduced jail, without: mount namespace, ") == NULL)
        fail_msg("not told what is missing: %s", outcome.errors);
}

JAIL_MAIN(jail_test(test_root_of_a_container_gets_an_empty_root_and_the_filters),
          jail_test(test_the_other_walls_of_a_containers_root_hold_without_the_filter),
          user_test(test_an_ordinary_user_of_a_container_is_kept_in_the_folder_by_landlock),
          jail_test(test_root_that_makes_no_nodes_is_kept_in_the_folder_by_landlock),
          jail_test(test_a_start_that_fails_in_a_container_leaves_nothing),
          jail_test(test_who_has_all_rights_gets_all_walls_in_spite_of_the_option),
          user_test(test_a_user_with_namespaces_gets_all_walls_in_spite_of_the_option),
          jail_test(test_root_of_a_container_with_namespaces_gets_all_walls),
          jail_test(test_a_containers_root_runs_a_command_when_it_allows_a_reduced_jail),
          jail_test(test_a_containers_root_with_few_rights_runs_a_command_as_itself),
          user_test(test_a_containers_user_runs_a_command_when_it_allows_a_reduced_jail),
          user_test(test_a_user_cannot_run_a_microvm_out_of_its_reach),
          jail_test(test_what_a_reduced_jail_cannot_show_is_refused_by_name),
          jail_test(test_the_vmm_of_a_reduced_jail_ends_with_a_killed_mayfly),
          jail_test(test_jailer_and_mayfly_run_in_a_container_of_crun))
