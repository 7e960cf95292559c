/* A client of the metadata service that speaks TCP frame by frame. */
#pragma once

#include "tests/unit/harness.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/metrics.h"
#include "vmm/mmds/mmds_net.h"

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

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
    (void)state;
    mmds_net_free(net);
    mmds_free(&mmds);
    return 0;
}

/* A frame of the guest's in `frame`: what frame_write_segment makes for the other direction. */
static inline size_t make(const struct client *client, uint8_t flags, const void *data, size_t length, uint16_t mss)
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

static inline void say(struct client *client, uint8_t flags, const void *data, size_t length)
{
    size_t size = make(client, flags, data, length, (flags & SEGMENT_SYN) != 0 ? MSS : 0);

    client->next_out += (uint32_t)length + ((flags & SEGMENT_SYN) != 0) + ((flags & SEGMENT_FIN) != 0);
    assert_true(mmds_net_takes(net, frame, FRAME_PEEK));
    mmds_net_receive(net, frame, size, now_us);
}

/* The next frame for the guest; its checksums must be right. False when there is none. */
static inline bool hear(struct segment *segment)
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

static inline struct segment must_hear(uint8_t flags)
{
    struct segment segment;

    assert_true(hear(&segment));
    assert_int_equal(segment.flags, flags);
    return segment;
}

static inline void assert_silence(void)
{
    struct segment segment;

    assert_false(hear(&segment));
}

static inline struct client open_connection(uint16_t port)
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

#define GET_A "GET /a HTTP/1.1\r\n\r\n"
#define GET_LARGE "GET /large HTTP/1.1\r\n\r\n"

#define net_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
