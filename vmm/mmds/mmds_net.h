/*
 * The network at whose one address the metadata service is: ARP, and TCP on port 80. One for each interface that
 * leads there. It is handed the guest's frames and asked for frames to give it; it has no timer, descriptor or thread
 * of its own, and what a guest makes it keep is bounded.
 *
 * Times are CLOCK_MONOTONIC in microseconds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/mmds/frame.h"
#include "vmm/mmds/mmds.h"

enum {
    MMDS_NET_CONNECTIONS_MAX = 30,
    MMDS_NET_REQUEST_MAX = 4096, /* bytes of one request, and the window that is offered */
    MMDS_NET_FRAME_MAX = FRAME_HEADERS_MAX + MMDS_NET_REQUEST_MAX, /* of the guest's: no sound one is longer */
};

#define MMDS_NET_NEVER UINT64_MAX

struct mmds_net;

/* `mmds` is borrowed; `address` in host order. NULL without memory. */
struct mmds_net *mmds_net_new(struct mmds *mmds, uint32_t address);
void mmds_net_free(struct mmds_net *net); /* NULL is fine */

/* Whether the frame that begins so (FRAME_PEEK bytes, or all of a shorter one) is for the service. */
bool mmds_net_takes(const struct mmds_net *net, const uint8_t *frame, size_t length);
/* A frame of the guest's, whatever it is. */
void mmds_net_receive(struct mmds_net *net, const uint8_t *frame, size_t length, uint64_t now_us);
/* Writes the next frame for the guest (room for FRAME_SENT_MAX); returns its length, 0 when there is none now. */
size_t mmds_net_send(struct mmds_net *net, uint8_t *frame, uint64_t now_us);
/* When mmds_net_send will have one though the guest sends nothing: MMDS_NET_NEVER, or a time. */
uint64_t mmds_net_deadline(const struct mmds_net *net);
/* Forgets all connections: the guest's driver is gone. */
void mmds_net_reset(struct mmds_net *net);
