/* Receive buffers of any shape, and what is kept for host peers that do not read. */
#include "tests/unit/vsock_fixture.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/socket.h>

#include "vmm/virtio/vsock.h"

#define TABLES_GPA 0xa00000ULL
#define PIECES_GPA 0x200000ULL
enum { PART = 65536, JUNK = 64 };

static struct vsock *inside(void)
{
    return container_of(vsock.driver.device, struct vsock, device);
}

/* --- Receive buffers --- */

/* A header, and all else, is in parts of 20 bytes; before them is something that only the guest may write. */
enum { PIECE = 20, PIECES = VIRTQUEUE_IOV_MAX * 2 / 3, BUFFER_STRIDE = 0x2000, TABLE_STRIDE = 0x1000 };

static void give_in_pieces(unsigned count)
{
    struct guest_ring *ring = &vsock.driver.rings[RX];
    struct guest_buffer pieces[1 + PIECES];

    for (unsigned i = 0; i < count; i++) {
        uint64_t gpa = PIECES_GPA + (vsock.given % ring->size) * BUFFER_STRIDE;
        uint64_t table = TABLES_GPA + (vsock.given % ring->size) * TABLE_STRIDE;

        vsock.given++;
        memset(guest_at(&vsock.driver.memory, gpa, BUFFER_STRIDE), 0xee, BUFFER_STRIDE);
        pieces[0] = (struct guest_buffer){gpa, JUNK, false};
        for (unsigned j = 0; j < PIECES; j++)
            pieces[1 + j] = (struct guest_buffer){gpa + JUNK + j * PIECE, PIECE, true};
        guest_ring_add_indirect(ring, table, pieces, array_length(pieces));
    }
    guest_driver_notify(&vsock.driver, RX);
    vsock_driver_settle(&vsock);
}

/* The next packet's header; its payload goes to vsock.data. */
static struct virtio_vsock_hdr hear_in_pieces(void)
{
    struct guest_ring *ring = &vsock.driver.rings[RX];
    struct virtio_vsock_hdr header;
    uint16_t head;
    uint32_t used;

    assert_true(guest_ring_take_used(ring, &head, &used));
    uint64_t place = (ring->descriptors[head].addr - TABLES_GPA) / TABLE_STRIDE;
    const uint8_t *buffer = guest_at(&vsock.driver.memory, PIECES_GPA + place * BUFFER_STRIDE, BUFFER_STRIDE);
    for (size_t i = 0; i < JUNK; i++)
        assert_int_equal(buffer[i], 0xee);
    memcpy(&header, buffer + JUNK, HEADER);
    assert_int_equal(used, HEADER + header.len);
    assert_true(used <= PIECES * PIECE);
    assert_int_equal(buffer[JUNK + used], 0xee);
    memcpy(vsock.data, buffer + JUNK + HEADER, header.len);
    return header;
}

static void test_buffers_in_many_pieces_get_every_byte_in_its_place(void **state)
{
    enum { BYTES = 150000 };
    size_t sent = 0, heard = 0;

    (void)state;
    give_in_pieces(1);
    cleanup_fd int listener = host_listen(&vsock, PORT, SOCK_STREAM);
    SAY(1000, PORT, REQUEST);
    assert_int_equal(hear_in_pieces().op, VIRTIO_VSOCK_OP_RESPONSE);
    cleanup_fd int fd = host_accept(listener);
    host_forget(&vsock, PORT);
    while (heard < BYTES) {
        ssize_t part = sent < BYTES ? send(fd, bytes + sent, BYTES - sent, MSG_NOSIGNAL) : 0;

        sent += part > 0 ? (size_t)part : 0;
        give_in_pieces(16);
        while (guest_ring_has_used(&vsock.driver.rings[RX])) {
            struct virtio_vsock_hdr header = hear_in_pieces();

            assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
            assert_memory_equal(vsock.data, bytes + heard, header.len);
            heard += header.len;
        }
        assert_false(vsock.driver.failed);
    }
    assert_int_equal(heard, BYTES);
}

/* As many as one read fills, and more. */
static void test_many_small_buffers_get_every_byte_in_its_place(void **state)
{
    enum { ROOM = 100, BYTES = 200 * ROOM };
    struct virtio_vsock_hdr header;
    size_t heard = 0;

    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_int_equal(send(fd, bytes, BYTES, MSG_NOSIGNAL), BYTES);
    vsock_driver_settle(&vsock);
    vsock_driver_give(&vsock, 250, HEADER + ROOM);
    for (; vsock_driver_hear(&vsock, &header); heard += header.len) {
        assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
        assert_memory_equal(vsock.data, bytes + heard, header.len);
    }
    assert_int_equal(heard, BYTES);
}

/* The bytes that were on their way are lost with the device, but nothing else happens to them. */
static void test_buffer_that_is_none_among_good_ones_ends_all(void **state)
{
    (void)state;
    vsock_driver_give(&vsock, 1, BUFFER_SIZE);
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_int_equal(send(fd, bytes, 20000, MSG_NOSIGNAL), 20000);
    vsock_driver_settle(&vsock);
    for (unsigned i = 0; i < 12; i++) {
        const struct guest_buffer good = {PIECES_GPA + i * BUFFER_STRIDE, HEADER + 100, true};

        guest_ring_add(&vsock.driver.rings[RX], &good, 1);
    }
    vsock_driver_give(&vsock, 1, HEADER);
    assert_true(vsock.driver.failed);
    host_expect(fd, "");
    assert_int_equal(inside()->connection_count, 0);
}

