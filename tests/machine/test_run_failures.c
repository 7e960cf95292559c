/* Runs that fail, are killed, or are broken off. */
#include "tests/machine/run_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_guest_that_dies_is_125_with_its_last_words(void **state)
{
    static const struct {
        const char *command, *says;
    } deaths[] = {
        {"panic", "Kernel panic - not syncing: a test"},
        {"vanish", "reset or powered off before the command ran"},
        {"more", "before all of the command's output had come"},
        {"long", "broke the protocol: STARTED of 1048577 bytes"},
        {"kind", "broke the protocol: no frame has type 0x777"},
        {"short", "broke the protocol: EXITED of 3 bytes"},
        {"twice", "broke the protocol: STARTED at the wrong moment"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(deaths); i++) {
        struct run *run = start(&usual, COMMAND(deaths[i].command));

        expect_code(run, 125);
        if (strstr(errors_of(run), deaths[i].says) == NULL)
            fail_run(deaths[i].says);
        teardown(NULL);
    }
}

/* As on a KVM that takes every call and cannot run Linux. */
static void test_guest_that_fails_before_its_init_is_up_sends_the_user_to_the_doctor(void **state)
{
    static const char hint[] = "mayfly: \"mayfly doctor --check kvm\" tells whether KVM can run Linux here\n";
    const char *const options[] = {"--kernel", guest_image("triple_fault"), NULL};
    struct run *run = start(&(struct how){.stdin_null = true, .options = options}, COMMAND("exit", "0"));

    (void)state;
    expect_code(run, 125);
    if (strstr(errors_of(run), "before its init was up") == NULL || strstr(errors_of(run), hint) == NULL)
        fail_run("no word of the doctor");
    teardown(NULL);
    run = start(&usual, COMMAND("vanish"));
    expect_code(run, 125);
    assert_null(strstr(errors_of(run), "doctor"));
}

/* As of an initrd that holds another init. */
static void test_guest_whose_init_says_nothing_is_told_of_and_waited_for(void **state)
{
    const char *const options[] = {"--kernel", guest_image("spin"), NULL};
    struct run *run = start(&(struct how){.stdin_null = true, .options = options}, COMMAND("exit", "0"));

    (void)state;
    await_error(run, "mayfly: nothing was heard from the guest's init");
    await_error(run, "  spinning\n");
    assert_int_equal(waitpid(run->pid, NULL, WNOHANG), 0);
    kill(run->pid, SIGTERM);
    expect_code(run, 128 + SIGTERM);
}

static void test_guest_of_another_protocol_is_refused_with_both_versions(void **state)
{
    struct run *run = start(&(struct how){.stdin_null = true, .cmdline = "fake=old"}, COMMAND("exit", "0"));

    (void)state;
    expect_code(run, 125);
    assert_non_null(strstr(errors_of(run), "speaks protocol version 8, this mayfly speaks 1"));
}

/*
 * A signal mask of the process as /proc shows it: "SigBlk", "ShdPnd". None before it is mayfly: fork() of the C library
 * blocks all signals for a moment.
 */
static unsigned long long signal_mask(const struct run *run, const char *name)
{
    char path[64], text[4096] = "";
    cleanup_fd int fd = -1;
    const char *found;

    snprintf(path, sizeof(path), "/proc/%d/status", run->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    assert_null(strstr(text, "State:\tZ"));
    if (strstr(text, "Name:\tmayfly\n") == NULL)
        return 0;
    found = strstr(text, name);
    assert_non_null(found);
    return strtoull(found + strlen(name) + 1, NULL, 16);
}

/* The guest never answers: there is no command that a signal could be for. */
static void test_guest_that_hangs_can_be_interrupted(void **state)
{
    struct run *run = start(&(struct how){.stdin_null = true, .cmdline = "fake=hang"}, COMMAND("exit", "0"));
    const unsigned long long term = 1ull << (SIGTERM - 1);

    (void)state;
    while ((signal_mask(run, "SigBlk") & term) == 0)
        sched_yield(); /* until mayfly has taken the signals over */
    kill(run->pid, SIGTERM);
    expect_code(run, 128 + SIGTERM);
    /* What is before it is a user's: that its jail has no cgroup. */
    const char *errors = errors_of(run);
    const char *hint = strstr(errors, "mayfly: --kernel was given");
    assert_non_null(hint);
    assert_string_equal(hint, "mayfly: --kernel was given without an --initrd, which holds Mayfly's init\n");
    assert_true(geteuid() != 0 || hint == errors);
}

static void test_guest_that_hangs_has_its_time(void **state)
{
    const struct how how = {
        .stdin_null = true, .cmdline = "fake=hang", .options = COMMAND("--timeout", "50ms", "--json")};
    struct run *run = start(&how, COMMAND("exit", "0"));

    (void)state;
    expect_code(run, 124);
    assert_non_null(strstr(errors_of(run), "mayfly: the time of 0.050 s was up before its init was up\n"));
    assert_non_null(strstr(errors_of(run), "{\"exit_code\":124,\"error\":\"the time of 0.050 s"));
}

static void test_command_has_its_time(void **state)
{
    struct run *run = start(&(struct how){.options = COMMAND("--timeout", "1s")}, COMMAND("deaf"));

    (void)state;
    expect_code(run, 124);
    assert_non_null(strstr(errors_of(run), "mayfly: the time of 1.000 s was up before the command"));
}

static void test_time_that_is_not_up_changes_nothing(void **state)
{
    struct run *run = start(&(struct how){.options = COMMAND("--timeout", "400000000h")}, COMMAND("exit", "7"));

    (void)state;
    expect_code(run, 7);
    assert_string_equal(errors_of(run), "");
}

static void test_failures_before_the_start_name_the_thing(void **state)
{
    char file[] = "/tmp/mayfly-test-empty-XXXXXX", says[64];
    cleanup_fd int fd = mkstemp(file);
    const struct {
        const char *options[4];
        const char *says;
    } failures[] = {
        {{"--rootfs", "/no/such/rootfs"}, "/no/such/rootfs"},
        {{"--initrd", "/no/such/initrd"}, "/no/such/initrd"},
        {{"--kernel", "/no/such/kernel"}, "/no/such/kernel"},
        {{"--vmm", "/no/such/vmm"}, "/no/such/vmm"},
        {{"--vmm", "/bin/false"}, jailed() ? "the jail: --vmm: \"" : "ended before it listened"},
        {{"--memory", "999999999"}, "mem_size_mib"},
        {{"--timeout", "0"}, "--timeout \"0\": expected seconds above 0"},
        {{"--timeout", "5x"}, "--timeout \"5x\": expected"},
        {{"--timeout", "18446744073709551615h"}, "--timeout \"18446744073709551615h\": expected"},
        {{"--console", "/no/such/console"}, "/no/such/console"},
        {{"--json=/no/such/json"}, "--json=/no/such/json"},
        {{"--timeline=/no/such/svg"}, "--timeline=/no/such/svg"},
        {{"--initrd", file}, says},
        {{"--kernel", file}, says},
        {{"--rootfs", "/etc"}, "\"/etc\" is a directory"},
        {{"--vsock", "/etc/passwd"}, "exists and is not a socket"},
    };

    (void)state;
    assert_true(fd >= 0);
    snprintf(says, sizeof(says), "\"%s\" is empty", file);
    for (size_t i = 0; i < array_length(failures); i++) {
        const struct how how = {.stdin_null = true, .options = failures[i].options};
        struct run *run = start(&how, COMMAND("exit", "0"));

        expect_code(run, 125);
        if (strstr(errors_of(run), failures[i].says) == NULL)
            fail_run(failures[i].says);
        if (strchr(errors_of(run), '\n') != errors_of(run) + run->errors_length - 1)
            fail_run("it took more than a line to say so");
        teardown(NULL);
    }
    unlink(file);
}

static void test_wrong_options_are_told_in_json_wherever_that_is_asked_for(void **state)
{
    static const char says[] = "mayfly: --vcpus \"0\": expected 1 to 32\n{\"exit_code\":125,\"error\":\"--vcpus ";
    const char *const options[][4] = {{"--json", "--vcpus", "0"}, {"--vcpus", "0", "--json"}};

    (void)state;
    for (size_t i = 0; i < array_length(options); i++) {
        struct run *run = start(&(struct how){.stdin_null = true, .options = options[i]}, COMMAND("exit", "0"));

        expect_code(run, 125);
        if (strncmp(errors_of(run), says, strlen(says)) != 0)
            fail_run(says);
        teardown(NULL);
    }
}

static void test_answer_that_cannot_be_written_is_no_success(void **state)
{
    static const char *const commands[][3] = {{"version"}, {"help"}, {"run", "--help"}, {"gc", "--json", "--dry-run"}};

    (void)state;
    for (size_t i = 0; i < array_length(commands); i++) {
        int status;
        pid_t pid = fork();

        if (pid == 0) {
            dup2(open("/dev/full", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
            dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
            execl(mayfly(), "mayfly", commands[i][0], commands[i][1], commands[i][2], NULL);
            _exit(99);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 125);
    }
}

/* In the child: `mayfly connect` to the socket at `path`; its exit code is that of the process. */
static pid_t start_connect(const char *path, int errors)
{
    pid_t pid = fork();

    if (pid == 0) {
        dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
        dup2(errors, STDERR_FILENO);
        execl(mayfly(), "mayfly", "connect", path, "52", NULL);
        _exit(99);
    }
    return pid;
}

static void test_socket_that_is_no_guests_is_told(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), peer = -1;
    char asked[32] = "", said[256] = "";
    int errors[2], status;

    (void)state;
    strcpy(current.directory, "/tmp/mayfly-test-XXXXXX");
    assert_non_null(mkdtemp(current.directory));
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", current.directory);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(pipe2(errors, O_CLOEXEC), 0);

    pid_t pid = start_connect(address.sun_path, errors[1]);
    close(errors[1]);
    struct pollfd comes = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&comes, 1, MACHINE_PATIENCE_MS), 1);
    peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(read(peer, asked, sizeof(asked) - 1) > 0);
    assert_string_equal(asked, "CONNECT 52\n");
    assert_int_equal(write(peer, "220 mail\n", 9), 9);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 125);
    assert_true(read(errors[0], said, sizeof(said) - 1) > 0);
    close(errors[0]);
    assert_non_null(strstr(said, "does not answer as a guest's socket"));
    unlink(address.sun_path);
}

