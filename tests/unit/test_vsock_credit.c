/* Back-pressure between a guest and its peers: credit, buffers. */
#include "tests/unit/vsock_fixture.h"

#include <errno.h>
#include <sys/socket.h>

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

TEST_MAIN(vsock_test(test_peer_that_does_not_read_stops_the_guest_only_at_its_credit),
          vsock_test(test_guest_without_credit_gets_nothing_and_is_asked_once),
          vsock_test(test_guest_without_buffers_gets_all_later_in_order),
          vsock_test(test_large_buffers_go_to_the_first_and_later_connections_get_small_ones))
