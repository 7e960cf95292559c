#include "tests/unit/harness.h"

#include "tests/unit/vsock_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <dirent.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* The vsock device, driven as Linux does, with real sockets at its other side. Hostile drivers: test_vsock_hostile.c.
 */

static struct vsock_driver vsock;
static uint8_t bytes[1 << 20];

#define SAY_SHUTDOWN(guest_port, host_port, flags)                                                                     \
    vsock_driver_say(&vsock, guest_port, host_port, VIRTIO_VSOCK_OP_SHUTDOWN, flags, NULL, 0)
#define SAY_TEXT(guest_port, host_port, text)                                                                          \
    vsock_driver_say(&vsock, guest_port, host_port, VIRTIO_VSOCK_OP_RW, 0, text, (uint32_t)strlen(text))

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256 + i / 65536);
    vsock_driver_setup(&vsock);
    vsock_driver_start(&vsock, SEQPACKET_FEATURE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vsock_driver_teardown(&vsock);
    return 0;
}

static void give(void)
{
    vsock_driver_give(&vsock, BUFFERS, BUFFER_SIZE);
}

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

/* --- Credit and back-pressure --- */

/* Reads all there is. */
static size_t drain(int fd, size_t done)
{
    static uint8_t part[65536];
    ssize_t length;

    while ((length = recv(fd, part, sizeof(part), 0)) > 0) {
        assert_memory_equal(part, bytes + done, (size_t)length);
        done += (size_t)length;
    }
    return done;
}

static void test_peer_that_does_not_read_stops_the_guest_only_at_its_credit(void **state)
{
    enum { PART = 32768 };
    struct virtio_vsock_hdr header;
    size_t sent = 0, credit_updates = 0;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    uint32_t forwarded = 0, buffer = 256 << 10;
    while (sent + PART - forwarded <= buffer) {
        vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, 0, bytes + sent, PART);
        sent += PART;
        while (vsock_driver_hear(&vsock, &header)) {
            assert_int_equal(header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
            assert_true(header.fwd_cnt - forwarded >= buffer / 2); /* worth a packet */
            forwarded = header.fwd_cnt;
            credit_updates++;
        }
    }
    assert_int_equal(credit_updates, 1);  /* the socket took that much */
    assert_true(sent > forwarded + PART); /* the rest is kept */
    size_t got = drain(fd, 0);
    vsock_driver_settle(&vsock);
    got = drain(fd, got);
    vsock_driver_settle(&vsock);
    assert_int_equal(drain(fd, got), sent);
    forwarded = EXPECT(CREDIT_UPDATE, 1000).fwd_cnt;
    assert_true(sent - forwarded < buffer / 2);

    SAY(1000, PORT, CREDIT_REQUEST);
    assert_int_equal(EXPECT(CREDIT_UPDATE, 1000).fwd_cnt, sent);
}

static void test_guest_without_credit_gets_nothing_and_is_asked_once(void **state)
{
    (void)state;
    give();
    vsock.header.buf_alloc = 100;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_int_equal(send(fd, bytes, 250, 0), 250);
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(RW, 1000).len, 100);
    EXPECT(CREDIT_REQUEST, 1000);
    vsock_driver_expect_silence(&vsock);
    SAY(1000, PORT, CREDIT_UPDATE);
    vsock_driver_expect_silence(&vsock);
    vsock.header.fwd_cnt = 60;
    SAY(1000, PORT, CREDIT_UPDATE);
    assert_int_equal(EXPECT(RW, 1000).len, 60);
    EXPECT(CREDIT_REQUEST, 1000);
    vsock.header.fwd_cnt = 160;
    SAY(1000, PORT, CREDIT_UPDATE);
    assert_int_equal(EXPECT(RW, 1000).len, 90);
    assert_memory_equal(vsock.data, bytes + 160, 90);
    vsock_driver_expect_silence(&vsock);
}

