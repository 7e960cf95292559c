#include "tests/unit/vsock_hostile_fixture.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/socket.h>

/* Guests and host peers that break the rules of vsock, or stretch them. */

#define CHAIN_GPA 0xa00000ULL

/* Sends a chain of `length` bytes that begins with the header as it stands. */
static void say_raw(uint32_t length, uint32_t second)
{
    struct guest_ring *ring = &vsock.driver.rings[TX];
    const struct guest_buffer buffers[] = {{CHAIN_GPA, length, false}, {CHAIN_GPA + length, second, false}};
    uint16_t head;
    uint32_t used;

    memcpy(guest_at(&vsock.driver.memory, CHAIN_GPA, HEADER), &vsock.header, HEADER);
    guest_ring_add(ring, buffers, second > 0 ? 2 : 1);
    guest_driver_notify(&vsock.driver, TX);
    vsock_driver_settle(&vsock);
    assert_true(guest_ring_take_used(ring, &head, &used));
}

static void test_packets_that_are_not_whole_or_not_ours_are_dropped(void **state)
{
    const struct virtio_vsock_hdr right = {.src_cid = GUEST_CID,
                                           .dst_cid = HOST_CID,
                                           .src_port = 1000,
                                           .dst_port = PORT,
                                           .type = STREAM,
                                           .op = VIRTIO_VSOCK_OP_RW,
                                           .buf_alloc = GUEST_BUFFER};

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    vsock.header = right;
    say_raw(HEADER - 1, 0);
    say_raw(1, HEADER - 2);
    vsock.header.len = 1;
    say_raw(HEADER, 0);
    vsock.header.len = 101;
    say_raw(HEADER, 100);
    vsock.header.len = UINT32_MAX;
    say_raw(HEADER, 100);
    vsock.header.len = VSOCK_PAYLOAD_MAX + 1;
    say_raw(HEADER, VSOCK_PAYLOAD_MAX + 1);
    vsock.header = right;
    vsock.header.src_cid = GUEST_CID + 1;
    say_raw(HEADER, 0);
    vsock.header.src_cid = GUEST_CID | 1ULL << 32;
    say_raw(HEADER, 0);
    vsock.header = right;
    vsock.header.dst_cid = 1;
    say_raw(HEADER, 0);
    assert_int_equal(metrics.vsock.tx_flush_fails, 9);
    host_expect_nothing(fd);
    vsock_driver_expect_silence(&vsock);

    /* More descriptors than data, and a header in two parts, are fine. */
    vsock.header = right;
    vsock.header.len = 3;
    memcpy(guest_at(&vsock.driver.memory, CHAIN_GPA + HEADER, 3), "yes", 3);
    say_raw(7, 1000);
    host_expect(fd, "yes");
}

static void test_packets_to_nobody_are_answered_with_rst(void **state)
{
    (void)state;
    give();
    for (uint16_t op = 0; op < 12; op++) {
        if (op == VIRTIO_VSOCK_OP_REQUEST)
            continue;
        vsock_driver_say(&vsock, 1000 + op, PORT, op, 0, NULL, 0);
        if (op == VIRTIO_VSOCK_OP_RST)
            vsock_driver_expect_silence(&vsock);
        else
            EXPECT(RST, 1000u + op);
    }
    vsock.header.type = 77;
    SAY(5, PORT, REQUEST);
    assert_int_equal(EXPECT(RST, 5).type, 77);
}

static void test_packets_in_the_wrong_moment_end_the_connection(void **state)
{
    static const uint16_t wrong[] = {0, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, 8, UINT16_MAX};

    (void)state;
    give();
    for (size_t i = 0; i < array_length(wrong); i++) {
        cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);

        vsock_driver_say(&vsock, 1000, PORT, wrong[i], 0, NULL, 0);
        EXPECT(RST, 1000);
        host_expect(fd, "");
    }
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    vsock.header.type = SEQPACKET;
    SAY(1000, PORT, RW);
    assert_int_equal(EXPECT(RST, 1000).type, SEQPACKET);
    vsock.header.type = STREAM;
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, 0, "after all", 9);
    EXPECT(RST, 1000);
    host_expect(fd, "");
}

