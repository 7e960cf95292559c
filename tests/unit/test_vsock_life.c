/* How long vsock connections live, and what they may be taken for. */
#include "tests/unit/vsock_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/virtio/vsock.h"

static struct vsock *inside(void)
{
    return container_of(vsock.driver.device, struct vsock, device);
}

static void pause_device(bool paused)
{
    struct virtio_device *device = vsock.driver.device;

    device->paused = paused;
    (paused ? virtio_device_pause : device->ops->resume)(device);
}

/* --- One connection for another --- */

/* More ports are asked for than the table has places. */
static void test_connection_is_found_by_both_of_its_ports_only(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_non_null(vsock_connection_find(inside(), 1000, PORT));
    for (uint32_t other = 1; other < 32 * VSOCK_BUCKETS; other++) {
        assert_null(vsock_connection_find(inside(), 1000, PORT + other));
        assert_null(vsock_connection_find(inside(), 1000 + other, PORT));
    }
    SAY_TEXT(1000, PORT + 1, "astray");
    EXPECT(RST, 1000);
    SAY_TEXT(1001, PORT, "astray");
    EXPECT(RST, 1001);
    host_expect_nothing(fd);
}

static void test_host_port_whose_path_is_cut_off_is_not_taken_for_another(void **state)
{
    char path[108];
    const char *uds_path = inside()->uds_path;
    struct unix_socket_file file;
    int listener;

    (void)state;
    give();
    int length = snprintf(path, sizeof(path), "%s/%0*d_52", vsock.folder, 103 - (int)strlen(vsock.folder), 0);
    assert_int_equal(length, sizeof(path) - 1);
    assert_no_error(unix_socket_listen(path, SOCK_STREAM, 8, &listener, &file));
    path[sizeof(path) - 4] = '\0';
    inside()->uds_path = path;
    SAY(1000, 520, REQUEST);
    EXPECT(RST, 1000);
    SAY(1000, 52, REQUEST);
    EXPECT(RESPONSE, 1000);
    inside()->uds_path = uds_path;
    close(listener);
    path[sizeof(path) - 4] = '_';
    assert_int_equal(unlink(path), 0);
}

