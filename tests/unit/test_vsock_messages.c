/* Sockets that keep messages apart (SOCK_SEQPACKET). */
#include "tests/unit/vsock_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

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

static void test_peer_need_not_wait_for_the_answer_to_its_line(void **state)
{
    cleanup_fd int fd = host_connect(vsock.seqpacket, SOCK_SEQPACKET);

    (void)state;
    give();
    host_say(fd, "CONNECT ");
    host_say(fd, "77\n");
    host_say(fd, "a");
    host_say(fd, "bc");
    vsock_driver_settle(&vsock);
    struct virtio_vsock_hdr header = EXPECT(REQUEST, 77);
    vsock.header.type = SEQPACKET;
    SAY(77, header.src_port, RESPONSE);
    assert_int_equal(EXPECT(RW, 77).len, 1);
    assert_int_equal(EXPECT(RW, 77).len, 2);
    assert_memory_equal(vsock.data, "bc", 2);
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

TEST_MAIN(vsock_test(test_peer_need_not_wait_for_the_answer_to_its_line),
          vsock_test(test_messages_keep_their_boundaries_both_ways),
          vsock_test(test_host_peer_sends_messages_through_the_other_socket),
          vsock_test(test_messages_to_a_peer_that_does_not_read_are_kept_whole),
          vsock_test(test_message_waits_until_the_guest_has_credit_for_all_of_it))
