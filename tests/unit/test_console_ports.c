/* The other sides of a console's ports: files, FIFOs and sockets, and configurations that cannot be. */
#include "tests/unit/console_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "vmm/virtio/devices.h"

/* Files and FIFOs. */

static void use_file(int port)
{
    ports[port].output_path = paths[port];
    ports[port].socket_path = NULL;
}

static void test_file_gets_what_the_guest_writes_at_its_end(void **state)
{
    uint8_t content[1100];
    struct stat status;
    int fd;

    (void)state;
    use_file(OUT);
    fd = open(paths[OUT], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, bytes, 100), 100);
    fd_close(&fd);
    start();
    assert_int_equal(console.messages[console.message_count - 3].event, VIRTIO_CONSOLE_PORT_OPEN);
    assert_int_equal(console.messages[console.message_count - 3].id, OUT);
    guest_writes(OUT, 100, 400);
    guest_writes(OUT, 500, 500);
    console_driver_settle(&console);
    assert_true(is_taken(OUT) && is_taken(OUT));
    fd = open(paths[OUT], O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, content, sizeof(content)), 1000);
    assert_memory_equal(content, bytes, 1000);
    assert_int_equal(fstat(fd, &status), 0);
    fd_close(&fd);
}

static void test_full_disk_drops_output_and_counts_it(void **state)
{
    (void)state;
    use_file(OUT);
    ports[OUT].output_path = (char *)"/dev/full";
    start();
    guest_writes(OUT, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 1000);
}

static void test_file_takes_no_more_than_it_may(void **state)
{
    const uint32_t max = 1 << 20;
    struct stat status;

    (void)state;
    use_file(OUT);
    ports[OUT].output_max_mib = 1;
    start();
    guest_writes(OUT, 0, max - 100);
    console_driver_settle(&console);
    guest_writes(OUT, max - 400, 300);
    console_driver_settle(&console);
    assert_int_equal(metrics.console.dropped_bytes, 200);
    guest_writes(OUT, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(OUT) && is_taken(OUT) && is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 1200);
    assert_int_equal(metrics.console.tx_bytes, max);
    assert_int_equal(stat(paths[OUT], &status), 0);
    assert_int_equal(status.st_size, max);
}

