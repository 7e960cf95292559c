#include "tests/unit/vsock_hostile_fixture.h"

#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Any packets and any host peers, in any order. */

static uint32_t random_state;

static uint32_t chance(uint32_t limit)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % limit;
}

static void random_packet(void)
{
    static const uint32_t lengths[] = {0, 0, 0, 1, 100, 5000, 65536};

    vsock.header.type = chance(8) == 0 ? (uint16_t)chance(4) : chance(2) == 0 ? SEQPACKET : STREAM;
    vsock.header.buf_alloc = chance(4) == 0 ? chance(10000) : GUEST_BUFFER;
    vsock.header.fwd_cnt = chance(4) == 0 ? chance(100000) : 0;
    vsock_driver_say(&vsock, chance(6), chance(3) == 0 ? (1u << 30) + chance(40) : PORT + chance(3),
                     (uint16_t)chance(9), chance(4), bytes, lengths[chance(array_length(lengths))]);
}

static void random_peer(int *fd)
{
    char line[32];

    if (*fd < 0) {
        bool stream = chance(2) == 0;

        if (inside()->listener_failed)
            return;
        *fd = host_connect(stream ? vsock.path : vsock.seqpacket, stream ? SOCK_STREAM : SOCK_SEQPACKET);
        snprintf(line, sizeof(line), "CONNECT %u\n", chance(6));
        host_say(*fd, line);
        return;
    }
    switch (chance(5)) {
    case 0:
        if (send(*fd, bytes, 1 + chance(30000), MSG_NOSIGNAL) < 0)
            fd_close(fd);
        break;
    case 1:
        while (recv(*fd, bytes, sizeof(bytes), 0) > 0)
            ;
        break;
    case 2:
        shutdown(*fd, chance(2) == 0 ? SHUT_WR : SHUT_RD);
        break;
    case 3:
        fd_close(fd);
        break;
    default:
        break;
    }
}

static void test_no_sequence_of_packets_and_peers_does_harm(void **state)
{
    enum { ROUNDS = 1500, PEERS = 6 };
    struct virtio_vsock_hdr header;
    int peers[PEERS];
    int listeners[] = {host_listen(&vsock, PORT, SOCK_STREAM), host_listen(&vsock, PORT + 1, SOCK_SEQPACKET)};
    int accepted[PEERS];

    (void)state;
    memset(peers, -1, sizeof(peers));
    memset(accepted, -1, sizeof(accepted));
    for (random_state = 1; random_state == 1; chance(2))
        ;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = chance(PEERS);

        random_packet();
        random_peer(&peers[slot]);
        slot = chance(PEERS);
        if (accepted[slot] < 0)
            accepted[slot] = accept4(listeners[chance(2)], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        else
            random_peer(&accepted[slot]);
        if (chance(3) == 0)
            vsock_driver_give(&vsock, 1 + chance(8), HEADER + 1 + chance(4000));
        while (vsock_driver_hear(&vsock, &header))
            if (header.op == VIRTIO_VSOCK_OP_REQUEST && chance(2) == 0) {
                vsock.header.type = header.type;
                SAY(header.dst_port, header.src_port, RESPONSE);
            }
        assert_false(vsock.driver.failed);
        assert_true(inside()->connection_count < 400);
        if (round % 500 == 499) {
            guest_driver_reset(&vsock.driver);
            assert_int_equal(inside()->connection_count, 0);
            assert_int_equal(inside()->kept, 0);
            guest_driver_restart(&vsock.driver, SEQPACKET_FEATURE | 1ULL << VIRTIO_RING_F_EVENT_IDX);
            vsock.given = 0;
        }
    }
    for (unsigned i = 0; i < PEERS; i++) {
        fd_close(&peers[i]);
        fd_close(&accepted[i]);
    }
    fd_close(&listeners[0]);
    fd_close(&listeners[1]);
    host_forget(&vsock, PORT);
    host_forget(&vsock, PORT + 1);
}

TEST_MAIN(vsock_test(test_no_sequence_of_packets_and_peers_does_harm))
