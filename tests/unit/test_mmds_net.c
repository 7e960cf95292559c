/* The metadata service's TCP, spoken to with frames. */
#include "tests/unit/harness.h"

#include "vmm/metrics.h"
#include "vmm/mmds/mmds_net.h"

#include <stdlib.h>
#include <string.h>

enum { PORT = 40000, MSS = 500, WINDOW = 60000, SECOND_US = 1000000 };

static const uint32_t address = 0xa9fea9fe, guest = 0xa9fe0005;
static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 9};

static struct mmds mmds;
static struct mmds_net *net;
static uint64_t now_us;
static uint8_t frame[MMDS_NET_FRAME_MAX + 100], answer[FRAME_SENT_MAX];

/* The guest's end of a connection. */
struct client {
    uint16_t port;
    uint16_t window;
    uint32_t next_out, next_in;
};

static int setup(void **state)
{
    (void)state;
    mmds = (struct mmds){.limit = 51200, .contents = mmds_value_new(MMDS_OBJECT, NULL, 0)};
    mmds_object_set(mmds.contents, "a", 1, mmds_value_new(MMDS_STRING, "hello", 5));
    char *large = malloc(20000);
    memset(large, 'x', 20000);
    mmds_object_set(mmds.contents, "large", 5, mmds_value_new(MMDS_STRING, large, 20000));
    free(large);
    memset(&metrics.mmds, 0, sizeof(metrics.mmds));
    now_us = 100 * SECOND_US;
    net = mmds_net_new(&mmds, address);
    assert_non_null(net);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mmds_net_free(net);
    mmds_free(&mmds);
    return 0;
}

/* A frame of the guest's in `frame`: what frame_write_segment makes for the other direction. */
static size_t make(const struct client *client, uint8_t flags, const void *data, size_t length, uint16_t mss)
{
    const struct segment segment = {
        .peer = {.mac = {6, 1, 0x23, 0x45, 0x67, 1}, .port = 80, .address = address},
        .port = client->port,
        .flags = flags,
        .window = client->window,
        .mss = mss,
        .sequence = client->next_out,
        .acknowledged = client->next_in,
        .data = data,
        .length = length,
    };

    return frame_write_segment(frame, guest_mac, guest, &segment);
}

static void say(struct client *client, uint8_t flags, const void *data, size_t length)
{
    size_t size = make(client, flags, data, length, (flags & SEGMENT_SYN) != 0 ? MSS : 0);

    client->next_out += (uint32_t)length + ((flags & SEGMENT_SYN) != 0) + ((flags & SEGMENT_FIN) != 0);
    assert_true(mmds_net_takes(net, frame, FRAME_PEEK));
    mmds_net_receive(net, frame, size, now_us);
}

static void say_text(struct client *client, const char *text)
{
    say(client, SEGMENT_ACK | SEGMENT_PSH, text, strlen(text));
}

/* The next frame for the guest; its checksums must be right. False when there is none. */
static bool hear(struct segment *segment)
{
    size_t size = mmds_net_send(net, answer, now_us);

    if (size == 0)
        return false;
    assert_true(frame_parse_segment(answer, size, guest, segment));
    assert_memory_equal(answer, guest_mac, 6);
    assert_int_equal(segment->peer.address, address);
    assert_int_equal(segment->peer.port, 80);

    uint32_t sum = 6 + (uint32_t)(size - 34);
    for (size_t i = 26; i < size; i += 2)
        sum += (uint32_t)answer[i] << 8 | (i + 1 < size ? answer[i + 1] : 0);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    assert_int_equal(sum, 0xffff);
    return true;
}

static struct segment must_hear(uint8_t flags)
{
    struct segment segment;

    assert_true(hear(&segment));
    assert_int_equal(segment.flags, flags);
    return segment;
}

static void assert_silence(void)
{
    struct segment segment;

    assert_false(hear(&segment));
}

static struct client open_connection(uint16_t port)
{
    struct client client = {.port = port, .window = WINDOW, .next_out = 0xfffffff0}; /* wraps soon */

    say(&client, SEGMENT_SYN, NULL, 0);
    struct segment segment = must_hear(SEGMENT_SYN | SEGMENT_ACK);
    assert_int_equal(segment.mss, FRAME_MSS);
    assert_int_equal(segment.acknowledged, client.next_out);
    client.next_in = segment.sequence + 1;
    say(&client, SEGMENT_ACK, NULL, 0);
    assert_silence();
    return client;
}

