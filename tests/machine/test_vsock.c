/* Sockets between the guest and the host. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_true(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    return address;
}

static int listen_at(const char *path, int type)
{
    const struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void wait_readable(struct vm *vm, int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    if (poll(&wait, 1, MACHINE_PATIENCE_MS) <= 0)
        vm_fail(vm, "nothing came on %d within %d ms", fd, MACHINE_PATIENCE_MS);
}

/* Reads exactly what is expected. */
static void hear(struct vm *vm, int fd, const char *expected)
{
    size_t length = strlen(expected);
    char text[256];

    assert_true(length < sizeof(text));
    for (size_t done = 0; done < length;) {
        wait_readable(vm, fd);
        ssize_t got = read(fd, text + done, length - done);
        if (got <= 0)
            vm_fail(vm, "\"%.*s\" came, expected \"%s\"", (int)done, text, expected);
        done += (size_t)got;
    }
    if (memcmp(text, expected, length) != 0)
        vm_fail(vm, "\"%.*s\" came, expected \"%s\"", (int)length, text, expected);
}

static void hear_end(struct vm *vm, int fd)
{
    char byte;

    wait_readable(vm, fd);
    assert_true(read(fd, &byte, 1) <= 0);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int come(struct vm *vm)
{
    const struct sockaddr_un address = address_of(vm_path(vm, "v.sock"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        vm_fail(vm, "cannot connect to %s: %s", address.sun_path, strerror(errno));
    return fd;
}

/* Connects to a guest port and waits until the guest has agreed. */
static int come_to(struct vm *vm, const char *request)
{
    int fd = come(vm);

    say(fd, request);
    hear(vm, fd, "OK 10737418");
    for (char byte = 0; byte != '\n';) {
        wait_readable(vm, fd);
        assert_int_equal(read(fd, &byte, 1), 1);
    }
    return fd;
}

static struct vm *start(const char *cmdline)
{
    struct vm *vm = vm_start();

    vm_put(vm, "/vsock", "{\"guest_cid\":42,\"uds_path\":\"%s\"}", vm_path(vm, "v.sock"));
    vm_boot(vm, "vsock", cmdline);
    vm_expect(vm, "cid 2a\n");
    return vm;
}

static void test_host_connects_to_the_guest_and_talks(void **state)
{
    struct vm *vm = start(NULL);
    struct stat status;

    (void)state;
    assert_int_equal(stat(vm_path(vm, "v.sock"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    cleanup_fd int one = come_to(vm, "CONNECT 52\n");
    cleanup_fd int other = come_to(vm, "connect 53\r\n");
    say(one, "one");
    say(other, "other");
    hear(vm, one, "one");
    hear(vm, other, "other");
    say(other, "x closes");
    hear(vm, other, "x closes");
    hear_end(vm, other);
    assert_int_equal(shutdown(one, SHUT_WR), 0);
    hear_end(vm, one);
    cleanup_fd int last = come_to(vm, "CONNECT 4294967295\n");
    say(last, "q");
    hear(vm, last, "q");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_guest_that_reads_no_more_stops_the_host_from_writing(void **state)
{
    struct vm *vm = start(NULL);
    cleanup_fd int fd = come_to(vm, "CONNECT 1\n");
    cleanup_fd int last = come_to(vm, "CONNECT 2\n");
    ssize_t sent;

    (void)state;
    say(fd, "r");
    hear(vm, fd, "r");
    do
        sent = send(fd, "more", 4, MSG_NOSIGNAL);
    while (sent == 4);
    assert_int_equal(errno, EPIPE);
    say(last, "q");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void guest_calls(int type, const char *cmdline)
{
    struct vm *vm = vm_start();
    cleanup_fd int listener = listen_at(vm_path(vm, "v.sock_77"), type);

    vm_put(vm, "/vsock", "{\"guest_cid\":42,\"uds_path\":\"%s\"}", vm_path(vm, "v.sock"));
    vm_boot(vm, "vsock", cmdline);
    vm_expect(vm, "connected\n");
    wait_readable(vm, listener);
    cleanup_fd int fd = accept(listener, NULL, NULL);
    hear(vm, fd, "hello");
    say(fd, "good day");
    vm_expect(vm, "good day\n");
    vm_expect(vm, "closed\n");
    hear_end(vm, fd);
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_guest_connects_to_the_host(void **state)
{
    (void)state;
    guest_calls(SOCK_STREAM, "connect=77");
}

static void test_guest_sends_messages_to_the_host(void **state)
{
    (void)state;
    guest_calls(SOCK_SEQPACKET, "connect=77 seqpacket");
}

static void test_guest_is_refused_where_nobody_listens(void **state)
{
    struct vm *vm = start("connect=78");

    (void)state;
    vm_expect(vm, "refused\n");
    vm_expect_exit(vm, 0);
}

static void test_bad_configuration_is_refused(void **state)
{
    struct vm *vm = vm_start();
    char path[120];

    (void)state;
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    vm_refuses(vm, "PUT", "/vsock", "{\"guest_cid\":2,\"uds_path\":\"/tmp/v\"}", "guest_cid");
    vm_refuses(vm, "PUT", "/vsock", "{\"guest_cid\":4294967295,\"uds_path\":\"/tmp/v\"}", "guest_cid");
    vm_refuses(vm, "PUT", "/vsock", "{\"guest_cid\":3}", "uds_path: missing");
    vm_refuses(vm, "PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/no/such/folder/v\"}", "/no/such/folder/v");
    vm_refuses(vm, "PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"\"}", "uds_path");
    char body[200];
    snprintf(body, sizeof(body), "{\"guest_cid\":3,\"uds_path\":\"%s\"}", path);
    vm_refuses(vm, "PUT", "/vsock", body, "uds_path");

    cleanup_fd int taken = listen_at(vm_path(vm, "taken"), SOCK_STREAM);
    (void)taken;
    snprintf(body, sizeof(body), "{\"guest_cid\":3,\"uds_path\":\"%s\"}", vm_path(vm, "taken"));
    vm_refuses(vm, "PUT", "/vsock", body, "another process listens there");
    snprintf(body, sizeof(body), "{\"guest_cid\":3,\"uds_path\":\"%s\"}", vm_file(vm, "file", 1, 'x'));
    vm_refuses(vm, "PUT", "/vsock", body, "not a socket");

    /* The same path again is fine: the device that has it makes room. */
    vm_put(vm, "/vsock", "{\"guest_cid\":3,\"uds_path\":\"%s\"}", vm_path(vm, "v.sock"));
    vm_put(vm, "/vsock", "{\"guest_cid\":42,\"uds_path\":\"%s\",\"vsock_id\":\"1\"}", vm_path(vm, "v.sock"));
    vm_boot(vm, "vsock", "connect=1");
    vm_expect(vm, "cid 2a\n");
    vm_expect(vm, "refused\n");
    vm_expect_exit(vm, 0);
}

static void test_connections_outlast_a_pause_and_end_with_the_driver(void **state)
{
    struct vm *vm = start("reset");
    cleanup_fd int fd = come_to(vm, "CONNECT 1\n");
    cleanup_fd int last = come_to(vm, "CONNECT 2\n");

    (void)state;
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    say(fd, "paused");
    cleanup_fd int late = come(vm);
    say(late, "CONNECT 3\n");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    hear(vm, fd, "paused");
    hear(vm, late, "OK ");
    say(last, "q");
    vm_expect(vm, "reset\n");
    hear(vm, last, "q");
    hear_end(vm, last);
    hear_end(vm, fd);
    vm_say(vm, "\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void allow_few_descriptors(void)
{
    const struct rlimit limit = {.rlim_cur = 64, .rlim_max = 64};

    setrlimit(RLIMIT_NOFILE, &limit);
}

/* A guest could do the same with a listener that takes all it asks for. */
static void test_callers_reach_the_api_when_connections_have_all_descriptors(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.before_exec = allow_few_descriptors,
                                                            .unjailed = "the jailer sets the limit itself"});
    int fds[64];

    (void)state;
    vm_put(vm, "/vsock", "{\"guest_cid\":42,\"uds_path\":\"%s\"}", vm_path(vm, "v.sock"));
    vm_boot(vm, "vsock", NULL);
    vm_expect(vm, "cid 2a\n");
    for (size_t i = 0; i < array_length(fds); i++)
        fds[i] = come(vm);
    vm_await_log(vm, "cannot accept a connection: ");
    for (int round = 0; round < 3; round++) {
        cleanup_fd int fd = vm_dial(vm);

        say(fd, "GET / HTTP/1.1\r\n\r\n");
        hear(vm, fd, "HTTP/1.1 200 ");
    }
    for (size_t i = 0; i < array_length(fds); i++)
        close(fds[i]);
}

TEST_MAIN(machine_test(test_callers_reach_the_api_when_connections_have_all_descriptors),
          machine_test(test_host_connects_to_the_guest_and_talks),
          machine_test(test_guest_that_reads_no_more_stops_the_host_from_writing),
          machine_test(test_guest_connects_to_the_host), machine_test(test_guest_sends_messages_to_the_host),
          machine_test(test_guest_is_refused_where_nobody_listens), machine_test(test_bad_configuration_is_refused),
          machine_test(test_connections_outlast_a_pause_and_end_with_the_driver))
