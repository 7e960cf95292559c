/* When `mayfly run --publish` lets passt serve: the one here is a script. */
#include "tests/machine/run_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/mayfly-test-XXXXXX";
static char *path_before;

static const char *file(const char *name)
{
    static char path[64];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

/*
 * A passt that is first on PATH. It has bound its ports by the time that "bound" has its pid; says so as the real one
 * does, by --pid; does what is `then` to be done; and serves until the VMM ends.
 */
static void install(const char *then)
{
    char path[4096];

    strcpy(directory + strlen(directory) - 6, "XXXXXX");
    assert_non_null(mkdtemp(directory));
    FILE *script = fopen(file("passt"), "w");
    assert_non_null(script);
    fprintf(script,
            "#!/bin/sh\n"
            "while [ \"$1\" != --pid ]; do shift; done\n"
            "echo $$ >%s/bound\n"
            "%s\n"
            "echo $$ >$2\n"
            "echo >%s/serves\n"
            "exec cat <&3 >/dev/null\n",
            directory, then, directory);
    assert_int_equal(fchmod(fileno(script), 0755), 0);
    fclose(script);
    path_before = strdup(getenv("PATH"));
    snprintf(path, sizeof(path), "%s:%s", directory, path_before);
    setenv("PATH", path, 1);
}

static void uninstall(void)
{
    unlink(file("passt"));
    unlink(file("bound"));
    unlink(file("serves"));
    unlink(file("late"));
    rmdir(directory);
    setenv("PATH", path_before, 1);
    free(path_before);
}

static bool exists(const char *name)
{
    return access(file(name), F_OK) == 0;
}

/* Waits until it has its ports; returns its pid. */
static pid_t await_bound(void)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;
    char text[16] = "";

    while (strchr(text, '\n') == NULL && clock_monotonic_us() < until) {
        cleanup_fd int fd = open(file("bound"), O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

        text[got > 0 ? got : 0] = '\0';
    }
    assert_non_null(strchr(text, '\n'));
    return (pid_t)strtol(text, NULL, 10);
}

/* Waits until it serves, or sleeps in write(2). */
static void await_serving_or_held(pid_t pid)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;
    char path[64], text[128];

    snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
    while (!exists("serves")) {
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

        if (fd < 0) {
            print_message("skipped: %s cannot be read\n", path);
            skip();
        }
        text[got > 0 ? got : 0] = '\0';
        if (strncmp(text, "1 ", 2) == 0)
            return;
        assert_true(clock_monotonic_us() < until);
    }
}

/* passt tells a guest of a connection once; one whose network is not up misses it. */
static void test_published_port_is_not_served_before_the_guest_is_up(void **state)
{
    const struct how how = {
        .stdin_null = true, .cmdline = "fake=hang", .options = COMMAND("--publish", "127.0.0.1:8080:80")};

    (void)state;
    install("");
    struct run *run = start(&how, COMMAND("echo", "hi"));
    pid_t passt = await_bound();
    await_serving_or_held(passt);
    assert_false(exists("serves"));
    kill(run->pid, SIGTERM);
    expect_code(run, 128 + SIGTERM);
    assert_false(exists("serves"));
    assert_int_equal(kill(passt, 0), -1);
    uninstall();
}

static void test_published_port_is_served_when_the_guest_is_up(void **state)
{
    const struct how how = {.stdin_null = true, .options = COMMAND("--publish", "127.0.0.1:8080:80", "--timeline")};

    (void)state;
    install("");
    struct run *run = start(&how, COMMAND("wait"));
    await_bound();
    await(run, "waiting");
    while (!exists("serves"))
        poll(NULL, 0, 1);
    kill(run->pid, SIGTERM);
    expect_code(run, 128 + SIGTERM);
    uninstall();
}

/* It writes its pid into a FIFO that nobody has open by then. */
static void test_command_waits_for_a_passt_that_takes_longer_than_the_guest(void **state)
{
    static const char *const networks[] = {"--net", "--publish=127.0.0.1:8080:80"};

    for (size_t i = 0; i < array_length(networks); i++) {
        const struct how how = {.stdin_null = true, .options = COMMAND(networks[i])};

        install("sleep 1; echo >${0%/*}/late");
        struct run *run = start(&how, COMMAND("echo", "hi"));
        await(run, "hi\n");
        assert_true(exists("late"));
        expect_code(run, 0);
        uninstall();
        teardown(state);
    }
}

/* Nor is a guest waited for that does not come up. */
static void test_command_does_not_run_when_its_port_cannot_be_had(void **state)
{
    static const char *const guests[] = {NULL, "fake=hang"};

    for (size_t i = 0; i < array_length(guests); i++) {
        const struct how how = {
            .stdin_null = true, .cmdline = guests[i], .options = COMMAND("--publish", "127.0.0.1:8080:80")};

        install("echo Failed to bind >&2; exit 1");
        struct run *run = start(&how, COMMAND("echo", "hi"));
        expect_code(run, 125);
        assert_string_equal(output_of(run), "");
        assert_non_null(strstr(errors_of(run), "--net: passt ended before it was ready: Failed to bind\n"));
        uninstall();
        teardown(state);
    }
}

TEST_MAIN(cli_test(test_published_port_is_not_served_before_the_guest_is_up),
          cli_test(test_published_port_is_served_when_the_guest_is_up),
          cli_test(test_command_waits_for_a_passt_that_takes_longer_than_the_guest),
          cli_test(test_command_does_not_run_when_its_port_cannot_be_had))