/* Takes data until silence, acknowledging each segment; returns how much came, of which the end is in `tail`. */
static size_t take_all(struct client *client, char tail[64], bool *fin)
{
    struct segment segment;
    size_t total = 0;

    *fin = false;
    while (hear(&segment)) {
        assert_int_equal(segment.sequence, client->next_in);
        assert_true(segment.length <= MSS);
        for (size_t i = 0; i < segment.length; i++, total++) {
            memmove(tail, tail + 1, 62);
            tail[62] = (char)segment.data[i];
        }
        client->next_in += (uint32_t)segment.length;
        if ((segment.flags & SEGMENT_FIN) != 0) {
            client->next_in++;
            *fin = true;
        }
        if (segment.length > 0 || (segment.flags & SEGMENT_FIN) != 0)
            say(client, SEGMENT_ACK, NULL, 0);
    }
    tail[63] = '\0';
    return total;
}

static void assert_gets(struct client *client, const char *request, const char *end)
{
    char tail[64] = "";
    bool fin;

    say_text(client, request);
    assert_true(take_all(client, tail, &fin) > 0);
    if (strcmp(tail + 63 - strlen(end), end) != 0)
        fail_msg("%s: ends with %s, expected %s", request, tail, end);
    assert_false(fin);
}

#define GET_A "GET /a HTTP/1.1\r\n\r\n"
#define GET_LARGE "GET /large HTTP/1.1\r\n\r\n"

static void test_one_connection_serves_many_requests_and_closes(void **state)
{
    struct client client = open_connection(PORT);

    (void)state;
    assert_gets(&client, GET_A, "hello");
    assert_gets(&client, GET_LARGE, "xxx");
    assert_gets(&client, GET_A, "hello");
    say(&client, SEGMENT_FIN | SEGMENT_ACK, NULL, 0);
    struct segment segment = must_hear(SEGMENT_FIN | SEGMENT_ACK);
    assert_int_equal(segment.acknowledged, client.next_out);
    client.next_in++;
    say(&client, SEGMENT_ACK, NULL, 0);
    assert_silence();
    assert_int_equal(metrics.mmds.connections_created, 1);
    assert_int_equal(metrics.mmds.connections_destroyed, 1);
    assert_true(mmds_net_deadline(net) == MMDS_NET_NEVER);
}

static void test_service_closes_when_it_is_asked_to(void **state)
{
    struct client client = open_connection(PORT);
    char tail[64] = "";
    bool fin;

    (void)state;
    say_text(&client, "GET /a HTTP/1.0\r\n\r\n");
    take_all(&client, tail, &fin);
    assert_true(fin);
    say(&client, SEGMENT_FIN | SEGMENT_ACK, NULL, 0);
    struct segment segment = must_hear(SEGMENT_ACK);
    assert_int_equal(segment.acknowledged, client.next_out);
    assert_silence();
    assert_int_equal(metrics.mmds.connections_destroyed, 1);
}

static void test_guest_may_close_its_side_with_the_request(void **state)
{
    struct client client = open_connection(PORT);
    char tail[64] = "";
    bool fin;

    (void)state;
    say(&client, SEGMENT_ACK | SEGMENT_FIN, GET_A, strlen(GET_A));
    take_all(&client, tail, &fin);
    assert_string_equal(tail + 58, "hello");
    assert_true(fin);
    assert_int_equal(metrics.mmds.connections_destroyed, 1);
}

static void test_request_may_come_byte_by_byte_and_twice(void **state)
{
    struct client client = open_connection(PORT);
    char tail[64] = "";
    bool fin;

    (void)state;
    for (const char *at = GET_A GET_A; *at != '\0'; at++) {
        say(&client, SEGMENT_ACK, at, 1);
        client.next_out--;
        say(&client, SEGMENT_ACK, at, 1); /* sent again for nothing */
        take_all(&client, tail, &fin);
        assert_silence();
    }
    assert_string_equal(tail + 58, "hello");
    assert_int_equal(metrics.mmds.tx_count, 2);
}

static void test_data_out_of_order_is_asked_for_again(void **state)
{
    struct client client = open_connection(PORT);

    (void)state;
    client.next_out += 10;
    say_text(&client, "P/1.1\r\n\r\n");
    client.next_out -= 10 + 9;
    assert_int_equal(must_hear(SEGMENT_ACK).acknowledged, client.next_out);
    assert_gets(&client, GET_A, "hello");
}

static void test_overlapping_data_counts_once(void **state)
{
    struct client client = open_connection(PORT);

    (void)state;
    say_text(&client, "GET /a HT");
    must_hear(SEGMENT_ACK);
    client.next_out -= 9;
    assert_gets(&client, GET_A, "hello");
}

