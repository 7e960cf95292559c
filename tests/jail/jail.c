#include "tests/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const controllers[] = {"cpu", "cpuset", "memory", "pids"};

static const char *build_folder(void)
{
    const char *build = getenv("MAYFLY_BUILD");

    return build != NULL ? build : "build";
}

const char *jail_path(const struct jail *jail, const char *format, ...)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % array_length(paths)];
    va_list arguments;
    int length = snprintf(path, sizeof(paths[0]), "%s/", jail->directory);

    va_start(arguments, format);
    vsnprintf(path + length, sizeof(paths[0]) - (size_t)length, format, arguments);
    va_end(arguments);
    return path;
}

const char *jail_root(const struct jail *jail, const char *name)
{
    return jail_path(jail, "base/%s/%s/root/%s", jail->exec_name, jail->id, name);
}

const char *jail_pid_file(const struct jail *jail)
{
    return jail_path(jail, "base/%s/%s/root/%s.pid", jail->exec_name, jail->id, jail->exec_name);
}

void jail_await_end(const struct jail *jail)
{
    cleanup_fd int fd = open(jail_pid_file(jail), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
}

const char *jail_cgroup(const struct jail *jail, const char *controller, const char *file)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % array_length(paths)];

    snprintf(path, sizeof(paths[0]), "/sys/fs/cgroup/%s/%s/%s/%s", controller, jail->exec_name, jail->id, file);
    return path;
}

const char *jail_program(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/release/tests/jail/%s", build_folder(), name);
    return path;
}

void copy_file(const char *from, const char *to, mode_t mode)
{
    static char bytes[1 << 16];
    cleanup_fd int in = open(from, O_RDONLY | O_CLOEXEC);
    cleanup_fd int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t got;

    assert_true(in >= 0);
    assert_true(out >= 0);
    while ((got = read(in, bytes, sizeof(bytes))) > 0)
        assert_int_equal(write(out, bytes, (size_t)got), got);
    assert_int_equal(fchmod(out, mode), 0);
}

static void skip_without_root(void **state)
{
    (void)state;
    print_message("skipped: root makes the users, nodes and mounts of this test\n");
    skip();
}

/* Not in a set-up: cmocka takes that for a failure. */
void jail_skip_without_root(struct CMUnitTest *tests, size_t count)
{
    for (size_t i = 0; geteuid() != 0 && i < count; i++)
        tests[i] = (struct CMUnitTest){.name = tests[i].name, .test_func = skip_without_root};
}

int jail_setup(void **state)
{
    struct jail *jail = calloc(1, sizeof(*jail));

    strcpy(jail->directory, "/tmp/mayfly-jail-XXXXXX");
    assert_non_null(mkdtemp(jail->directory));
    assert_int_equal(chmod(jail->directory, 0755), 0);
    strcpy(jail->base, jail_path(jail, "base"));
    assert_int_equal(mkdir(jail->base, 0755), 0);
    /* A name that no other test's cgroups have. */
    snprintf(jail->exec_name, sizeof(jail->exec_name), "probe-%s", jail->directory + strlen("/tmp/mayfly-jail-"));
    strcpy(jail->exec, jail_path(jail, "%s", jail->exec_name));
    copy_file(jail_program("probe"), jail->exec, 0755);
    strcpy(jail->id, "jail");
    jail->uid = JAIL_UID;
    jail->gid = JAIL_GID;
    *state = jail;
    return 0;
}

int jail_setup_as_user(void **state)
{
    struct jail *jail;

    if (jail_setup(state) != 0)
        return -1;
    jail = *state;
    jail->as_user = true;
    jail->kvm_group = JAIL_KVM_GROUP;
    assert_int_equal(chown(jail->base, JAIL_UID, JAIL_GID), 0);
    /* The build folder may be closed to others. */
    snprintf(jail->jailer, sizeof(jail->jailer), "%s", jail_path(jail, "mayfly-jailer"));
    char program[256];
    snprintf(program, sizeof(program), "%s/release/mayfly-jailer", build_folder());
    copy_file(program, jail->jailer, 0755);
    return 0;
}

void jail_remove(const struct jail *jail)
{
    test_remove(jail_path(jail, "base/%s", jail->exec_name));
    for (size_t i = 0; i < array_length(controllers); i++) {
        char path[256];

        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s", controllers[i], jail->exec_name);
        test_remove_cgroup(path);
    }
}

int jail_teardown(void **state)
{
    struct jail *jail = *state;

    jail_remove(jail);
    test_remove(jail->directory);
    free(jail);
    return 0;
}