static void test_request_for_ports_that_are_connected_ends_their_connection(void **state)
{
    int listener;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    listener = host_listen(&vsock, PORT, SOCK_STREAM);
    SAY(1000, PORT, REQUEST);
    EXPECT(RST, 1000);
    host_expect(fd, "");
    vsock_driver_expect_silence(&vsock);
    assert_int_equal(accept(listener, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
    close(listener);
    host_forget(&vsock, PORT);
}

/* Of the one before nothing is left then, not even what the guest has yet to be told of it. */
static void test_connection_that_ended_makes_room_for_the_next_one(void **state)
{
    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    fd_close(&fd);
    vsock_driver_settle(&vsock);
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    EXPECT(SHUTDOWN, 1000);
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    SAY_TEXT(1000, PORT, "was on its way");
    vsock_driver_expect_silence(&vsock);
    fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_int_equal(inside()->connection_count, 1);

    /* No buffer is there for its RST. */
    vsock_driver_say(&vsock, 1000, PORT, 77, 0, NULL, 0);
    host_expect(fd, "");
    fd_close(&fd);
    int listener = host_listen(&vsock, PORT, SOCK_STREAM);
    SAY(1000, PORT, REQUEST);
    give();
    EXPECT(RESPONSE, 1000);
    vsock_driver_expect_silence(&vsock);
    assert_int_equal(inside()->connection_count, 1);
    close(listener);
    host_forget(&vsock, PORT);
}

/* --- Who waits for what --- */

static void test_guest_that_answered_is_not_waited_for(void **state)
{
    uint32_t host_port;

    (void)state;
    give();
    cleanup_fd int fd = host_come(&vsock, PORT, &host_port);
    assert_true(list_is_empty(&inside()->expiring));
    vsock_connections_expire(inside());
    assert_null(inside()->patience.loop);
    host_expect_nothing(fd);
}

/* Its peer has had its line. */
static void test_second_answer_ends_the_connection(void **state)
{
    uint32_t host_port;

    (void)state;
    give();
    cleanup_fd int fd = host_come(&vsock, PORT, &host_port);
    SAY(PORT, host_port, RESPONSE);
    EXPECT(RST, PORT);
    host_expect(fd, "");
}

/* The time of a pause is added to what the guest has, and nothing ends meanwhile. */
static void test_patience_rests_in_a_pause(void **state)
{
    cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);
    struct vsock_connection *connection;

    (void)state;
    give();
    host_say(fd, "CONNECT 5\n");
    vsock_driver_settle(&vsock);
    EXPECT(REQUEST, 5);
    connection = list_first(&inside()->expiring, struct vsock_connection, waiting);
    assert_non_null(inside()->patience.loop);

    uint64_t before_us = clock_monotonic_us(), deadline_us = connection->deadline_us;
    pause_device(true);
    assert_null(inside()->patience.loop);
    uint64_t paused_us = clock_monotonic_us();
    while (clock_monotonic_us() == paused_us)
        ;
    pause_device(false);
    assert_non_null(inside()->patience.loop);
    assert_in_range(connection->deadline_us, deadline_us + 1, deadline_us + clock_monotonic_us() - before_us);

    /* As if it had been over long ago. */
    pause_device(true);
    inside()->paused_us = clock_monotonic_us();
    connection->deadline_us = 0;
    pause_device(false);
    vsock_driver_settle(&vsock);
    EXPECT(RST, 5);
    host_expect(fd, "");
}

static void test_full_backlog_is_tried_again_and_again(void **state)
{
    cleanup_fd int listener = host_listen(&vsock, PORT, SOCK_STREAM);

    (void)state;
    assert_true(listener >= 0);
    give();
    for (uint32_t port = 1000; port < 1002; port++) {
        SAY(port, PORT, REQUEST);
        EXPECT(RESPONSE, port);
    }
    SAY(1002, PORT, REQUEST);
    for (int i = 0; i < 3; i++) {
        assert_non_null(inside()->retry.loop);
        event_timer_cancel(&inside()->retry);
        inside()->retry.expired(&inside()->retry);
    }
    host_forget(&vsock, PORT);
}

/* The guest is not refused on resume for what its host was too busy for before. */
static void test_wait_for_a_full_backlog_rests_in_a_pause(void **state)
{
    enum { HOUR_US = 3600 * 1000000u };
    cleanup_fd int listener = host_listen(&vsock, PORT, SOCK_STREAM);
    struct vsock_connection *connection;
    int fds[3];

    (void)state;
    give();
    for (uint32_t port = 1000; port < 1002; port++) {
        SAY(port, PORT, REQUEST);
        EXPECT(RESPONSE, port);
    }
    SAY(1002, PORT, REQUEST);
    connection = list_first(&inside()->connecting, struct vsock_connection, waiting);

    uint64_t deadline_us = connection->deadline_us;
    pause_device(true);
    assert_null(inside()->retry.loop);
    inside()->paused_us -= HOUR_US;
    for (size_t i = 0; i < 2; i++)
        fds[i] = host_accept(listener);
    pause_device(false);
    assert_true(connection->deadline_us >= deadline_us + HOUR_US);
    vsock_driver_settle(&vsock);
    EXPECT(RESPONSE, 1002);
    fds[2] = host_accept(listener);
    for (size_t i = 0; i < array_length(fds); i++)
        close(fds[i]);
    host_forget(&vsock, PORT);
}

TEST_MAIN(vsock_test(test_connection_is_found_by_both_of_its_ports_only),
          vsock_test(test_host_port_whose_path_is_cut_off_is_not_taken_for_another),
          vsock_test(test_request_for_ports_that_are_connected_ends_their_connection),
          vsock_test(test_connection_that_ended_makes_room_for_the_next_one),
          vsock_test(test_guest_that_answered_is_not_waited_for), vsock_test(test_second_answer_ends_the_connection),
          vsock_test(test_patience_rests_in_a_pause), vsock_test(test_full_backlog_is_tried_again_and_again),
          vsock_test(test_wait_for_a_full_backlog_rests_in_a_pause))