static void test_answer_keeps_to_the_window_and_probes_a_closed_one(void **state)
{
    struct client client = open_connection(PORT);
    struct segment segment;
    size_t total = 0;

    (void)state;
    client.window = 700;
    say_text(&client, GET_LARGE);
    while (hear(&segment))
        total += segment.length;
    assert_int_equal(total, 700);
    client.next_in += 700;
    client.window = 0;
    say(&client, SEGMENT_ACK, NULL, 0);
    assert_silence();
    for (unsigned probe = 0; probe < 3; probe++) {
        assert_true(mmds_net_deadline(net) > now_us && mmds_net_deadline(net) != MMDS_NET_NEVER);
        now_us = mmds_net_deadline(net);
        assert_int_equal(must_hear(SEGMENT_ACK | SEGMENT_PSH).length, 1);
        assert_silence();
    }
    client.window = WINDOW;
    say(&client, SEGMENT_ACK, NULL, 0);
    char tail[64] = "";
    bool fin;
    assert_true(take_all(&client, tail, &fin) > 19000);
}

static void test_lost_segments_are_sent_again_and_slower_each_time(void **state)
{
    struct client client = open_connection(PORT);
    struct segment segment;
    uint64_t last_us = 0;
    unsigned rounds = 0;

    (void)state;
    say_text(&client, GET_A);
    assert_true(hear(&segment));
    assert_silence();
    for (; mmds_net_deadline(net) != MMDS_NET_NEVER; rounds++) {
        uint64_t wait_us = mmds_net_deadline(net) - now_us;

        assert_true(wait_us >= last_us);
        last_us = wait_us;
        now_us = mmds_net_deadline(net) - 1;
        assert_silence();
        now_us++;
        assert_true(hear(&segment));
        if (segment.flags == (SEGMENT_RST | SEGMENT_ACK))
            break;
        assert_int_equal(segment.sequence, client.next_in);
        assert_silence();
    }
    assert_int_equal(rounds, 8);
    assert_silence();
    assert_true(mmds_net_deadline(net) == MMDS_NET_NEVER);
    assert_int_equal(metrics.mmds.connections_destroyed, 1);
}

static void test_handshake_that_nobody_ends_is_given_up(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW};
    struct segment segment;
    unsigned sent = 0;

    (void)state;
    say(&client, SEGMENT_SYN, NULL, 0);
    while (hear(&segment) || mmds_net_deadline(net) != MMDS_NET_NEVER) {
        sent++;
        if (mmds_net_deadline(net) != MMDS_NET_NEVER)
            now_us = mmds_net_deadline(net);
    }
    assert_true(sent > 4 && sent < 30);
    assert_int_equal(metrics.mmds.connections_destroyed, 1);
}

static void test_repeated_syn_is_answered_the_same_way(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW};

    (void)state;
    say(&client, SEGMENT_SYN, NULL, 0);
    uint32_t sequence = must_hear(SEGMENT_SYN | SEGMENT_ACK).sequence;
    client.next_out--;
    say(&client, SEGMENT_SYN, NULL, 0);
    assert_int_equal(must_hear(SEGMENT_SYN | SEGMENT_ACK).sequence, sequence);
    client.next_in = sequence + 1;
    say(&client, SEGMENT_ACK, NULL, 0);
    assert_gets(&client, GET_A, "hello");
}

static void test_segments_of_no_connection_are_reset(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW, .next_out = 1000, .next_in = 77};

    (void)state;
    say(&client, SEGMENT_ACK, "x", 1);
    struct segment segment = must_hear(SEGMENT_RST);
    assert_int_equal(segment.sequence, 77);
    say(&client, SEGMENT_FIN, "x", 1);
    segment = must_hear(SEGMENT_RST | SEGMENT_ACK);
    assert_int_equal(segment.acknowledged, client.next_out);
    say(&client, SEGMENT_RST, NULL, 0);
    say(&client, SEGMENT_RST | SEGMENT_ACK, NULL, 0);
    assert_silence();
    for (unsigned i = 0; i < 100; i++)
        say(&client, SEGMENT_ACK, "x", 1);
    for (unsigned i = 0; i < 10; i++)
        must_hear(SEGMENT_RST);
    assert_silence(); /* no more than that is kept */
}

static void test_other_ports_are_closed(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW};
    size_t size = make(&client, SEGMENT_SYN, NULL, 0, 0);

    (void)state;
    frame[37] = 81;
    mmds_net_receive(net, frame, size, now_us);
    size = mmds_net_send(net, answer, now_us);
    struct segment segment;
    assert_true(frame_parse_segment(answer, size, guest, &segment));
    assert_int_equal(segment.flags, SEGMENT_RST | SEGMENT_ACK);
    assert_int_equal(segment.peer.port, 81);
}

static void test_only_a_reset_at_the_next_byte_ends_a_connection(void **state)
{
    struct client client = open_connection(PORT);

    (void)state;
    client.next_out++;
    say(&client, SEGMENT_RST, NULL, 0);
    client.next_out--;
    assert_gets(&client, GET_A, "hello");
    say(&client, SEGMENT_SYN, NULL, 0); /* as after a reboot of the guest: asks whether it is meant */
    client.next_out--;
    must_hear(SEGMENT_ACK);
    say(&client, SEGMENT_RST, NULL, 0);
    assert_silence();
    assert_int_equal(metrics.mmds.connections_destroyed, 1);
    open_connection(PORT);
}

