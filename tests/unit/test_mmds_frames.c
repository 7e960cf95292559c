/* The metadata service and frames that are no TCP, or wrong. */
#include "tests/unit/mmds_net_fixture.h"

#include <string.h>

static void test_arp_request_is_answered(void **state)
{
    static const uint8_t request[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,    9,    8,    6,
                                        0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,    0,    0,    9,
                                        0xa9, 0xfe, 0,    5,    0,    0,    0, 0, 0, 0, 0xa9, 0xfe, 0xa9, 0xfe};
    static const uint8_t reply[42] = {2,    0,    0,    0,    0, 9, 6, 1, 0x23, 0x45, 0x67, 1,    8,    6,
                                      0,    1,    8,    0,    6, 4, 0, 2, 6,    1,    0x23, 0x45, 0x67, 1,
                                      0xa9, 0xfe, 0xa9, 0xfe, 2, 0, 0, 0, 0,    9,    0xa9, 0xfe, 0,    5};
    uint8_t other[42];

    (void)state;
    assert_true(mmds_net_takes(net, request, sizeof(request)));
    mmds_net_receive(net, request, sizeof(request), now_us);
    assert_int_equal(mmds_net_send(net, answer, now_us), 42);
    assert_memory_equal(answer, reply, sizeof(reply));
    assert_silence();
    for (size_t i = 0; i < sizeof(request); i++)
        assert_false(mmds_net_takes(net, request, i));
    memcpy(other, request, sizeof(other));
    other[41]++;
    assert_false(mmds_net_takes(net, other, sizeof(other)));
    memcpy(other, reply, sizeof(other));
    assert_false(mmds_net_takes(net, other, sizeof(other)));
    for (unsigned i = 0; i < 100; i++)
        mmds_net_receive(net, request, sizeof(request), now_us);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(mmds_net_send(net, answer, now_us), 42);
    assert_silence();
}

static void assert_dropped(size_t size)
{
    mmds_net_receive(net, frame, size, now_us);
    assert_silence();
    assert_int_equal(metrics.mmds.connections_created, 0);
}

static void test_malformed_frames_are_dropped(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW};
    size_t size = make(&client, SEGMENT_SYN, NULL, 0, MSS);

    (void)state;
    for (size_t length = 0; length < size; length++)
        assert_dropped(length);
    for (size_t at = 14; at < 34; at++) { /* the header's checksum tells */
        make(&client, SEGMENT_SYN, NULL, 0, MSS);
        frame[at] ^= 0x40;
        assert_dropped(size);
    }
    make(&client, SEGMENT_SYN, NULL, 0, MSS);
    frame[46] = 0x40; /* a header shorter than TCP's */
    assert_dropped(size);
    frame[46] = 0xf0; /* longer than the segment */
    assert_dropped(size);
    frame[46] = 0x60;
    frame[55] = 0; /* an option without length, too short, beyond the end, of a wrong size */
    assert_dropped(size);
    frame[55] = 1;
    assert_dropped(size);
    frame[55] = 5;
    assert_dropped(size);
    frame[55] = 3;
    assert_dropped(size);
    frame[54] = 8; /* one that is passed over: not for ever */
    frame[55] = 0;
    assert_dropped(size);
    frame[55] = 1;
    assert_dropped(size);
    frame[54] = 1;
    frame[55] = 1;
    frame[56] = 1;
    frame[57] = 9; /* an option's kind is the header's last byte */
    assert_dropped(size);
    frame[57] = 0;
    mmds_net_receive(net, frame, size, now_us);
    must_hear(SEGMENT_SYN | SEGMENT_ACK);
    memset(frame, 0xff, sizeof(frame));
    mmds_net_receive(net, frame, sizeof(frame), now_us);
    assert_silence();
}

static void test_any_bytes_are_survived(void **state)
{
    struct client client = open_connection(PORT);
    uint32_t random = 12345;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        size_t size = make(&client, (uint8_t)(round & 0x1f), GET_A, round % 20, 0);

        for (unsigned i = 0; i < round % 4; i++) {
            random = random * 1103515245 + 12345;
            frame[34 + (random >> 16) % (size - 34)] = (uint8_t)(random >> 8); /* behind the checksum of IPv4 */
        }
        mmds_net_receive(net, frame, size, now_us);
        now_us += 1000;
        for (unsigned i = 0; i < 100 && mmds_net_send(net, answer, now_us) > 0; i++)
            ;
    }
    mmds_net_reset(net);
    assert_true(mmds_net_deadline(net) == MMDS_NET_NEVER);
    assert_silence();
}

TEST_MAIN(net_test(test_arp_request_is_answered), net_test(test_malformed_frames_are_dropped),
          net_test(test_any_bytes_are_survived))
