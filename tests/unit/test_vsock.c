/* The vsock device, with real sockets at its other side. Hostile drivers: test_vsock_hostile.c. */
#include "tests/unit/vsock_fixture.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

/* --- Configuration --- */

static void test_config_space_has_the_cid(void **state)
{
    const struct virtio_ops *ops = vsock.driver.device->ops;
    uint8_t config[16];

    (void)state;
    assert_int_equal(ops->type, VIRTIO_ID_VSOCK);
    ops->config_read(vsock.driver.device, 0, config, sizeof(config));
    assert_memory_equal(config, ((const uint8_t[16]){GUEST_CID}), sizeof(config));
}

static void test_sockets_are_for_their_owner_alone(void **state)
{
    struct stat status;

    (void)state;
    assert_int_equal(stat(vsock.path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(stat(vsock.seqpacket, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void test_bad_configuration_is_refused(void **state)
{
    struct vsock_config config = {.present = true, .guest_cid = 2, .uds_path = vsock.path};
    const struct vsock_seqpacket_config none = {0};
    struct virtio_device *device;
    char path[120];

    (void)state;
    assert_error(virtio_vsock_new(&config, &none, vsock.driver.loop, &device), ERROR_INPUT, "guest_cid: 2, expected 3");
    config.guest_cid = UINT32_MAX;
    assert_error(virtio_vsock_new(&config, &none, vsock.driver.loop, &device), ERROR_INPUT, "guest_cid: 4294967295");
    config.guest_cid = 3;
    assert_error(virtio_vsock_new(&config, &none, vsock.driver.loop, &device), ERROR_INPUT,
                 "another process listens there");
    snprintf(path, sizeof(path), "%s/x", vsock.folder);
    config.uds_path = path;
    const struct vsock_seqpacket_config taken = {.present = true, .uds_path = vsock.path};
    assert_error(virtio_vsock_new(&config, &taken, vsock.driver.loop, &device), ERROR_INPUT, "another process");
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_error(virtio_vsock_new(&config, &none, vsock.driver.loop, &device), ERROR_INPUT, "has 119 bytes");
    config.uds_path = vsock.folder;
    assert_error(virtio_vsock_new(&config, &none, vsock.driver.loop, &device), ERROR_INPUT, "not a socket");
}

/* --- Connecting --- */

static void test_host_peer_reaches_a_guest_port_and_bytes_pass_both_ways(void **state)
{
    uint32_t host_port;

    (void)state;
    give();
    cleanup_fd int fd = host_come(&vsock, PORT, &host_port);
    assert_in_range(host_port, 1u << 30, (1u << 31) - 1);
    host_say(fd, "to the guest");
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(RW, PORT).len, 12);
    assert_memory_equal(vsock.data, "to the guest", 12);
    SAY_TEXT(PORT, host_port, "to the host");
    host_expect(fd, "to the host");
    assert_int_equal(metrics.vsock.rx_bytes_count, 12);
    assert_int_equal(metrics.vsock.tx_bytes_count, 11);
    assert_int_equal(metrics.vsock.conns_added, 1);
}

static void test_what_follows_the_line_are_data(void **state)
{
    cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);

    (void)state;
    give();
    host_say(fd, "con");
    vsock_driver_settle(&vsock);
    host_say(fd, "NECT \t 7 \r\nearly");
    vsock_driver_settle(&vsock);
    uint32_t host_port = EXPECT(REQUEST, 7).src_port;
    SAY(7, host_port, RESPONSE);
    EXPECT(RW, 7);
    assert_memory_equal(vsock.data, "early", 5);
}

static void test_wrong_line_ends_the_connection(void **state)
{
    static const char *const lines[] = {"CONNECT\n",      "CONNECT x\n",
                                        "CONNECT -1\n",   "CONNECT 4294967296\n",
                                        "CONNECT 5 6\n",  "CONNECT5\n",
                                        "hello\n",        "\n",
                                        "CONTACT 5\n",    "CONNECT \t\r\n",
                                        "CONNECT 5x\n",   "XCONNECT 5\n",
                                        "CONNECT 5\0x\n", "CONNECT                                  5\n"};

    (void)state;
    give();
    for (size_t i = 0; i < array_length(lines); i++) {
        cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);

        host_say(fd, lines[i]);
        if (strchr(lines[i], '\n') == NULL)
            assert_int_equal(send(fd, "\0x\n", 3, 0), 3);
        vsock_driver_settle(&vsock);
        host_expect(fd, "");
    }
    vsock_driver_expect_silence(&vsock);
    assert_int_equal(metrics.vsock.conns_removed, array_length(lines));
}

static void test_peer_that_leaves_before_or_while_the_guest_is_asked_is_forgotten(void **state)
{
    (void)state;
    int fd = host_connect(vsock.path, SOCK_STREAM);
    host_say(fd, "CONN");
    vsock_driver_settle(&vsock);
    close(fd);
    vsock_driver_settle(&vsock);
    fd = host_connect(vsock.path, SOCK_STREAM);
    host_say(fd, "CONNECT 5\n");
    vsock_driver_settle(&vsock);
    close(fd);
    vsock_driver_settle(&vsock);
    assert_int_equal(metrics.vsock.conns_removed, 2);
    give();
    vsock_driver_expect_silence(&vsock);

    fd = host_connect(vsock.path, SOCK_STREAM);
    host_say(fd, "CONNECT 5\n");
    vsock_driver_settle(&vsock);
    EXPECT(REQUEST, 5);
    close(fd);
    vsock_driver_settle(&vsock);
    EXPECT(RST, 5);
    vsock_driver_expect_silence(&vsock);
}

/* Bytes behind the line are the guest's, as it has credit for them; and so are those that come later, and the end. */
static void test_peer_need_not_wait_for_the_answer_to_its_line(void **state)
{
    static const char *const expected[] = {"hel", "lo", " wor", "ld"};

    (void)state;
    give();
    cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);
    host_say(fd, "CONNECT 5\nhello");
    vsock_driver_settle(&vsock);
    host_say(fd, " world");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    vsock_driver_settle(&vsock);
    uint32_t host_port = EXPECT(REQUEST, 5).src_port;
    vsock_driver_expect_silence(&vsock);
    vsock.header.fwd_cnt = 0;
    for (unsigned i = 0; i < 4; i++) {
        vsock.header.buf_alloc = i == 0 ? 3 : i == 1 ? 5 : i == 2 ? 9 : GUEST_BUFFER;
        SAY(5, host_port, CREDIT_UPDATE);
        if (i == 0)
            vsock_driver_expect_silence(&vsock);
        if (i == 0)
            SAY(5, host_port, RESPONSE);
        assert_int_equal(EXPECT(RW, 5).len, strlen(expected[i]));
        assert_memory_equal(vsock.data, expected[i], strlen(expected[i]));
        if (i < 3)
            EXPECT(CREDIT_REQUEST, 5);
    }
    assert_int_equal(EXPECT(SHUTDOWN, 5).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
}

static void test_peer_is_refused_where_the_guest_does_not_listen(void **state)
{
    cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);

    (void)state;
    give();
    host_say(fd, "CONNECT 5\n");
    vsock_driver_settle(&vsock);
    uint32_t host_port = EXPECT(REQUEST, 5).src_port;
    SAY(5, host_port, RST);
    host_expect(fd, "");
    vsock_driver_expect_silence(&vsock);
}

static void test_guest_reaches_the_listener_of_its_port(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    SAY_TEXT(1000, PORT, "hello");
    host_expect(fd, "hello");
    host_say(fd, "good day");
    vsock_driver_settle(&vsock);
    EXPECT(RW, 1000);
    assert_memory_equal(vsock.data, "good day", 8);
}

static void test_guest_is_refused_where_nobody_listens(void **state)
{
    (void)state;
    give();
    SAY(1000, PORT, REQUEST);
    EXPECT(RST, 1000);
    int listener = host_listen(&vsock, PORT, SOCK_SEQPACKET); /* not for streams */
    SAY(1001, PORT, REQUEST);
    EXPECT(RST, 1001);
    close(listener);
    host_forget(&vsock, PORT);
    assert_int_equal(metrics.vsock.conns_added, metrics.vsock.conns_removed);
}

/* What it sent is used, and what it hears is there, by one interrupt. */
static void test_guest_is_told_of_both_queues_at_once(void **state)
{
    const unsigned *signals = vsock.driver.queue_signals;

    (void)state;
    give();
    SAY(1000, PORT, REQUEST);
    EXPECT(RST, 1000);
    unsigned before = signals[0] + signals[1];
    SAY(1001, PORT, REQUEST);
    EXPECT(RST, 1001);
    assert_int_equal(signals[0] + signals[1], before + 1);
}

static bool has_packet(void *argument)
{
    return guest_ring_has_used(argument);
}

static void test_guest_waits_while_the_listeners_backlog_is_full(void **state)
{
    cleanup_fd int listener = host_listen(&vsock, PORT, SOCK_STREAM);
    int fds[3];

    (void)state;
    give();
    SAY(1000, PORT, REQUEST);
    SAY(1001, PORT, REQUEST);
    EXPECT(RESPONSE, 1000);
    EXPECT(RESPONSE, 1001);
    SAY(1002, PORT, REQUEST);
    vsock_driver_expect_silence(&vsock);
    for (size_t i = 0; i < 2; i++)
        fds[i] = host_accept(listener);
    guest_driver_run_until(&vsock.driver, has_packet, &vsock.driver.rings[RX]);
    EXPECT(RESPONSE, 1002);
    fds[2] = host_accept(listener);
    for (size_t i = 0; i < array_length(fds); i++)
        close(fds[i]);
    host_forget(&vsock, PORT);
}

/* --- Ends --- */

static void test_guest_that_closes_is_answered_when_all_has_been_passed_on(void **state)
{
    enum { PART = 65536 };

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    for (size_t i = 0; i < 4; i++)
        vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, 0, bytes + i * PART, PART);
    EXPECT(CREDIT_UPDATE, 1000);
    SAY_SHUTDOWN(1000, PORT, SHUT_BOTH);
    vsock_driver_expect_silence(&vsock);
    size_t got = drain(fd, 0);
    vsock_driver_settle(&vsock);
    got = drain(fd, got);
    vsock_driver_settle(&vsock);
    assert_int_equal(drain(fd, got), 4 * PART);
    host_expect(fd, "");
    EXPECT(RST, 1000);
    vsock_driver_expect_silence(&vsock);
    assert_int_equal(metrics.vsock.conns_removed, 1);
}

