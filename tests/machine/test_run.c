/*
 * `mayfly run` end to end, on a guest that speaks the protocol of the guest's init without being Linux
 * (tests/guest/fake_init.c: its commands are listed there).
 */
#include "tests/machine/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

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

static const char *build_path(const char *rest, char path[256])
{
    const char *build = getenv("MAYFLY_BUILD");

    snprintf(path, 256, "%s/%s", build != NULL ? build : "build", rest);
    return path;
}

static const char *vmm(void)
{
    static char path[256];
    const char *named = getenv("MAYFLY_VMM");

    return named != NULL ? named : build_path("release/mayfly-vmm", path);
}

static void child(const char *path, char **arguments, const struct how *how, const int in[2], const int out[2],
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

/* A VMM that is linked dynamically (for the sanitizers) cannot run in an empty root. */
static bool jailed(void)
{
    char path[256];

    return strcmp(vmm(), build_path("release/mayfly-vmm", path)) == 0;
}

/* Starts `mayfly run OPTIONS -- COMMAND...`. */
static struct run *start(const struct how *how, const char *const *command)
{
    char path[256];
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
    build_path("release/mayfly", path);
    current.pid = fork();
    if (current.pid == 0)
        child(path, arguments, how, in, out, err);
    assert_true(current.pid > 0);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    current.in = in[1];
    current.out = out[0];
    current.err = err[0];
    return &current;
}

static void take(int *fd, char **text, size_t *length)
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

static void fail_run(const char *why)
{
    print_error("--- stdout: %.2000s\n--- stderr: %.4000s\n", current.output != NULL ? current.output : "",
                current.errors != NULL ? current.errors : "");
    fail_msg("%s", why);
}

/* Reads both outputs until stdout contains `text`, or, with NULL, until both have ended. */
static void await(struct run *run, const char *text)
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

/* Of the jail only the folder that all jails are in may be left. */
static bool something_left(const struct run *run)
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
static void expect_code(struct run *run, int code)
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

static const char *output_of(const struct run *run)
{
    return run->output != NULL ? run->output : "";
}

static const char *errors_of(const struct run *run)
{
    return run->errors != NULL ? run->errors : "";
}

static int teardown(void **state)
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

static void test_output_and_exit_code_are_the_commands(void **state)
{
    struct run *run = start(&usual, COMMAND("echo", "a b", "", "c"));

    (void)state;
    expect_code(run, 0);
    assert_string_equal(output_of(run), "a b  c\n");
    assert_string_equal(errors_of(run), "");
}

static void test_stderr_comes_apart(void **state)
{
    struct run *run = start(&usual, COMMAND("warn", "careful"));

    (void)state;
    expect_code(run, 0);
    assert_string_equal(output_of(run), "");
    assert_string_equal(errors_of(run), "careful\n");
}

static void test_exit_codes_and_signals_are_passed_on(void **state)
{
    static const struct {
        const char *command, *number;
        int code;
    } ends[] = {{"exit", "0", 0}, {"exit", "42", 42}, {"exit", "255", 255}, {"kill", "9", 137}, {"kill", "15", 143}};

    (void)state;
    for (size_t i = 0; i < array_length(ends); i++) {
        expect_code(start(&usual, COMMAND(ends[i].command, ends[i].number)), ends[i].code);
        teardown(NULL);
    }
}

static void test_command_that_is_not_found_is_127_with_the_guests_words(void **state)
{
    struct run *run = start(&usual, COMMAND("missing"));

    (void)state;
    expect_code(run, 127);
    assert_string_equal(errors_of(run), "mayfly: no-such-command: not found in PATH\n");
}

static void test_environment_directory_and_host_name_arrive(void **state)
{
    const struct how how = {.stdin_null = true,
                            .options = COMMAND("--env", "A=1", "--env", "B=two words", "--cwd", "/tmp", "--hostname",
                                               "box", "--memory", "64M", "--vcpus", "2")};
    struct run *run = start(&how, COMMAND("env"));

    (void)state;
    expect_code(run, 0);
    assert_string_equal(output_of(run), "/tmp\nbox\nA=1\nB=two words\nno stdin\n");
}

static void test_input_arrives_and_ends(void **state)
{
    struct run *run = start(&(struct how){0}, COMMAND("cat"));

    (void)state;
    assert_int_equal(write(run->in, "first\n", 6), 6);
    await(run, "first\n");
    assert_int_equal(write(run->in, "second\n", 7), 7);
    await(run, "second\n");
    fd_close(&run->in);
    expect_code(run, 0);
    assert_string_equal(output_of(run), "first\nsecond\n");
}

static void test_closed_stdin_is_none(void **state)
{
    struct run *run = start(&(struct how){.stdin_closed = true}, COMMAND("env"));

    (void)state;
    expect_code(run, 0);
    assert_non_null(strstr(output_of(run), "no stdin\n"));
}

static void test_command_that_ends_does_not_wait_for_input(void **state)
{
    struct run *run = start(&(struct how){0}, COMMAND("exit", "3"));

    (void)state;
    expect_code(run, 3);
}

static void test_much_output_is_intact_for_a_slow_reader(void **state)
{
    enum { PAGES = 300 };
    struct run *run = start(&usual, COMMAND("big", "300"));

    (void)state;
    assert_true(fcntl(run->out, F_SETPIPE_SZ, 4096) >= 4096);
    expect_code(run, 0);
    assert_int_equal(run->output_length, PAGES * 4096);
    for (size_t page = 0; page < PAGES; page++) {
        assert_int_equal(run->output[page * 4096], 'a' + page % 26);
        assert_int_equal(run->output[page * 4096 + 7], 'a' + page % 26);
        assert_int_equal(run->output[page * 4096 + 4095], '.');
    }
}

static void test_reader_that_goes_away_ends_the_command(void **state)
{
    struct run *run = start(&usual, COMMAND("until_signal"));

    (void)state;
    await(run, "more and more\n");
    fd_close(&run->out);
    expect_code(run, 128 + SIGPIPE);
}

static void test_signals_are_passed_on(void **state)
{
    static const struct {
        int signal;
        const char *name;
    } signals[] = {{SIGTERM, "TERM\n"}, {SIGINT, "INT\n"}};

    (void)state;
    for (size_t i = 0; i < array_length(signals); i++) {
        struct run *run = start(&usual, COMMAND("wait"));

        await(run, "waiting\n");
        kill(run->pid, signals[i].signal);
        expect_code(run, 128 + signals[i].signal);
        assert_non_null(strstr(output_of(run), signals[i].name));
        teardown(NULL);
    }
}

static void test_second_signal_ends_a_command_that_ignores_the_first(void **state)
{
    struct run *run = start(&usual, COMMAND("deaf"));

    (void)state;
    await(run, "waiting\n");
    kill(run->pid, SIGINT);
    await(run, "ignored\n");
    kill(run->pid, SIGINT);
    expect_code(run, 128 + SIGINT);
}

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
        {{"--vmm", "/bin/false"}, jailed() ? "is dynamically linked" : "ended before it listened"},
        {{"--memory", "999999999"}, "mem_size_mib"},
        {{"--console", "/no/such/console"}, "/no/such/console"},
        {{"--json=/no/such/json"}, "--json=/no/such/json"},
        {{"--timeline=/no/such/svg"}, "--timeline=/no/such/svg"},
        {{"--initrd", file}, says},
        {{"--kernel", file}, says},
        {{"--rootfs", "/etc"}, "\"/etc\" is a directory"},
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

static void test_console_output_goes_to_its_file(void **state)
{
    char path[] = "/tmp/mayfly-test-console-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    const struct how how = {.stdin_null = true, .options = COMMAND("--console", path)};
    struct run *run = start(&how, COMMAND("panic"));
    char text[256] = "";

    (void)state;
    expect_code(run, 125);
    unlink(path);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "Kernel panic - not syncing: a test\n");
}

