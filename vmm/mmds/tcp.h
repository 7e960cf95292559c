/* What tcp.c (the network) and tcp_connection.c (one connection) share; others have mmds_net.h. */
#pragma once

#include "vmm/mmds/mmds_net.h"

enum {
    TCP_HTTP_PORT = 80,
    TCP_RESETS_MAX = 10, /* waiting to be sent; more are not sent */
    TCP_ARPS_MAX = 8,
};

struct tcp_connection {
    bool used;
    bool established;
    bool peer_done;  /* its FIN has come */
    bool closing;    /* ours follows what is still to be sent */
    bool ack_wanted; /* a segment that acknowledges, whatever else it carries */
    bool probing;    /* the timer allows one byte into a closed window */
    uint8_t retries;
    struct frame_peer peer;
    uint16_t mss;
    uint32_t window;  /* what the peer takes beyond `unacked` */
    uint32_t next_in; /* sequence number of the next byte from the peer */

    /* Sequence numbers of what we send: acknowledged up to, sent up to (since the timer last went back), sent ever. */
    uint32_t unacked, next_out, sent_max;
    uint32_t answer_start; /* of the answer's first byte */
    struct mmds_answer answer;

    uint64_t deadline_us; /* of the retransmission timer */
    uint64_t progress_us; /* when something was last achieved */
    size_t request_length;
    char request[MMDS_NET_REQUEST_MAX];
};

struct mmds_net {
    struct mmds *mmds;
    uint32_t address;
    uint32_t sequence; /* of the next connection */
    unsigned connection_count;
    unsigned turn; /* whose it is to send */
    size_t arp_count, reset_count;
    struct frame_peer arps[TCP_ARPS_MAX];
    struct segment resets[TCP_RESETS_MAX];
    struct tcp_connection connections[MMDS_NET_CONNECTIONS_MAX];
};

/* Locally administered, and the same in every VM: it is seen on no real network. */
extern const uint8_t tcp_mac[6];

/* tcp.c */

void tcp_reset_queue(struct mmds_net *net, const struct frame_peer *peer, uint16_t port, uint32_t sequence,
                     uint32_t acknowledged, uint8_t flags);
/* Answers a segment that belongs to no connection (3.10.7.1). */
void tcp_refuse(struct mmds_net *net, const struct segment *segment);
void tcp_connection_end(struct mmds_net *net, struct tcp_connection *connection);
/* The same with a RST. */
void tcp_connection_abort(struct mmds_net *net, struct tcp_connection *connection);

/* tcp_connection.c; what begins is one that a SYN asks for, in a place that is free. */

void tcp_connection_begin(struct tcp_connection *connection, const struct segment *segment, uint32_t sequence,
                          uint64_t now_us);
void tcp_connection_receive(struct mmds_net *net, struct tcp_connection *connection, const struct segment *segment,
                            uint64_t now_us);
/* Writes its next segment, if it has one to send now; returns the frame's length or 0. */
size_t tcp_connection_send(struct mmds_net *net, struct tcp_connection *connection, uint8_t *frame, uint64_t now_us);
/* Its timer: back to what was not acknowledged, or the end after many times. */
void tcp_connection_expire(struct mmds_net *net, struct tcp_connection *connection);