static void test_guest_that_ends_its_output_still_receives(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    SAY_TEXT(1000, PORT, "question");
    SAY_SHUTDOWN(1000, PORT, VIRTIO_VSOCK_SHUTDOWN_SEND);
    host_expect(fd, "question");
    host_expect(fd, "");
    host_say(fd, "answer");
    vsock_driver_settle(&vsock);
    EXPECT(RW, 1000);
    assert_memory_equal(vsock.data, "answer", 6);
    fd_close(&fd);
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(SHUTDOWN, 1000).flags, SHUT_BOTH);
    SAY(1000, PORT, RST);
    assert_int_equal(metrics.vsock.conns_removed, 1);
    vsock_driver_expect_silence(&vsock);
}

static void test_guest_that_takes_no_more_stops_the_peer(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    SAY_SHUTDOWN(1000, PORT, VIRTIO_VSOCK_SHUTDOWN_RCV);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    SAY_TEXT(1000, PORT, "still here");
    host_expect(fd, "still here");
    fd_close(&fd);
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(SHUTDOWN, 1000).flags, SHUT_BOTH);
}

static void test_peer_that_ends_its_output_still_receives(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    host_say(fd, "last words");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    vsock_driver_settle(&vsock);
    EXPECT(RW, 1000);
    assert_int_equal(EXPECT(SHUTDOWN, 1000).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
    SAY_TEXT(1000, PORT, "answer");
    host_expect(fd, "answer");
    SAY_SHUTDOWN(1000, PORT, SHUT_BOTH);
    EXPECT(RST, 1000);
    host_expect(fd, "");
}

/* Descriptors are nobody's here; the bytes that come with them, and those behind, are the guest's all the same. */
static void test_bytes_around_descriptors_reach_the_guest(void **state)
{
    char text[] = "first";
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec iov = {text, 5};
    const struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    char got[11];
    size_t length = 0;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    assert_int_equal(sendmsg(fd, &message, 0), 5);
    host_say(fd, "second");
    vsock_driver_settle(&vsock);
    while (length < sizeof(got)) {
        struct virtio_vsock_hdr header = EXPECT(RW, 1000);

        assert_in_range(header.len, 1, sizeof(got) - length);
        memcpy(got + length, vsock.data, header.len);
        length += header.len;
    }
    assert_memory_equal(got, "firstsecond", sizeof(got));
}

static void test_words_of_a_peer_that_left_reach_the_guest(void **state)
{
    struct virtio_vsock_hdr header;
    size_t got = 0;

    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_int_equal(send(fd, bytes, 20000, 0), 20000);
    close(fd);
    vsock_driver_settle(&vsock); /* does not spin over the end of the socket */
    while (got < 20000) {
        vsock_driver_give(&vsock, 1, BUFFER_SIZE);
        assert_true(vsock_driver_hear(&vsock, &header));
        assert_memory_equal(vsock.data, bytes + got, header.len);
        got += header.len;
    }
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    assert_int_equal(EXPECT(SHUTDOWN, 1000).flags, SHUT_BOTH);
    SAY_TEXT(1000, PORT, "too late");
    SAY_SHUTDOWN(1000, PORT, SHUT_BOTH);
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    EXPECT(RST, 1000);
    vsock_driver_expect_silence(&vsock);
}

static void test_peer_that_left_with_words_unread_ends_the_connection(void **state)
{
    (void)state;
    give();
    int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    SAY_TEXT(1000, PORT, "unread");
    close(fd);
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(SHUTDOWN, 1000).flags, SHUT_BOTH);
    vsock_driver_expect_silence(&vsock);
}

