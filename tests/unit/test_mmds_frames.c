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

/* After a change, for what only the checksum would tell. */
static void seal(size_t header)
{
    uint32_t sum = 0;

    frame[24] = frame[25] = 0;
    for (size_t i = 0; i < header; i += 2)
        sum += (uint32_t)frame[14 + i] << 8 | frame[15 + i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    frame[24] = (uint8_t)(~sum >> 8);
    frame[25] = (uint8_t)~sum;
}

/* Places and values in a SYN that has nothing else wrong with it. */
static void test_headers_with_a_right_checksum_are_looked_at_closely(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
        size_t header; /* of IPv4, as it says then */
    } wrong[] = {
        {14, 0x44, 16},                 /* shorter than a header is */
        {14, 0x40, 0},  {14, 0x55, 20}, /* of version 5 */
        {14, 0x4f, 60},                 /* longer than the packet */
        {17, 19, 20},                   /* a packet shorter than its header */
        {17, 0, 20},    {17, 39, 20},   /* than TCP's */
        {17, 20, 20},   {17, 45, 20},   /* longer than the frame */
        {16, 1, 20},    {20, 0x20, 20}, /* more fragments follow */
        {21, 1, 20},                    /* a fragment that is not the first */
        {20, 0x1f, 20}, {23, 17, 20},   /* UDP */
        {30, 0xa8, 20},                 /* for another address */
    };
    struct client client = {.port = PORT, .window = WINDOW};

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        size_t size = make(&client, SEGMENT_SYN, NULL, 0, MSS);

        assert_int_equal(size, 58);
        memset(frame + size, 0, sizeof(frame) - size);
        frame[wrong[i].at] = wrong[i].value;
        seal(wrong[i].header);
        mmds_net_receive(net, frame, size, now_us);
        if (mmds_net_send(net, answer, now_us) > 0)
            fail_msg("case %zu is answered", i);
    }
    assert_int_equal(metrics.mmds.connections_created, 0);

    /* What may be there: "do not fragment", a kind of service, more in the frame than the packet. */
    size_t size = make(&client, SEGMENT_SYN, NULL, 0, MSS);
    frame[15] = 0x10;
    frame[20] = 0x40;
    seal(20);
    mmds_net_receive(net, frame, size + 6, now_us);
    must_hear(SEGMENT_SYN | SEGMENT_ACK);
}

/* How long a segment of the answer to a SYN with these four bytes of options is; 0: there is none. */
static size_t mss_with(const uint8_t options[4], uint16_t port)
{
    struct client client = {.port = port, .window = WINDOW};
    size_t size = make(&client, SEGMENT_SYN, NULL, 0, MSS);
    struct segment segment;

    memcpy(frame + 54, options, 4);
    mmds_net_receive(net, frame, size, now_us);
    if (!hear(&segment))
        return 0;
    client.next_out++;
    client.next_in = segment.sequence + 1;
    say(&client, SEGMENT_ACK | SEGMENT_PSH, GET_LARGE, strlen(GET_LARGE));
    assert_true(hear(&segment));
    size_t length = segment.length;
    client.next_in = segment.sequence;
    say(&client, SEGMENT_RST, NULL, 0);
    while (hear(&segment))
        ;
    return length;
}

static void test_options_are_understood_or_passed_over(void **state)
{
    static const struct {
        uint8_t bytes[4];
        size_t mss;
    } cases[] = {
        {{2, 4, 2, 0}, 512}, /* the largest segment */
        {{4, 2, 1, 1}, 536}, /* another option, of the least length */
        {{1, 1, 4, 2}, 536}, /* at the end */
        {{0, 2, 9, 9}, 536}, /* nothing after the end is looked at */
        {{8, 4, 9, 9}, 536}, {{3, 3, 7, 0}, 536}, {{1, 3, 3, 7}, 536}, {{2, 3, 2, 0}, 0},
        {{2, 2, 2, 0}, 0},   {{1, 2, 3, 4}, 0}, /* the largest segment, of a wrong size */
        {{1, 1, 1, 2}, 0},   {{4, 1, 1, 1}, 0},   {{4, 0, 1, 1}, 0},   {{4, 5, 1, 1}, 0},
    };

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        size_t mss = mss_with(cases[i].bytes, (uint16_t)(PORT + i));

        if (mss != cases[i].mss)
            fail_msg("case %zu: %zu, expected %zu", i, mss, cases[i].mss);
    }
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
          net_test(test_headers_with_a_right_checksum_are_looked_at_closely),
          net_test(test_options_are_understood_or_passed_over), net_test(test_any_bytes_are_survived))