static void test_fifo_drops_while_nobody_reads_and_waits_for_a_slow_reader(void **state)
{
    struct reading reading = {0};

    (void)state;
    use_file(OUT);
    assert_int_equal(mkfifo(paths[OUT], 0600), 0);
    start();
    guest_writes(OUT, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 1000);

    cleanup_fd int reader = open(paths[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    for (size_t i = 0; i < 4; i++)
        guest_writes(OUT, i * sizeof(bytes) / 4, sizeof(bytes) / 4);
    console_driver_settle(&console);
    assert_false(metrics.console.tx_bytes == sizeof(bytes));
    while (reading.done < sizeof(bytes)) {
        static uint8_t part[50000];
        ssize_t length = read(reader, part, sizeof(part));

        assert_true(length > 0);
        assert_memory_equal(part, bytes + reading.done, (size_t)length);
        reading.done += (size_t)length;
        console_driver_settle(&console);
    }
    guest_writes(OUT, 0, sizeof(bytes));
    console_driver_settle(&console);
    fd_close(&reader);
    console_driver_settle(&console); /* not polled, and what was waiting is dropped */
    for (unsigned i = 0; i < 5; i++)
        assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.tx_bytes + metrics.console.dropped_bytes, 2 * sizeof(bytes) + 1000);
}

/* Configuration. */

static void assert_refused(enum error_kind kind, const char *text)
{
    struct virtio_device *device = NULL;

    assert_error(virtio_console_new(&config, driver->loop, &device), kind, text);
    assert_null(device);
    assert_int_equal(access(paths[IN], F_OK), -1); /* nothing is left of the ports before */
}

static void test_socket_is_its_owners_alone_and_gone_at_the_end(void **state)
{
    struct stat status;

    (void)state;
    start();
    assert_int_equal(lstat(paths[IN], &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 07777, 0600);
    driver->device->ops->destroy(driver->device);
    driver->device = NULL;
    assert_int_equal(access(paths[IN], F_OK), -1);
}

static void test_file_that_is_not_ours_any_more_stays(void **state)
{
    int fd;

    (void)state;
    start();
    assert_int_equal(unlink(paths[IN]), 0);
    fd = open(paths[IN], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    fd_close(&fd);
    driver->device->ops->destroy(driver->device);
    driver->device = NULL;
    assert_int_equal(access(paths[IN], F_OK), 0);
}

static int bound_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void test_socket_left_by_the_dead_is_replaced(void **state)
{
    int fd = bound_socket(paths[OUT]);

    (void)state;
    fd_close(&fd);
    start();
    come(OUT);
}

static void test_socket_of_the_living_is_refused_and_they_notice_nothing(void **state)
{
    int fd = bound_socket(paths[OUT]);

    (void)state;
    assert_refused(ERROR_INPUT, "another process listens there");
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(accept4(fd, NULL, NULL, SOCK_CLOEXEC), -1);
    assert_int_equal(errno, EAGAIN);
    fd_close(&fd);
}

static void test_path_that_cannot_be_used_is_named(void **state)
{
    char longest[109];
    int fd = open(paths[OUT], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    fd_close(&fd);
    assert_refused(ERROR_INPUT, "ports[1].socket_path: \"");
    assert_refused(ERROR_INPUT, "exists and is not a socket");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[108] = '\0';
    ports[OUT].socket_path = longest;
    assert_refused(ERROR_INPUT, "has 108 bytes: the path of a Unix socket has 1 to 107");
    ports[OUT].socket_path = (char *)"";
    assert_refused(ERROR_INPUT, "ports[1].socket_path: \"\" has 0 bytes");
    ports[OUT].socket_path = (char *)"/no/such/folder/s";
    assert_refused(ERROR_HOST, "ports[1].socket_path: \"/no/such/folder/s\": cannot make a socket there: No such file");
    use_file(OUT);
    ports[OUT].output_path = (char *)"/no/such/folder/f";
    assert_refused(ERROR_HOST, "ports[1].output_path: \"/no/such/folder/f\": cannot open for appending: No such file");
    ports[OUT].output_path = folder;
    assert_refused(ERROR_HOST, "ports[1].output_path: \"");
}

static void test_wrong_ports_are_refused(void **state)
{
    char longest[ID_LENGTH_MAX + 2];

    (void)state;
    config.port_count = 0;
    assert_refused(ERROR_INPUT, "ports: 0 are given: expected 1 to 16");
    config.port_count = CONSOLE_PORTS_MAX + 1;
    assert_refused(ERROR_INPUT, "ports: 17 are given");
    config.port_count = PORTS;
    ports[OUT].output_path = paths[OUT];
    assert_refused(ERROR_INPUT, "ports[1]: expected either socket_path or output_path");
    ports[OUT].output_path = ports[OUT].socket_path = NULL;
    assert_refused(ERROR_INPUT, "ports[1]: expected either socket_path or output_path");
    ports[OUT].socket_path = paths[OUT];
    ports[OUT].name = ports[IN].name;
    assert_refused(ERROR_INPUT, "ports[1].name: ports[0] is called \"mayfly.in\" already");
    ports[OUT].name = (char *)"";
    assert_refused(ERROR_INPUT, "ports[1].name: \"\" has 0 bytes: expected 1 to 64");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ports[OUT].name = longest;
    assert_refused(ERROR_INPUT, "has 65 bytes: expected 1 to 64");
}

TEST_MAIN(console_test(test_file_gets_what_the_guest_writes_at_its_end),
          console_test(test_file_takes_no_more_than_it_may), console_test(test_full_disk_drops_output_and_counts_it),
          console_test(test_fifo_drops_while_nobody_reads_and_waits_for_a_slow_reader),
          console_test(test_socket_is_its_owners_alone_and_gone_at_the_end),
          console_test(test_file_that_is_not_ours_any_more_stays),
          console_test(test_socket_left_by_the_dead_is_replaced),
          console_test(test_socket_of_the_living_is_refused_and_they_notice_nothing),
          console_test(test_path_that_cannot_be_used_is_named), console_test(test_wrong_ports_are_refused))
