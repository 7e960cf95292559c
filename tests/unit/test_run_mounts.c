/* What `mayfly run --mount` does when a virtiofsd ends: the one here is a script. */
#include "tests/unit/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/cli/run_mounts.h"
#include "vmm/base/cleanup.h"

static char directory[] = "/tmp/mayfly-test-XXXXXX";
static char *path_before;

/* A directory with a "virtiofsd" that runs `script`; it is the first on PATH. */
static void install(const char *script)
{
    char program[64], path[4096];

    if (geteuid() != 0) {
        print_message("skipped: without root, what is started enters a user namespace\n");
        skip();
    }
    strcpy(directory + strlen(directory) - 6, "XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(program, sizeof(program), "%s/virtiofsd", directory);
    FILE *file = fopen(program, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", script);
    assert_int_equal(fchmod(fileno(file), 0755), 0);
    fclose(file);
    path_before = strdup(getenv("PATH"));
    snprintf(path, sizeof(path), "%s:%s", directory, path_before);
    setenv("PATH", path, 1);
}

static void uninstall(void)
{
    char program[64];

    snprintf(program, sizeof(program), "%s/virtiofsd", directory);
    unlink(program);
    rmdir(directory);
    setenv("PATH", path_before, 1);
    free(path_before);
}

static void start(struct run_mounts *mounts, struct run_options *options)
{
    *options = (struct run_options){.mount_count = 1, .mounts = {{.host = directory, .guest = (char *)"/data"}}};
    run_mounts_init(mounts);
    assert_no_error(run_mounts_start(mounts, options));
}

/* Waits until one has ended, and stores what is then said on stderr. */
static void tend(struct run_mounts *mounts, char *said, size_t size)
{
    struct pollfd ended = {.fd = mounts->ended_fd, .events = POLLIN};
    cleanup_fd int words = memfd_create("stderr", MFD_CLOEXEC), before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

    assert_int_equal(poll(&ended, 1, -1), 1);
    assert_true(words >= 0 && before >= 0 && dup2(words, STDERR_FILENO) >= 0);
    run_mounts_tend(mounts);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    ssize_t length = pread(words, said, size - 1, 0);
    assert_true(length >= 0);
    said[length] = '\0';
}

/* 0 when somebody listens at the mount's socket. */
static int connects(const struct run_mounts *mounts)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%.90s/0", mounts->directory);
    return connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
}

static void test_virtiofsd_that_is_killed_is_told_and_followed_by_another(void **state)
{
    struct run_mounts mounts;
    struct run_options options;
    char said[1024];

    (void)state;
    install("exec sleep 1000000");
    start(&mounts, &options);
    pid_t first = mounts.pids[0];
    assert_int_equal(kill(first, SIGKILL), 0);
    tend(&mounts, said, sizeof(said));
    assert_non_null(strstr(said, directory));
    assert_non_null(strstr(said, "its virtiofsd was killed by signal 9\n"));
    assert_non_null(strstr(said, "umount /data; mount -t virtiofs mount0 /data\n"));
    assert_true(mounts.pids[0] > 0 && mounts.pids[0] != first);
    assert_int_equal(connects(&mounts), 0);
    run_mounts_end(&mounts);
    uninstall();
}

static void test_virtiofsd_that_never_works_is_given_up(void **state)
{
    struct run_mounts mounts;
    struct run_options options;
    char said[1024];

    (void)state;
    install("echo it is broken >&2; exit 7");
    start(&mounts, &options);
    do {
        tend(&mounts, said, sizeof(said));
        assert_non_null(strstr(said, "its virtiofsd ended with code 7: it is broken\n"));
    } while (mounts.pids[0] > 0);
    assert_non_null(strstr(said, "there is no other virtiofsd: 10 others have ended before it\n"));
    assert_int_equal(connects(&mounts), ECONNREFUSED);
    run_mounts_end(&mounts);
    uninstall();
}

/* The real one waits for a process that serves, and ends with code 1 whichever signal kills that. */
static void test_code_behind_which_a_signal_may_be_is_told_as_such(void **state)
{
    struct run_mounts mounts;
    struct run_options options;
    char said[1024];

    (void)state;
    install("exec 2>/dev/null; sh -c 'kill -SEGV $$'; exit 1");
    start(&mounts, &options);
    tend(&mounts, said, sizeof(said));
    assert_non_null(strstr(said, "its virtiofsd ended with code 1, as it does when a signal kills the process that "
                                 "serves: a crash, perhaps\n"));
    run_mounts_end(&mounts);
    uninstall();
}

TEST_MAIN(cmocka_unit_test(test_virtiofsd_that_is_killed_is_told_and_followed_by_another),
          cmocka_unit_test(test_virtiofsd_that_never_works_is_given_up),
          cmocka_unit_test(test_code_behind_which_a_signal_may_be_is_told_as_such))