static void test_reset_ends_all_and_the_next_driver_starts_afresh(void **state)
{
    uint32_t host_port;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    cleanup_fd int other = host_come(&vsock, PORT, &host_port);
    guest_driver_reset(&vsock.driver);
    host_expect(fd, "");
    host_expect(other, "");
    cleanup_fd int early = host_connect(vsock.path, SOCK_STREAM);
    host_say(early, "CONNECT 5\n");
    vsock_driver_settle(&vsock); /* waits in the backlog */
    guest_driver_restart(&vsock.driver, 0);
    vsock.given = 0;
    give();
    uint32_t next = EXPECT(REQUEST, 5).src_port;
    assert_int_equal(next, host_port + 1); /* never the same again soon */
    SAY_TEXT(PORT, host_port, "who?");
    EXPECT(RST, PORT);
}

static void test_pause_keeps_what_happens_for_later(void **state)
{
    struct virtio_device *device = vsock.driver.device;
    uint32_t host_port;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    cleanup_fd int gone = host_come(&vsock, PORT, &host_port);
    device->paused = true;
    virtio_device_pause(device);
    host_say(fd, "in the pause");
    fd_close(&gone);
    cleanup_fd int late = host_connect(vsock.path, SOCK_STREAM);
    host_say(late, "CONNECT 6\n");
    vsock_driver_settle(&vsock); /* does not spin */
    vsock_driver_expect_silence(&vsock);
    device->paused = false;
    device->ops->resume(device);
    vsock_driver_settle(&vsock);

    struct virtio_vsock_hdr header;
    unsigned seen = 0;
    while (vsock_driver_hear(&vsock, &header)) {
        seen |= header.op == VIRTIO_VSOCK_OP_RW && header.dst_port == 1000 && header.len == 12 ? 1 : 0;
        seen |= header.op == VIRTIO_VSOCK_OP_SHUTDOWN && header.dst_port == PORT ? 2 : 0;
        seen |= header.op == VIRTIO_VSOCK_OP_REQUEST && header.dst_port == 6 ? 4 : 0;
    }
    assert_int_equal(seen, 7);
}