void jail_arguments(const struct jail *jail, const char **arguments, const char *const *more)
{
    static char uid[16], gid[16];
    size_t count = 0;
    const char *const first[] = {"mayfly-jailer", "--id", jail->id, "--exec-file", jail->exec,
                                 "--uid",         uid,    "--gid",  gid,           "--chroot-base-dir",
                                 jail->base};

    snprintf(uid, sizeof(uid), "%u", jail->uid);
    snprintf(gid, sizeof(gid), "%u", jail->gid);
    for (; count < array_length(first); count++)
        arguments[count] = first[count];
    for (; more != NULL && *more != NULL && count < 63; more++)
        arguments[count++] = *more;
    arguments[count] = NULL;
}

static void make_node(const char *name, mode_t mode, gid_t group)
{
    char from[64], to[64];
    struct stat status;

    snprintf(from, sizeof(from), "/dev/%s", name);
    snprintf(to, sizeof(to), "/mnt/%s", name);
    if (stat(from, &status) != 0)
        return;
    if (mknod(to, S_IFCHR, status.st_rdev) != 0 || chown(to, 0, group) != 0 || chmod(to, mode) != 0)
        _exit(124);
}

/* In a mount namespace of its own /dev is as on a host where a group may use KVM; then the process is that user's. */
static void become_user(const struct jail *jail)
{
    static const gid_t groups[] = {JAIL_KVM_GROUP};
    static const char *const files[] = {"passwd", "subuid", "subgid"};

    umask(0);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) != 0 ||
        mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755") != 0 || mkdir("/mnt/net", 0755) != 0)
        _exit(124);
    make_node("kvm", 0660, jail->kvm_group);
    make_node("net/tun", 0666, 0);
    make_node("urandom", 0666, 0);
    make_node("null", 0666, 0);
    for (size_t i = 0; jail->etc && i < array_length(files); i++) {
        char place[64];

        snprintf(place, sizeof(place), "/etc/%s", files[i]);
        close(open(place, O_RDONLY | O_CREAT | O_CLOEXEC, 0644));
        if (mount(jail_path(jail, "%s", files[i]), place, NULL, MS_BIND, NULL) != 0)
            _exit(124);
    }
    if (mount("/mnt", "/dev", NULL, MS_BIND, NULL) != 0 || umount2("/mnt", MNT_DETACH) != 0 ||
        setgroups(1, groups) != 0 || setgid(JAIL_GID) != 0 || setuid(JAIL_UID) != 0)
        _exit(124);
}

void forbid_user_namespaces(void)
{
    /* unshare(2) is refused; clone(2) is not needed for the first namespace. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = array_length(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(124);
}

/* Root has what the bounding set has, once it executes something. */
void keep_capabilities(const int *kept, size_t count)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++) {
        bool wanted = false;

        for (size_t i = 0; i < count; i++)
            wanted = wanted || kept[i] == capability;
        if (!wanted && prctl(PR_CAPBSET_DROP, capability) != 0)
            _exit(124);
    }
}

void keep_usual_capabilities(void)
{
    static const int usual[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,     CAP_FSETID, CAP_KILL,   CAP_SETGID,
                                CAP_SETUID, CAP_SETPCAP,      CAP_SYS_CHROOT, CAP_MKNOD,  CAP_SETFCAP};

    keep_capabilities(usual, array_length(usual));
}

void become_root_of_a_container(void)
{
    keep_usual_capabilities();
    forbid_user_namespaces();
}

/* newuidmap looks names and ranges up in /etc: files of the test's own there, in its mount namespace. */
void give_subordinate_ids(struct jail *jail)
{
    char text[256];

    if (access("/usr/bin/newuidmap", X_OK) != 0) {
        print_message("skipped: newuidmap (package uidmap) is not installed\n");
        skip();
    }
    snprintf(text, sizeof(text), "root:x:0:0:root:/root:/bin/sh\njailer:x:%d:%d::/:/bin/sh\n", JAIL_UID, JAIL_GID);
    write_text(jail_path(jail, "passwd"), text);
    snprintf(text, sizeof(text), "jailer:%d:65536\n", JAIL_SUBORDINATE);
    write_text(jail_path(jail, "subuid"), text);
    write_text(jail_path(jail, "subgid"), text);
    jail->etc = true;
    jail->uid = JAIL_SUBORDINATE + 5;
    jail->gid = JAIL_SUBORDINATE + 6;
}