static void test_guest_without_buffers_gets_all_later_in_order(void **state)
{
    enum { LENGTH = 150000 };
    struct virtio_vsock_hdr header;
    uint32_t host_port;
    size_t got = 0;

    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    cleanup_fd int fd = host_come(&vsock, PORT, &host_port);
    assert_int_equal(send(fd, bytes, LENGTH, 0), LENGTH);
    vsock_driver_settle(&vsock); /* does not spin */
    for (unsigned round = 0; got < LENGTH; round++) {
        vsock_driver_give(&vsock, 1 + round % 40, HEADER + 1 + round * 50 % 4000);
        while (vsock_driver_hear(&vsock, &header)) {
            assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
            assert_memory_equal(vsock.data, bytes + got, header.len);
            got += header.len;
        }
        assert_true(round < 1000);
    }
    assert_int_equal(got, LENGTH);
}

static void test_large_buffers_go_to_the_first_and_later_connections_get_small_ones(void **state)
{
    int fds[70];

    (void)state;
    for (unsigned i = 0; i < array_length(fds); i++) {
        cleanup_fd int listener = host_listen(&vsock, PORT, SOCK_STREAM);

        vsock_driver_give(&vsock, 1, BUFFER_SIZE);
        SAY(1000 + i, PORT, REQUEST);
        assert_int_equal(EXPECT(RESPONSE, 1000 + i).buf_alloc, i < 64 ? 256 << 10 : 16 << 10);
        fds[i] = host_accept(listener);
    }
    for (unsigned i = 0; i < array_length(fds); i++)
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
    device->ops->pause(device);
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

static void test_messages_keep_their_boundaries_both_ways(void **state)
{
    (void)state;
    give();
    vsock.header.type = SEQPACKET;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_SEQPACKET);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, 0, "one, in ", 8);
    host_expect_nothing(fd);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "two parts", 9);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "two", 3);
    host_expect(fd, "one, in two parts");
    host_expect(fd, "two");
    host_say(fd, "first");
    assert_int_equal(send(fd, bytes, 10000, 0), 10000);
    host_say(fd, "last");
    vsock_driver_settle(&vsock);
    struct virtio_vsock_hdr header = EXPECT(RW, 1000);
    assert_int_equal(header.len, 5);
    assert_int_equal(header.flags, VIRTIO_VSOCK_SEQ_EOM);
    assert_int_equal(header.type, SEQPACKET);
    for (uint32_t done = 0, part; done < 10000; done += part) {
        header = EXPECT(RW, 1000);
        part = header.len;
        assert_int_equal(header.flags, done + part == 10000 ? VIRTIO_VSOCK_SEQ_EOM : 0);
        assert_memory_equal(vsock.data, bytes + done, part);
    }
    assert_int_equal(EXPECT(RW, 1000).len, 4);
    SAY_SHUTDOWN(1000, PORT, SHUT_BOTH);
    EXPECT(RST, 1000);
    host_expect(fd, "");
}

static void test_host_peer_sends_messages_through_the_other_socket(void **state)
{
    cleanup_fd int fd = host_connect(vsock.seqpacket, SOCK_SEQPACKET);

    (void)state;
    give();
    host_say(fd, "CONNECT 77\n");
    vsock_driver_settle(&vsock);
    struct virtio_vsock_hdr header = EXPECT(REQUEST, 77);
    assert_int_equal(header.type, SEQPACKET);
    vsock.header.type = SEQPACKET;
    SAY(77, header.src_port, RESPONSE);
    char line[32];
    snprintf(line, sizeof(line), "OK %u\n", header.src_port);
    host_expect(fd, line);
    host_say(fd, "a");
    host_say(fd, "b");
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(RW, 77).flags, VIRTIO_VSOCK_SEQ_EOM);
    assert_int_equal(EXPECT(RW, 77).len, 1);
}