static pid_t first_child(pid_t of)
{
    char path[64], text[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", of, of);
    cleanup_fd int children = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(children >= 0 && read(children, text, sizeof(text) - 1) > 0);
    assert_true(atoi(text) > 1);
    return atoi(text);
}

/* An orphan's end is not ours to wait for; it may be a zombie of somebody who takes his time. */
static void await_orphan(pid_t pid)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;

    for (;;) {
        char path[64], stat[512] = "";
        cleanup_fd int fd = -1;

        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, stat, sizeof(stat) - 1) <= 0 || strstr(stat, ") Z ") != NULL ||
            strstr(stat, ") X ") != NULL)
            return;
        assert_true(clock_monotonic_us() < until);
        sched_yield();
    }
}

static int collect_garbage(const struct run *run)
{
    char jails[64];
    int status;
    pid_t pid;

    snprintf(jails, sizeof(jails), "%s/jails", run->directory);
    pid = fork();
    if (pid == 0) {
        setenv("TMPDIR", run->directory, 1);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        execl(mayfly(), "mayfly", "gc", "--base", jails, NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Somebody kills mayfly itself: the VMM must go with it, and `mayfly gc` finds what nobody could remove. */
static void test_killed_mayfly_leaves_no_vmm(void **state)
{
    struct run *run = start(&usual, COMMAND("deaf"));
    pid_t vmm_pid;

    (void)state;
    await(run, "waiting\n");
    vmm_pid = first_child(run->pid);
    if (jailed())
        vmm_pid = first_child(vmm_pid);
    kill(run->pid, SIGKILL);
    waitpid(run->pid, NULL, 0);
    await_orphan(vmm_pid);
    /* Its threads hold on to its locks a little longer. */
    for (uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull; something_left(run);) {
        assert_true(clock_monotonic_us() < until);
        assert_int_equal(collect_garbage(run), 0);
    }
    run->pid = 0;
}

/* The VMM, and the jailer that waits for it, can be killed at any moment, too. */
static void test_killed_vmm_is_told_and_leaves_nothing(void **state)
{
    for (int jailer = 0; jailer < (jailed() ? 2 : 1); jailer++) {
        struct run *run = start(&usual, COMMAND("deaf"));
        pid_t pid;

        await(run, "waiting\n");
        pid = first_child(run->pid);
        kill(jailed() && jailer == 0 ? first_child(pid) : pid, SIGKILL);
        expect_code(run, 125);
        if (strstr(errors_of(run), "mayfly-vmm was killed by signal 9") == NULL)
            fail_run("it does not say what happened");
        teardown(state);
    }
}

/* One that ends with the VMM is nothing to tell of. */
static void test_virtiofsd_that_is_killed_is_told_and_followed_by_another(void **state)
{
    static const char *const options[] = {"--mount", "/tmp:/data", NULL};
    static const struct how mounts = {.options = options, .merged = true};

    (void)state;
    if (access("/usr/lib/qemu/virtiofsd", X_OK) != 0 || geteuid() != 0) {
        print_message("skipped: takes root, and /usr/lib/qemu/virtiofsd\n");
        skip();
    }
    struct run *run = start(&mounts, COMMAND("cat"));
    assert_int_equal(write(run->in, "first\n", 6), 6);
    await(run, "first\n");
    pid_t server = first_child(run->pid);
    kill(server, SIGKILL);
    await(run, "--mount /tmp: its virtiofsd was killed by signal 9\n");
    await(run, "umount /data; mount -t virtiofs mount0 /data\n");
    fd_close(&run->in);
    expect_code(run, 0);
    teardown(state);

    run = start(&mounts, COMMAND("vanish"));
    expect_code(run, 125);
    assert_null(strstr(output_of(run), "virtiofsd"));
}

TEST_MAIN(cli_test(test_guest_that_dies_is_125_with_its_last_words),
          cli_test(test_guest_that_fails_before_its_init_is_up_sends_the_user_to_the_doctor),
          cli_test(test_guest_whose_init_says_nothing_is_told_of_and_waited_for),
          cli_test(test_guest_of_another_protocol_is_refused_with_both_versions),
          cli_test(test_guest_that_hangs_can_be_interrupted), cli_test(test_guest_that_hangs_has_its_time),
          cli_test(test_command_has_its_time), cli_test(test_time_that_is_not_up_changes_nothing),
          cli_test(test_failures_before_the_start_name_the_thing),
          cli_test(test_wrong_options_are_told_in_json_wherever_that_is_asked_for),
          cli_test(test_answer_that_cannot_be_written_is_no_success), cli_test(test_socket_that_is_no_guests_is_told),
          cli_test(test_killed_mayfly_leaves_no_vmm), cli_test(test_killed_vmm_is_told_and_leaves_nothing),
          cli_test(test_virtiofsd_that_is_killed_is_told_and_followed_by_another))