pid_t jail_start(const struct jail *jail, int out, int errors, const char *const *arguments)
{
    char program[256];
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if ((out >= 0 && dup2(out, STDOUT_FILENO) < 0) || (errors >= 0 && dup2(errors, STDERR_FILENO) < 0))
        _exit(126);
    if (jail->as_user)
        become_user(jail);
    if (jail->before_exec != NULL)
        jail->before_exec();
    if (jail->jailer[0] != '\0')
        snprintf(program, sizeof(program), "%s", jail->jailer);
    else
        snprintf(program, sizeof(program), "%s/release/mayfly-jailer", build_folder());
    execv(program, (char *const *)(uintptr_t)arguments);
    dprintf(STDERR_FILENO, "cannot execute %s: %s\n", program, strerror(errno));
    _exit(127);
}

/* Reads both until everybody has closed them. */
static void collect(int fds[2], struct outcome *outcome)
{
    char *const texts[] = {outcome->out, outcome->errors};
    size_t lengths[2] = {0, 0};
    struct pollfd waits[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};

    while (waits[0].fd >= 0 || waits[1].fd >= 0) {
        assert_true(poll(waits, 2, 30000) > 0);
        for (size_t i = 0; i < 2; i++) {
            if (waits[i].fd < 0 || waits[i].revents == 0)
                continue;
            ssize_t got = read(waits[i].fd, texts[i] + lengths[i], sizeof(outcome->out) - 1 - lengths[i]);
            if (got <= 0)
                waits[i].fd = -1;
            else
                lengths[i] += (size_t)got;
        }
    }
    texts[0][lengths[0]] = '\0';
    texts[1][lengths[1]] = '\0';
}

void jail_run_arguments(const struct jail *jail, struct outcome *outcome, const char *const *arguments)
{
    int out[2], errors[2];

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(errors, O_CLOEXEC), 0);
    pid_t pid = jail_start(jail, out[1], errors[1], arguments);
    close(out[1]);
    close(errors[1]);
    collect((int[]){out[0], errors[0]}, outcome);
    close(out[0]);
    close(errors[0]);
    assert_int_equal(waitpid(pid, &outcome->status, 0), pid);
}

void jail_run(const struct jail *jail, struct outcome *outcome, ...)
{
    const char *arguments[64];
    const char *more[48];
    size_t count = 0;
    va_list list;

    va_start(list, outcome);
    while ((more[count] = va_arg(list, const char *)) != NULL)
        count++;
    va_end(list);
    jail_arguments(jail, arguments, more);
    jail_run_arguments(jail, outcome, arguments);
}

void assert_exited(const struct outcome *outcome, int code)
{
    if (!WIFEXITED(outcome->status) || WEXITSTATUS(outcome->status) != code)
        fail_msg("status %#x, expected exit code %d\n--- stdout:\n%s--- stderr:\n%s", (unsigned)outcome->status, code,
                 outcome->out, outcome->errors);
}

void assert_refused(const struct outcome *outcome, const char *format, ...)
{
    char message[1024] = "mayfly-jailer: ";
    size_t length = strlen(message);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message + length, sizeof(message) - length - 1, format, arguments);
    va_end(arguments);
    strcat(message, "\n");
    assert_string_equal(outcome->errors, message);
    assert_exited(outcome, 1);
    assert_string_equal(outcome->out, "");
}

void assert_reported(const struct outcome *outcome, const char *format, ...)
{
    char line[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (strstr(outcome->out, line) == NULL)
        fail_msg("no \"%s\" in:\n%s%s", line, outcome->out, outcome->errors);
}

void assert_mode(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        fail_msg("%s is missing", path);
    if ((status.st_mode & 07777) != mode || status.st_uid != uid || status.st_gid != gid)
        fail_msg("%s is %04o %u:%u, expected %04o %u:%u", path, status.st_mode & 07777, status.st_uid, status.st_gid,
                 mode, uid, gid);
}

const char *read_text(const char *path)
{
    static char text[8192];
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (got < 0)
        fail_msg("cannot read %s: %s", path, strerror(errno));
    text[got] = '\0';
    return text;
}

void write_text(const char *path, const char *text)
{
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

void assert_nothing_left(const struct jail *jail)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", jail->base, jail->exec_name);
    if (access(path, F_OK) == 0)
        fail_msg("left behind: %s", path);
    for (size_t i = 0; i < array_length(controllers); i++) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s", controllers[i], jail->exec_name);
        if (access(path, F_OK) == 0)
            fail_msg("left behind: %s", path);
    }
    if (strstr(read_text("/proc/self/mounts"), jail->directory) != NULL)
        fail_msg("a mount is left behind below %s", jail->directory);
}
