/* The virtio-console: ports to sockets and files. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/client/connect.h"
#include "vmm/base/clock.h"

static struct vm *start_console(const char *cmdline)
{
    struct vm *vm = vm_start();

    vm_put(vm, "/mayfly/console",
           "{\"ports\":[{\"name\":\"log\",\"output_path\":\"%s\"},{\"name\":\"echo\",\"socket_path\":\"%s\"}]}",
           vm_path(vm, "port-log"), vm_path(vm, "port-echo"));
    vm_boot(vm, "console", cmdline);
    return vm;
}

static int connect_port(struct vm *vm)
{
    int fd;

    assert_no_error(socket_connect_when_ready(vm_path(vm, "port-echo"), vm->process_fd,
                                              clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull, &fd));
    return fd;
}

static void read_exactly(struct vm *vm, int fd, char *to, size_t length)
{
    for (size_t at = 0; at < length;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t got;

        if (poll(&wait, 1, MACHINE_PATIENCE_MS) <= 0)
            vm_fail(vm, "%zu of %zu bytes came back", at, length);
        got = read(fd, to + at, length - at);
        if (got <= 0)
            vm_fail(vm, "the port closed after %zu of %zu bytes", at, length);
        at += (size_t)got;
    }
}

static void test_bytes_go_to_the_guest_and_back(void **state)
{
    struct vm *vm = start_console("log");
    cleanup_fd int fd = connect_port(vm);
    cleanup_fd int log = -1;
    char bytes[64];

    (void)state;
    vm_expect(vm, "port log\nport echo\n");
    vm_expect(vm, "peer came\n");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(write(fd, "hello", 5), 5);
        read_exactly(vm, fd, bytes, 5);
        assert_memory_equal(bytes, "hello", 5);
    }
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    vm_expect(vm, "peer went after 64\n");
    vm_expect_exit(vm, 0);
    log = open(vm_path(vm, "port-log"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(log, bytes, sizeof(bytes)), 11);
    assert_memory_equal(bytes, "to the log\n", 11);
}

/* What the peer wrote before it hung up arrives whole, also when the guest opens the port later. */
static void test_bytes_of_a_peer_that_left_arrive(void **state)
{
    struct vm *vm = start_console("late");
    int fd = connect_port(vm);

    (void)state;
    vm_expect(vm, "peer came\n");
    assert_int_equal(write(fd, "left behind", 11), 11);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    vm_say(vm, "\n");
    vm_expect(vm, "peer went after b\n");
    vm_expect_exit(vm, 0);
    close(fd);
}

/* The peer does not read: the guest's queue fills and waits, the VMM does not spin, nothing is lost. */
static void test_slow_peer_loses_nothing(void **state)
{
    enum { LENGTH = 512 * 1024 };
    struct vm *vm = start_console(NULL);
    cleanup_fd int fd = connect_port(vm);
    cleanup_free char *sent = malloc(LENGTH);
    cleanup_free char *received = malloc(LENGTH);
    size_t written = 0;

    (void)state;
    for (size_t i = 0; i < LENGTH; i++)
        sent[i] = (char)(i * 7 + i / 251);
    vm_expect(vm, "peer came\n");
    /* Until both directions are full. */
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        ssize_t got;

        if (poll(&wait, 1, 200) <= 0)
            break;
        got = send(fd, sent + written, LENGTH - written, MSG_DONTWAIT);
        if (got > 0)
            written += (size_t)got;
        if (written == LENGTH)
            break;
    }
    free(vm_get(vm, "/"));
    for (size_t at = 0; at < LENGTH;) {
        size_t piece = LENGTH - at < 4096 ? LENGTH - at : 4096;

        while (written < LENGTH) {
            ssize_t got = send(fd, sent + written, LENGTH - written, MSG_DONTWAIT);

            if (got <= 0)
                break;
            written += (size_t)got;
        }
        if (written - at < piece)
            piece = written - at;
        read_exactly(vm, fd, received + at, piece);
        at += piece;
    }
    assert_memory_equal(received, sent, LENGTH);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    vm_expect(vm, "peer went after 80000\n");
    vm_expect_exit(vm, 0);
}

static void test_peer_that_hangs_up_at_once_harms_nobody(void **state)
{
    struct vm *vm = start_console(NULL);
    int fd = connect_port(vm);

    (void)state;
    vm_expect(vm, "peer came\n");
    assert_int_equal(write(fd, "gone", 4), 4);
    close(fd);
    vm_expect(vm, "peer went after ");
    vm_expect_exit(vm, 0);
}

/* What a guest makes of it: tests/linux/test_console. */
static void test_terminal_changes_its_size_while_the_guest_runs(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "PATCH", "/mayfly/console", "{\"name\":\"echo\",\"unplugged\":true}", "console");
    vm_put(vm, "/mayfly/console", "{\"ports\":[{\"name\":\"echo\",\"socket_path\":\"%s\",\"console\":true}]}",
           vm_path(vm, "port-echo"));
    vm_boot(vm, "console", NULL);
    cleanup_fd int fd = connect_port(vm);
    vm_expect(vm, "peer came\n");
    vm_patch(vm, "/mayfly/console", "{\"name\":\"echo\",\"columns\":132,\"rows\":43}");
    vm_refuses(vm, "PATCH", "/mayfly/console", "{\"name\":\"none\",\"unplugged\":true}", "none");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    vm_expect(vm, "peer went after 0\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_terminal_changes_its_size_while_the_guest_runs),
          machine_test(test_bytes_go_to_the_guest_and_back), machine_test(test_bytes_of_a_peer_that_left_arrive),
          machine_test(test_slow_peer_loses_nothing), machine_test(test_peer_that_hangs_up_at_once_harms_nobody))
