/*
 * The frame that tells a new peer where the guest is, before the guest says anything itself: a program such as passt
 * learns the address from the first frame, and what it has for the guest until then, a connection to a published port
 * say, goes nowhere. The frame is QEMU's of this purpose: reverse ARP (RFC 903), which asks nothing of anybody.
 */
#include "vmm/virtio/net.h"

#include <arpa/inet.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <string.h>

enum { REQUEST_REVERSE = 3 };

struct announcement {
    uint8_t header[NET_HEADER_SIZE];
    struct ethhdr ethernet;
    struct arphdr arp;
    uint8_t sender[ETH_ALEN];
    uint8_t sender_address[4];
    uint8_t target[ETH_ALEN];
    uint8_t target_address[4];
    uint8_t padding[18]; /* up to 60 bytes */
} __attribute__((packed));

void net_announce(struct net *net)
{
    struct announcement frame = {
        .ethernet.h_proto = htons(ETH_P_RARP),
        .arp = {.ar_hrd = htons(ARPHRD_ETHER),
                .ar_pro = htons(ETH_P_IP),
                .ar_hln = ETH_ALEN,
                .ar_pln = sizeof(frame.sender_address),
                .ar_op = htons(REQUEST_REVERSE)},
    };
    struct net_backend *backend = net->pairs[0].backend;
    struct iovec iov = {&frame, sizeof(frame)};

    _Static_assert(sizeof(frame) == NET_HEADER_SIZE + ETH_ZLEN, "the shortest frame");
    memset(frame.ethernet.h_dest, 0xff, ETH_ALEN);
    memcpy(frame.ethernet.h_source, net->config.mac, ETH_ALEN);
    memcpy(frame.sender, net->config.mac, ETH_ALEN);
    memcpy(frame.target, net->config.mac, ETH_ALEN);
    /* A peer that is gone shows in the first frame of the guest's own. */
    backend->ops->send(backend, &iov, 1, sizeof(frame));
}