static void test_answer_to_a_question_that_was_not_asked_ends_the_connection(void **state)
{
    cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);

    (void)state;
    host_say(fd, "CONNECT 5\n");
    vsock_driver_settle(&vsock);
    SAY(5, 1u << 30, RESPONSE); /* a good guess, but it has had no buffer for the request yet */
    host_expect(fd, "");
    give();
    EXPECT(RST, 5);
    vsock_driver_expect_silence(&vsock);
}

static void test_messages_are_refused_when_they_were_not_agreed_on(void **state)
{
    int listener = host_listen(&vsock, PORT, SOCK_SEQPACKET);

    (void)state;
    guest_driver_reset(&vsock.driver);
    guest_driver_restart(&vsock.driver, 0);
    vsock.given = 0;
    give();
    vsock.header.type = SEQPACKET;
    SAY(1000, PORT, REQUEST);
    EXPECT(RST, 1000);
    close(listener);
    host_forget(&vsock, PORT);
}

static void test_more_than_there_is_credit_for_ends_the_connection(void **state)
{
    struct virtio_vsock_hdr header = {0};
    unsigned sent = 0;

    (void)state;
    give();
    int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    while (header.op != VIRTIO_VSOCK_OP_RST && sent++ < 100) {
        vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, 0, bytes, sizeof(bytes));
        while (header.op != VIRTIO_VSOCK_OP_RST && vsock_driver_hear(&vsock, &header))
            ;
    }
    assert_in_range(sent, VSOCK_BUFFER_LARGE / sizeof(bytes), 20);
    assert_int_equal(inside()->kept, 0); /* what waited is dropped */
    close(fd);
}

static void test_kept_messages_do_not_grow_without_bound(void **state)
{
    struct virtio_vsock_hdr header;

    (void)state;
    give();
    vsock.header.type = SEQPACKET;
    int fd = vsock_driver_guest_calls(&vsock, SOCK_SEQPACKET);
    for (unsigned i = 0; inside()->kept == 0; i++) {
        vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, bytes, 60000);
        assert_true(i < 50);
    }
    while (vsock_driver_hear(&vsock, &header))
        ;
    size_t before = inside()->kept;
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, NULL, 0); /* an empty one */
    assert_int_equal(inside()->kept, before + sizeof(uint32_t));
    vsock_driver_expect_silence(&vsock);
    inside()->kept += VSOCK_KEPT_MAX - before - sizeof(uint32_t); /* as if other connections had kept that */
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, NULL, 0);
    EXPECT(RST, 1000);
    inside()->kept -= VSOCK_KEPT_MAX - before - sizeof(uint32_t);
    close(fd);
}

static void test_flood_of_packets_to_nobody_waits_for_receive_buffers(void **state)
{
    enum { COUNT = 250 };
    struct guest_ring *ring = &vsock.driver.rings[TX];
    struct virtio_vsock_hdr header;
    unsigned answers = 0, taken = 0;
    uint16_t head;
    uint32_t used;

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        const struct guest_buffer buffer = {CHAIN_GPA + i * 64, HEADER, false};

        vsock.header.src_port = i;
        vsock.header.op = VIRTIO_VSOCK_OP_RW;
        memcpy(guest_at(&vsock.driver.memory, buffer.gpa, HEADER), &vsock.header, HEADER);
        guest_ring_add(ring, &buffer, 1);
    }
    guest_driver_notify(&vsock.driver, TX);
    vsock_driver_settle(&vsock);
    while (guest_ring_take_used(ring, &head, &used))
        taken++;
    assert_int_equal(taken, VSOCK_REFUSALS_MAX);
    for (unsigned round = 0; answers < COUNT; round++) {
        vsock_driver_give(&vsock, 16, HEADER + 1);
        while (vsock_driver_hear(&vsock, &header)) {
            assert_int_equal(header.op, VIRTIO_VSOCK_OP_RST);
            assert_int_equal(header.dst_port, answers++);
        }
        assert_true(round < COUNT);
    }
    while (guest_ring_take_used(ring, &head, &used))
        taken++;
    assert_int_equal(taken, COUNT);
}