static void test_messages_to_a_peer_that_does_not_read_are_kept_whole(void **state)
{
    enum { LENGTH = 1000, COUNT = 128 };
    uint8_t message[2 * LENGTH];
    struct virtio_vsock_hdr header;
    uint32_t forwarded = 0;
    unsigned sent = 0, got = 0;

    (void)state;
    give();
    vsock.header.type = SEQPACKET;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_SEQPACKET);
    int small = 4096;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    for (; (sent + 1) * LENGTH - forwarded <= (128 << 10) && sent < 4 * COUNT; sent++) {
        vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, bytes + sent * LENGTH, LENGTH);
        while (vsock_driver_hear(&vsock, &header))
            forwarded = header.fwd_cnt;
    }
    assert_true(sent > COUNT);
    while (got < sent) {
        ssize_t length;

        while ((length = recv(fd, message, sizeof(message), 0)) > 0) {
            assert_int_equal(length, LENGTH);
            assert_memory_equal(message, bytes + got++ * LENGTH, LENGTH);
        }
        vsock_driver_settle(&vsock);
    }
    SAY_SHUTDOWN(1000, PORT, SHUT_BOTH);
    while (vsock_driver_hear(&vsock, &header) && header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE)
        ;
    assert_int_equal(header.op, VIRTIO_VSOCK_OP_RST);
}

static void test_message_waits_until_the_guest_has_credit_for_all_of_it(void **state)
{
    (void)state;
    give();
    vsock.header.type = SEQPACKET;
    vsock.header.buf_alloc = 1000;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_SEQPACKET);
    assert_int_equal(send(fd, bytes, 600, 0), 600);
    assert_int_equal(send(fd, bytes, 500, 0), 500);
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(RW, 1000).len, 600);
    EXPECT(CREDIT_REQUEST, 1000);
    vsock_driver_expect_silence(&vsock);
    vsock.header.fwd_cnt = 600;
    SAY(1000, PORT, CREDIT_UPDATE);
    assert_int_equal(EXPECT(RW, 1000).len, 500);
    assert_int_equal(send(fd, bytes, 1001, 0), 1001); /* never */
    vsock_driver_settle(&vsock);
    EXPECT(RST, 1000);
    host_expect(fd, "");
}

#define vsock_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
TEST_MAIN(vsock_test(test_config_space_has_the_cid), vsock_test(test_sockets_are_for_their_owner_alone),
          vsock_test(test_bad_configuration_is_refused),
          vsock_test(test_host_peer_reaches_a_guest_port_and_bytes_pass_both_ways),
          vsock_test(test_what_follows_the_line_are_data), vsock_test(test_wrong_line_ends_the_connection),
          vsock_test(test_peer_that_leaves_before_or_while_the_guest_is_asked_is_forgotten),
          vsock_test(test_peer_is_refused_where_the_guest_does_not_listen),
          vsock_test(test_guest_reaches_the_listener_of_its_port),
          vsock_test(test_guest_is_refused_where_nobody_listens),
          vsock_test(test_guest_waits_while_the_listeners_backlog_is_full),
          vsock_test(test_peer_that_does_not_read_stops_the_guest_only_at_its_credit),
          vsock_test(test_guest_without_credit_gets_nothing_and_is_asked_once),
          vsock_test(test_guest_without_buffers_gets_all_later_in_order),
          vsock_test(test_large_buffers_go_to_the_first_and_later_connections_get_small_ones),
          vsock_test(test_guest_that_closes_is_answered_when_all_has_been_passed_on),
          vsock_test(test_guest_that_ends_its_output_still_receives),
          vsock_test(test_guest_that_takes_no_more_stops_the_peer),
          vsock_test(test_peer_that_ends_its_output_still_receives),
          vsock_test(test_words_of_a_peer_that_left_reach_the_guest),
          vsock_test(test_peer_that_left_with_words_unread_ends_the_connection),
          vsock_test(test_reset_ends_all_and_the_next_driver_starts_afresh),
          vsock_test(test_pause_keeps_what_happens_for_later),
          vsock_test(test_messages_keep_their_boundaries_both_ways),
          vsock_test(test_host_peer_sends_messages_through_the_other_socket),
          vsock_test(test_messages_to_a_peer_that_does_not_read_are_kept_whole),
          vsock_test(test_message_waits_until_the_guest_has_credit_for_all_of_it))