static void test_json_tells_code_and_stages(void **state)
{
    static const struct {
        const char *command;
        int code;
        size_t stages;
    } runs[] = {{"exit", 7, 9}, {"panic", 125, 7}};

    (void)state;
    for (size_t i = 0; i < array_length(runs); i++) {
        const struct how how = {.stdin_null = true, .options = COMMAND("--json")};
        struct run *run = start(&how, COMMAND(runs[i].command, "7"));
        const char *line;
        yajl_val tree;

        expect_code(run, runs[i].code);
        line = strstr(errors_of(run), "{\"exit_code\"");
        assert_non_null(line);
        tree = yajl_tree_parse(line, NULL, 0);
        assert_non_null(tree);
        assert_int_equal(YAJL_GET_INTEGER(yajl_tree_get(tree, (const char *[]){"exit_code", NULL}, yajl_t_number)),
                         runs[i].code);
        assert_int_equal(yajl_tree_get(tree, (const char *[]){"timeline", NULL}, yajl_t_array)->u.array.len,
                         runs[i].stages - (jailed() ? 0 : 1));
        assert_true((yajl_tree_get(tree, (const char *[]){"error", NULL}, yajl_t_string) != NULL) ==
                    (runs[i].code == 125));
        yajl_tree_free(tree);
        teardown(NULL);
    }
}

static void test_timeline_is_drawn_where_asked(void **state)
{
    char path[] = "/tmp/mayfly-test-timeline-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    char option[80], text[64] = "";
    const struct how how = {.stdin_null = true, .options = COMMAND(option)};

    (void)state;
    snprintf(option, sizeof(option), "--timeline=%s", path);
    expect_code(start(&how, COMMAND("exit", "0")), 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_memory_equal(text, "<svg ", 5);
    unlink(path);
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
    char path[256], jails[64];
    int status;
    pid_t pid;

    build_path("release/mayfly", path);
    snprintf(jails, sizeof(jails), "%s/jails", run->directory);
    pid = fork();
    if (pid == 0) {
        setenv("TMPDIR", run->directory, 1);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        execl(path, "mayfly", "gc", "--base", jails, NULL);
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

TEST_MAIN(cli_test(test_output_and_exit_code_are_the_commands), cli_test(test_stderr_comes_apart),
          cli_test(test_exit_codes_and_signals_are_passed_on),
          cli_test(test_command_that_is_not_found_is_127_with_the_guests_words),
          cli_test(test_environment_directory_and_host_name_arrive), cli_test(test_input_arrives_and_ends),
          cli_test(test_closed_stdin_is_none), cli_test(test_command_that_ends_does_not_wait_for_input),
          cli_test(test_much_output_is_intact_for_a_slow_reader), cli_test(test_reader_that_goes_away_ends_the_command),
          cli_test(test_signals_are_passed_on), cli_test(test_second_signal_ends_a_command_that_ignores_the_first),
          cli_test(test_guest_that_dies_is_125_with_its_last_words),
          cli_test(test_guest_of_another_protocol_is_refused_with_both_versions),
          cli_test(test_guest_that_hangs_can_be_interrupted), cli_test(test_failures_before_the_start_name_the_thing),
          cli_test(test_console_output_goes_to_its_file), cli_test(test_json_tells_code_and_stages),
          cli_test(test_timeline_is_drawn_where_asked), cli_test(test_killed_mayfly_leaves_no_vmm),
          cli_test(test_killed_vmm_is_told_and_leaves_nothing),
          cli_test(test_virtiofsd_that_is_killed_is_told_and_followed_by_another))