static void test_connections_are_limited_and_later_host_peers_wait(void **state)
{
    cleanup_fd int listener = host_listen(&vsock, PORT, SOCK_STREAM);
    struct virtio_vsock_hdr header;
    int fds[VSOCK_CONNECTIONS_MAX];

    (void)state;
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        vsock_driver_give(&vsock, 1, BUFFER_SIZE);
        SAY(i, PORT, REQUEST);
        EXPECT(RESPONSE, i);
        fds[i] = host_accept(listener);
    }
    vsock_driver_give(&vsock, 8, BUFFER_SIZE);
    SAY(5000, PORT, REQUEST);
    EXPECT(RST, 5000);
    cleanup_fd int peer = host_connect(vsock.path, SOCK_STREAM);
    host_say(peer, "CONNECT 7000\n");
    vsock_driver_settle(&vsock);
    vsock_driver_expect_silence(&vsock);
    SAY(3, PORT, RST);
    host_expect(fds[3], "");
    vsock_driver_settle(&vsock);
    EXPECT(REQUEST, 7000);
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
        close(fds[i]);
    for (unsigned heard = 0; heard < VSOCK_CONNECTIONS_MAX - 1;) {
        vsock_driver_give(&vsock, 16, BUFFER_SIZE);
        for (; vsock_driver_hear(&vsock, &header); heard++)
            assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
    }
    host_forget(&vsock, PORT);
}

static void let_time_pass(void)
{
    for (struct list *link = inside()->greeting.next; link != &inside()->greeting; link = link->next)
        container_of(link, struct vsock_connection, waiting)->deadline_us = 0;
    vsock_connections_expire(inside());
    vsock_driver_settle(&vsock);
}

/* A person may type the line; but nobody keeps others from coming by saying nothing. */
static void test_silent_host_peers_make_room_when_their_time_has_passed(void **state)
{
    int fds[VSOCK_CONNECTIONS_MAX];

    (void)state;
    give();
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        fds[i] = host_connect(vsock.path, SOCK_STREAM);
        if (i % 64 == 63)
            vsock_driver_settle(&vsock);
        if (i == VSOCK_CONNECTIONS_MAX / 2)
            let_time_pass();
    }
    vsock_driver_settle(&vsock);
    assert_int_equal(metrics.vsock.conns_killed, 1); /* not before there was no more room */
    host_expect(fds[0], "");
    cleanup_fd int last = host_connect(vsock.path, SOCK_STREAM);
    cleanup_fd int peer = host_connect(vsock.path, SOCK_STREAM);
    host_say(peer, "CONNECT 7000\n");
    vsock_driver_settle(&vsock);
    EXPECT(REQUEST, 7000);
    host_expect(fds[1], "");
    host_expect_nothing(fds[4]);
    host_say(fds[4], "CONNECT 7001\n");
    vsock_driver_settle(&vsock);
    EXPECT(REQUEST, 7001);
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
        close(fds[i]);
}

static void test_guest_that_does_not_answer_loses_its_connection(void **state)
{
    cleanup_fd int fd = host_connect(vsock.path, SOCK_STREAM);

    (void)state;
    give();
    host_say(fd, "CONNECT 5\n");
    vsock_driver_settle(&vsock);
    EXPECT(REQUEST, 5);
    cleanup_fd int other = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    fd_close(&other);
    vsock_driver_settle(&vsock);
    EXPECT(SHUTDOWN, 1000);
    assert_true(inside()->patience.loop != NULL);
    for (struct list *link = inside()->expiring.next; link != &inside()->expiring; link = link->next)
        container_of(link, struct vsock_connection, waiting)->deadline_us = 0; /* the time has passed */
    vsock_connections_expire(inside());
    vsock_receive(inside());
    EXPECT(RST, 5);
    EXPECT(RST, 1000);
    host_expect(fd, "");
    assert_int_equal(metrics.vsock.conns_killed, 2);
    assert_null(inside()->patience.loop);
}