static void test_acknowledgement_of_what_was_never_sent_changes_nothing(void **state)
{
    struct client client = open_connection(PORT);

    (void)state;
    client.next_in += 1000;
    say_text(&client, GET_A);
    client.next_in -= 1000;
    client.next_out -= (uint32_t)strlen(GET_A);
    assert_int_equal(must_hear(SEGMENT_ACK).acknowledged, client.next_out);
    client.next_in -= 1000; /* an old one: its data is taken */
    say_text(&client, "GET /a");
    client.next_in += 1000;
    assert_int_equal(must_hear(SEGMENT_ACK).acknowledged, client.next_out);
    assert_gets(&client, " HTTP/1.1\r\n\r\n", "hello");
}

static void test_wrong_acknowledgement_of_the_handshake_is_reset(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW};

    (void)state;
    say(&client, SEGMENT_SYN, NULL, 0);
    must_hear(SEGMENT_SYN | SEGMENT_ACK);
    client.next_in = 12345;
    say_text(&client, GET_A);
    assert_int_equal(must_hear(SEGMENT_RST).sequence, 12345);
    assert_int_equal(metrics.mmds.tx_count, 0);
}

static void test_request_that_never_ends_is_refused_and_its_window_kept(void **state)
{
    struct client client = open_connection(PORT);
    char part[600];
    char tail[64] = "";
    bool fin = false;

    (void)state;
    memset(part, 'a', sizeof(part));
    say_text(&client, "GET /");
    must_hear(SEGMENT_ACK);
    for (unsigned i = 0; i < 10 && !fin; i++) {
        say(&client, SEGMENT_ACK, part, sizeof(part));
        take_all(&client, tail, &fin);
    }
    assert_true(fin);
}

static void test_connections_have_a_limit_and_the_idle_make_room(void **state)
{
    struct client first = {0}, late = {.port = 1, .window = WINDOW};

    (void)state;
    for (uint16_t i = 0; i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct client client = open_connection((uint16_t)(PORT + i));

        now_us += 10;
        if (i == 0)
            first = client;
    }
    say(&late, SEGMENT_SYN, NULL, 0);
    must_hear(SEGMENT_RST | SEGMENT_ACK);
    assert_silence();
    now_us += 10 * SECOND_US;
    assert_gets(&first, GET_A, "hello"); /* not idle any more */
    say(&late, SEGMENT_SYN, NULL, 0);
    struct segment segment = must_hear(SEGMENT_RST | SEGMENT_ACK); /* to the idlest, the second */
    assert_int_equal(segment.port, PORT + 1);
    must_hear(SEGMENT_SYN | SEGMENT_ACK);
    assert_gets(&first, GET_A, "hello");
}

static void test_tiny_segments_are_not_made_because_the_guest_says_so(void **state)
{
    struct client client = {.port = PORT, .window = WINDOW};
    struct segment segment;
    unsigned segments = 0;

    (void)state;
    mmds_net_receive(net, frame, make(&client, SEGMENT_SYN, NULL, 0, 1), now_us);
    client.next_out++;
    client.next_in = must_hear(SEGMENT_SYN | SEGMENT_ACK).sequence + 1;
    say_text(&client, GET_A);
    while (hear(&segment))
        segments++;
    assert_true(segments > 1 && segments < 5);
}

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

#define net_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(net_test(test_one_connection_serves_many_requests_and_closes),
          net_test(test_service_closes_when_it_is_asked_to), net_test(test_guest_may_close_its_side_with_the_request),
          net_test(test_request_may_come_byte_by_byte_and_twice), net_test(test_data_out_of_order_is_asked_for_again),
          net_test(test_overlapping_data_counts_once),
          net_test(test_answer_keeps_to_the_window_and_probes_a_closed_one),
          net_test(test_lost_segments_are_sent_again_and_slower_each_time),
          net_test(test_handshake_that_nobody_ends_is_given_up), net_test(test_repeated_syn_is_answered_the_same_way),
          net_test(test_segments_of_no_connection_are_reset), net_test(test_other_ports_are_closed),
          net_test(test_only_a_reset_at_the_next_byte_ends_a_connection),
          net_test(test_acknowledgement_of_what_was_never_sent_changes_nothing),
          net_test(test_wrong_acknowledgement_of_the_handshake_is_reset),
          net_test(test_request_that_never_ends_is_refused_and_its_window_kept),
          net_test(test_connections_have_a_limit_and_the_idle_make_room),
          net_test(test_tiny_segments_are_not_made_because_the_guest_says_so), net_test(test_arp_request_is_answered),
          net_test(test_malformed_frames_are_dropped), net_test(test_any_bytes_are_survived))