/* --- What is kept --- */

/* A packet whose buffer is longer than it says; the rest is nobody's. */
static void say_with_junk(const void *data, uint32_t length)
{
    struct guest_ring *ring = &vsock.driver.rings[TX];
    const struct guest_buffer buffers[] = {{TABLES_GPA, HEADER, false}, {TABLES_GPA + HEADER, length + JUNK, false}};
    uint8_t *place = guest_at(&vsock.driver.memory, TABLES_GPA, HEADER + length + JUNK);

    vsock.header.src_port = 1000;
    vsock.header.dst_port = PORT;
    vsock.header.op = VIRTIO_VSOCK_OP_RW;
    vsock.header.len = length;
    memcpy(place, &vsock.header, HEADER);
    memcpy(place + HEADER, data, length);
    memset(place + HEADER + length, 'J', JUNK);
    guest_ring_add(ring, buffers, 2);
    guest_driver_notify(&vsock.driver, TX);
    vsock_driver_settle(&vsock);
}

static void test_kept_bytes_are_passed_on_and_kept_no_longer(void **state)
{
    size_t said = 0, got = 0;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    /* The guest's credit is more than the socket takes. */
    for (; said + PART <= VSOCK_BUFFER_LARGE; said += PART)
        say_with_junk(bytes + said, PART);
    assert_true(inside()->kept > 0);
    while (inside()->kept > 0) {
        size_t before = got;

        got = drain(fd, got);
        assert_true(got > before);
        vsock_driver_settle(&vsock);
    }
    assert_int_equal(drain(fd, got), said);
    assert_false(vsock.driver.failed);
}

static void test_peer_that_reads_no_more_is_no_reason_to_keep_anything(void **state)
{
    struct virtio_vsock_hdr header;
    unsigned told = 0;

    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    for (size_t said = 0; said + PART <= VSOCK_BUFFER_LARGE; said += PART)
        say_with_junk(bytes + said, PART);
    assert_true(inside()->kept > 0);
    assert_int_equal(shutdown(fd, SHUT_RD), 0);
    drain(fd, 0); /* what it has already, or its socket stays full */
    vsock_driver_settle(&vsock);
    assert_int_equal(inside()->kept, 0);
    while (vsock_driver_hear(&vsock, &header))
        told |= header.op == VIRTIO_VSOCK_OP_SHUTDOWN ? header.flags : 0;
    assert_int_equal(told, VIRTIO_VSOCK_SHUTDOWN_RCV);
    SAY_TEXT(1000, PORT, "to nobody");
    assert_int_equal(inside()->kept, 0);
    host_say(fd, "still here");
    vsock_driver_settle(&vsock);
    EXPECT(RW, 1000);
    assert_memory_equal(vsock.data, "still here", 10);
}

static void test_peer_that_reads_no_more_ends_that_direction_at_the_next_byte(void **state)
{
    (void)state;
    give();
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_STREAM);
    assert_int_equal(shutdown(fd, SHUT_RD), 0);
    vsock_driver_settle(&vsock);
    SAY_TEXT(1000, PORT, "hello");
    assert_int_equal(EXPECT(SHUTDOWN, 1000).flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
    host_say(fd, "still here");
    vsock_driver_settle(&vsock);
    EXPECT(RW, 1000);
}

/* A Unix socket cannot pass it on; what follows must not wait behind it. */
static void test_empty_message_holds_nothing_up(void **state)
{
    (void)state;
    give();
    vsock.header.type = SEQPACKET;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_SEQPACKET);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, NULL, 0);
    vsock_driver_say(&vsock, 1000, PORT, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "next", 4);
    host_expect(fd, "next");
    assert_int_equal(inside()->kept, 0);
}

static void test_message_that_takes_all_of_the_credit_passes(void **state)
{
    enum { CREDIT = 1000 };

    (void)state;
    give();
    vsock.header.type = SEQPACKET;
    vsock.header.buf_alloc = CREDIT;
    cleanup_fd int fd = vsock_driver_guest_calls(&vsock, SOCK_SEQPACKET);
    assert_int_equal(send(fd, bytes, CREDIT, MSG_NOSIGNAL), CREDIT);
    vsock_driver_settle(&vsock);
    assert_int_equal(EXPECT(RW, 1000).len, CREDIT);
    assert_memory_equal(vsock.data, bytes, CREDIT);
}

/* As setup, with tables of descriptors. */
static int setup_for_pieces(void **state)
{
    setup(state);
    guest_driver_reset(&vsock.driver);
    guest_driver_restart(&vsock.driver, SEQPACKET_FEATURE | 1ULL << VIRTIO_RING_F_INDIRECT_DESC);
    vsock_driver_settle(&vsock);
    return 0;
}

TEST_MAIN(cmocka_unit_test_setup_teardown(test_buffers_in_many_pieces_get_every_byte_in_its_place, setup_for_pieces,
                                          teardown),
          vsock_test(test_many_small_buffers_get_every_byte_in_its_place),
          vsock_test(test_buffer_that_is_none_among_good_ones_ends_all),
          vsock_test(test_kept_bytes_are_passed_on_and_kept_no_longer),
          vsock_test(test_peer_that_reads_no_more_is_no_reason_to_keep_anything),
          vsock_test(test_peer_that_reads_no_more_ends_that_direction_at_the_next_byte),
          vsock_test(test_empty_message_holds_nothing_up), vsock_test(test_message_that_takes_all_of_the_credit_passes))