static void test_ports_of_a_closing_connection_may_be_used_again(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    fd_close(&fd);
    vsock_driver_settle(&vsock);
    EXPECT(SHUTDOWN, 1000);
    cleanup_fd int again = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, 0, "again", 5);
    host_expect(again, "again");
}

/* The guest lies about what it has read: it gets nothing rather than too much. */
static void test_credit_that_cannot_be_is_none(void **state)
{
    (void)state;
    give();
    vsock.header.fwd_cnt = 1;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    host_say(fd, "x");
    vsock_driver_settle(&vsock);
    EXPECT(CREDIT_REQUEST, 1000);
    vsock_driver_expect_silence(&vsock);
}

static void expect_failure(int fd)
{
    vsock_driver_settle(&vsock);
    assert_true(vsock.driver.failed);
    host_expect(fd, "");
    assert_int_equal(inside()->connection_count, 0);
    vsock_driver_settle(&vsock); /* and does not spin */
}

static void test_broken_transmit_queue_ends_all(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    guest_ring_available_index(&vsock.driver.rings[TX], 30000);
    guest_driver_notify(&vsock.driver, TX);
    expect_failure(fd);
}

static void test_broken_receive_queue_ends_all(void **state)
{
    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    guest_ring_descriptor(&vsock.driver.rings[RX], 9, UINT64_MAX, 100, VRING_DESC_F_WRITE, 0);
    guest_ring_publish(&vsock.driver.rings[RX], 9);
    host_say(fd, "x");
    expect_failure(fd);
}

static void test_receive_buffer_without_room_for_data_ends_all(void **state)
{
    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    vsock_driver_give(&vsock, 1, HEADER);
    host_say(fd, "x");
    expect_failure(fd);
}

/* What a broken device does on the loop's next turn, a pause must not put off until the guest resets it. */
static void test_host_peers_of_a_broken_device_see_the_end_although_it_is_paused(void **state)
{
    struct virtio_device *device;

    (void)state;
    give();
    cleanup_fd int peer = vsock_driver_guest_calls(&vsock, STREAM);
    host_expect_nothing(peer);
    device = vsock.driver.device;
    guest_ring_publish(&vsock.driver.rings[TX], 0xffff);
    guest_driver_notify(&vsock.driver, TX);
    assert_true(vsock.driver.failed);
    device->paused = true;
    virtio_device_pause(device);
    vsock_driver_settle(&vsock);
    host_expect(peer, "");
    device->paused = false;
}

TEST_MAIN(vsock_test(test_host_peers_of_a_broken_device_see_the_end_although_it_is_paused),
          vsock_test(test_packets_that_are_not_whole_or_not_ours_are_dropped),
          vsock_test(test_packets_to_nobody_are_answered_with_rst),
          vsock_test(test_packets_in_the_wrong_moment_end_the_connection),
          vsock_test(test_answer_to_a_question_that_was_not_asked_ends_the_connection),
          vsock_test(test_messages_are_refused_when_they_were_not_agreed_on),
          vsock_test(test_more_than_there_is_credit_for_ends_the_connection),
          vsock_test(test_kept_messages_do_not_grow_without_bound),
          vsock_test(test_flood_of_packets_to_nobody_waits_for_receive_buffers),
          vsock_test(test_connections_are_limited_and_later_host_peers_wait),
          vsock_test(test_silent_host_peers_make_room_when_their_time_has_passed),
          vsock_test(test_guest_that_does_not_answer_loses_its_connection),
          vsock_test(test_ports_of_a_closing_connection_may_be_used_again),
          vsock_test(test_credit_that_cannot_be_is_none), vsock_test(test_broken_transmit_queue_ends_all),
          vsock_test(test_broken_receive_queue_ends_all),
          vsock_test(test_receive_buffer_without_room_for_data_ends_all))