TEST_MAIN(vsock_test(test_config_space_has_the_cid), vsock_test(test_sockets_are_for_their_owner_alone),
          vsock_test(test_bad_configuration_is_refused),
          vsock_test(test_host_peer_reaches_a_guest_port_and_bytes_pass_both_ways),
          vsock_test(test_what_follows_the_line_are_data), vsock_test(test_wrong_line_ends_the_connection),
          vsock_test(test_peer_that_leaves_before_or_while_the_guest_is_asked_is_forgotten),
          vsock_test(test_peer_is_refused_where_the_guest_does_not_listen),
          vsock_test(test_guest_reaches_the_listener_of_its_port),
          vsock_test(test_guest_is_refused_where_nobody_listens), vsock_test(test_guest_is_told_of_both_queues_at_once),
          vsock_test(test_guest_waits_while_the_listeners_backlog_is_full),
          vsock_test(test_guest_that_closes_is_answered_when_all_has_been_passed_on),
          vsock_test(test_guest_that_ends_its_output_still_receives),
          vsock_test(test_guest_that_takes_no_more_stops_the_peer),
          vsock_test(test_peer_that_ends_its_output_still_receives),
          vsock_test(test_bytes_around_descriptors_reach_the_guest),
          vsock_test(test_peer_need_not_wait_for_the_answer_to_its_line),
          vsock_test(test_words_of_a_peer_that_left_reach_the_guest),
          vsock_test(test_peer_that_left_with_words_unread_ends_the_connection),
          vsock_test(test_reset_ends_all_and_the_next_driver_starts_afresh),
          vsock_test(test_pause_keeps_what_happens_for_later))
