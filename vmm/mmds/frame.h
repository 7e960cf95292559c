/*
 * Ethernet frames with ARP or TCP over IPv4, to and from bytes. Nothing here remembers anything. Numbers are in host
 * order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_PEEK = 42,                  /* bytes from the start that tell whose a frame is: Ethernet and ARP */
    FRAME_HEADERS_MAX = 14 + 60 + 60, /* Ethernet, IPv4 and TCP with all their options */
    FRAME_HEADERS = 14 + 20 + 20,     /* and without */
    FRAME_MSS = 1460,                 /* what we send in one, and want to be sent */
    FRAME_SENT_MAX = FRAME_HEADERS + FRAME_MSS,
};

enum { SEGMENT_FIN = 1, SEGMENT_SYN = 2, SEGMENT_RST = 4, SEGMENT_PSH = 8, SEGMENT_ACK = 16 };

/* The other end of a connection, which is in the guest. */
struct frame_peer {
    uint8_t mac[6];
    uint16_t port;
    uint32_t address;
};

struct segment {
    struct frame_peer peer; /* whom it is from, or for */
    uint16_t port;          /* ours */
    uint8_t flags;
    uint16_t window;
    uint16_t mss; /* 0: not said */
    uint32_t sequence;
    uint32_t acknowledged;
    const uint8_t *data;
    size_t length;
};

/* Whether the frame that begins with these bytes is for `address`: IPv4 to it, or ARP that asks for it. */
bool frame_is_for(const uint8_t *frame, size_t length, uint32_t address);

/* Who asks for `address`; false when it is not a sound ARP request for it. */
bool frame_parse_arp(const uint8_t *frame, size_t length, uint32_t address, struct frame_peer *peer);
/* `segment`->data points into the frame; false when it is not a sound TCP segment for `address`. */
bool frame_parse_segment(const uint8_t *frame, size_t length, uint32_t address, struct segment *segment);

/* Write a frame from `mac` and `address`; `frame` has room for FRAME_SENT_MAX. Return its length. */
size_t frame_write_arp(uint8_t *frame, const uint8_t mac[6], uint32_t address, const struct frame_peer *peer);
size_t frame_write_segment(uint8_t *frame, const uint8_t mac[6], uint32_t address, const struct segment *segment);
