/* The metadata service's TCP. */
#include "tests/unit/mmds_net_fixture.h"

#include <string.h>

static void say_text(struct client *client, const char *text)
{
    say(client, SEGMENT_ACK | SEGMENT_PSH, text, strlen(text));
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

/* The second waits until the first's answer has been taken, and is a whole one of its own. */
static void test_requests_may_come_together(void **state)
{
    struct client client = open_connection(PORT);
    char tail[64] = "";
    bool fin;

    (void)state;
    say_text(&client, GET_A GET_LARGE GET_A);
    assert_true(take_all(&client, tail, &fin) > 20000);
    assert_string_equal(tail + 63 - strlen("hello"), "hello");
    assert_int_equal(metrics.mmds.tx_count, 3);
    assert_false(fin);
}

/* What is sent again may have been on its way: what comes next is after all that was acknowledged. */
static void test_late_acknowledgement_of_all_is_not_answered_with_old_data(void **state)
{
    struct client client = open_connection(PORT);
    struct segment segment;
    uint32_t end = 0;

    (void)state;
    client.window = 10 * MSS;
    say_text(&client, GET_LARGE);
    while (hear(&segment))
        end = segment.sequence + (uint32_t)segment.length;
    assert_int_equal(end - client.next_in, 10 * MSS);
    now_us = mmds_net_deadline(net);
    assert_true(hear(&segment));
    assert_int_equal(segment.sequence, client.next_in);
    client.next_in = end;
    say(&client, SEGMENT_ACK, NULL, 0);
    assert_true(hear(&segment));
    assert_int_equal(segment.sequence, end);
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

TEST_MAIN(net_test(test_one_connection_serves_many_requests_and_closes),
          net_test(test_service_closes_when_it_is_asked_to), net_test(test_guest_may_close_its_side_with_the_request),
          net_test(test_request_may_come_byte_by_byte_and_twice), net_test(test_requests_may_come_together),
          net_test(test_late_acknowledgement_of_all_is_not_answered_with_old_data),
          net_test(test_data_out_of_order_is_asked_for_again), net_test(test_overlapping_data_counts_once),
          net_test(test_answer_keeps_to_the_window_and_probes_a_closed_one),
          net_test(test_lost_segments_are_sent_again_and_slower_each_time),
          net_test(test_handshake_that_nobody_ends_is_given_up), net_test(test_repeated_syn_is_answered_the_same_way),
          net_test(test_segments_of_no_connection_are_reset), net_test(test_other_ports_are_closed),
          net_test(test_only_a_reset_at_the_next_byte_ends_a_connection),
          net_test(test_acknowledgement_of_what_was_never_sent_changes_nothing),
          net_test(test_wrong_acknowledgement_of_the_handshake_is_reset),
          net_test(test_request_that_never_ends_is_refused_and_its_window_kept),
          net_test(test_connections_have_a_limit_and_the_idle_make_room),
          net_test(test_tiny_segments_are_not_made_because_the_guest_says_so))
