/*
 * A TCP (RFC 9293) that only listens, on one port, and speaks HTTP: it takes a request, sends the answer, takes the
 * next. So a connection has either a request that is coming in or an answer that goes out, and never more than one
 * answer in flight. Out-of-order segments are dropped: the guest sends them again.
 */
#include "vmm/mmds/tcp.h"

#include "vmm/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A connection that did nothing for so long makes room for another. */
enum { IDLE_US = 5000 * 1000 };

const uint8_t tcp_mac[6] = {0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

struct mmds_net *mmds_net_new(struct mmds *mmds, uint32_t address)
{
    struct mmds_net *net = calloc(1, sizeof(*net));

    if (net == NULL)
        return NULL;
    net->mmds = mmds;
    net->address = address;
    /* Guessing it would give a guest nothing but its own connections. */
    if (getrandom(&net->sequence, sizeof(net->sequence), GRND_NONBLOCK) < 0)
        net->sequence = 1;
    return net;
}

void tcp_connection_end(struct mmds_net *net, struct tcp_connection *connection)
{
    free(connection->answer.bytes);
    connection->answer = (struct mmds_answer){0};
    connection->used = false;
    net->connection_count--;
    METRIC_INCREMENT(mmds.connections_destroyed);
}

void mmds_net_reset(struct mmds_net *net)
{
    for (size_t i = 0; i < MMDS_NET_CONNECTIONS_MAX; i++)
        if (net->connections[i].used)
            tcp_connection_end(net, &net->connections[i]);
    net->arp_count = net->reset_count = 0;
}

void mmds_net_free(struct mmds_net *net)
{
    if (net != NULL)
        mmds_net_reset(net);
    free(net);
}

bool mmds_net_takes(const struct mmds_net *net, const uint8_t *frame, size_t length)
{
    return frame_is_for(frame, length, net->address);
}

/* RSTs. */

void tcp_reset_queue(struct mmds_net *net, const struct frame_peer *peer, uint16_t port, uint32_t sequence,
                     uint32_t acknowledged, uint8_t flags)
{
    if (net->reset_count == TCP_RESETS_MAX)
        return;
    net->resets[net->reset_count++] = (struct segment){
        .peer = *peer,
        .port = port,
        .flags = flags,
        .sequence = sequence,
        .acknowledged = acknowledged,
    };
}

void tcp_refuse(struct mmds_net *net, const struct segment *segment)
{
    uint32_t length =
        (uint32_t)segment->length + ((segment->flags & SEGMENT_SYN) != 0) + ((segment->flags & SEGMENT_FIN) != 0);

    if ((segment->flags & SEGMENT_RST) != 0)
        return;
    if ((segment->flags & SEGMENT_ACK) != 0)
        tcp_reset_queue(net, &segment->peer, segment->port, segment->acknowledged, 0, SEGMENT_RST);
    else
        tcp_reset_queue(net, &segment->peer, segment->port, 0, segment->sequence + length, SEGMENT_RST | SEGMENT_ACK);
}

void tcp_connection_abort(struct mmds_net *net, struct tcp_connection *connection)
{
    tcp_reset_queue(net, &connection->peer, TCP_HTTP_PORT, connection->sent_max, connection->next_in,
                    SEGMENT_RST | SEGMENT_ACK);
    tcp_connection_end(net, connection);
}

/* Beginning. */

static struct tcp_connection *connection_find(struct mmds_net *net, const struct frame_peer *peer)
{
    for (size_t i = 0; i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct tcp_connection *connection = &net->connections[i];

        if (connection->used && connection->peer.port == peer->port && connection->peer.address == peer->address)
            return connection;
    }
    return NULL;
}

/* A free place, or that of the connection that has been idle for longest, if that is long. */
static struct tcp_connection *connection_place(struct mmds_net *net, uint64_t now_us)
{
    struct tcp_connection *idlest = &net->connections[0];

    for (size_t i = 0; i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct tcp_connection *connection = &net->connections[i];

        if (!connection->used)
            return connection;
        if (connection->progress_us < idlest->progress_us)
            idlest = connection;
    }
    if (now_us < idlest->progress_us + IDLE_US)
        return NULL;
    tcp_connection_abort(net, idlest);
    return idlest;
}

static void begin(struct mmds_net *net, const struct segment *segment, uint64_t now_us)
{
    struct tcp_connection *connection = connection_place(net, now_us);

    if (connection == NULL) {
        tcp_refuse(net, segment);
        return;
    }
    tcp_connection_begin(connection, segment, net->sequence, now_us);
    net->sequence += 0x10000 + (uint32_t)(now_us & 0xffff);
    net->connection_count++;
    METRIC_INCREMENT(mmds.connections_created);
}

/* Receiving. */

static void receive_segment(struct mmds_net *net, const struct segment *segment, uint64_t now_us)
{
    struct tcp_connection *connection = connection_find(net, &segment->peer);

    if (segment->port != TCP_HTTP_PORT)
        tcp_refuse(net, segment);
    else if (connection != NULL)
        tcp_connection_receive(net, connection, segment, now_us);
    else if ((segment->flags & (SEGMENT_SYN | SEGMENT_ACK | SEGMENT_FIN | SEGMENT_RST)) == SEGMENT_SYN)
        begin(net, segment, now_us);
    else
        tcp_refuse(net, segment);
}

void mmds_net_receive(struct mmds_net *net, const uint8_t *frame, size_t length, uint64_t now_us)
{
    struct segment segment;
    struct frame_peer peer;

    METRIC_INCREMENT(mmds.rx_count);
    if (length > MMDS_NET_FRAME_MAX) {
        METRIC_INCREMENT(mmds.rx_accepted_unusual);
    } else if (frame_parse_segment(frame, length, net->address, &segment)) {
        METRIC_INCREMENT(mmds.rx_accepted);
        receive_segment(net, &segment, now_us);
    } else if (frame_parse_arp(frame, length, net->address, &peer)) {
        METRIC_INCREMENT(mmds.rx_accepted);
        if (net->arp_count < TCP_ARPS_MAX)
            net->arps[net->arp_count++] = peer;
    } else {
        METRIC_INCREMENT(mmds.rx_accepted_err);
    }
}

/* Sending. */

static size_t send_queued(struct mmds_net *net, uint8_t *frame)
{
    size_t size = 0;

    if (net->arp_count > 0) {
        size = frame_write_arp(frame, tcp_mac, net->address, &net->arps[0]);
        net->arp_count--;
        memmove(net->arps, net->arps + 1, net->arp_count * sizeof(*net->arps));
    } else if (net->reset_count > 0) {
        size = frame_write_segment(frame, tcp_mac, net->address, &net->resets[0]);
        net->reset_count--;
        memmove(net->resets, net->resets + 1, net->reset_count * sizeof(*net->resets));
    }
    return size;
}

static size_t send_next(struct mmds_net *net, uint8_t *frame, uint64_t now_us)
{
    size_t size = send_queued(net, frame);

    for (unsigned i = 0; size == 0 && net->connection_count > 0 && i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct tcp_connection *connection = &net->connections[net->turn];

        net->turn = (net->turn + 1) % MMDS_NET_CONNECTIONS_MAX;
        if (connection->used && connection->deadline_us <= now_us)
            tcp_connection_expire(net, connection);
        if (connection->used)
            size = tcp_connection_send(net, connection, frame, now_us);
    }
    return size > 0 ? size : send_queued(net, frame); /* what an end left behind */
}

size_t mmds_net_send(struct mmds_net *net, uint8_t *frame, uint64_t now_us)
{
    size_t size = net->connection_count + net->arp_count + net->reset_count > 0 ? send_next(net, frame, now_us) : 0;

    if (size > 0) {
        METRIC_INCREMENT(mmds.tx_frames);
        METRIC_ADD(mmds.tx_bytes, size);
    }
    return size;
}

uint64_t mmds_net_deadline(const struct mmds_net *net)
{
    uint64_t deadline_us = MMDS_NET_NEVER;

    for (size_t i = 0; net->connection_count > 0 && i < MMDS_NET_CONNECTIONS_MAX; i++)
        if (net->connections[i].used && net->connections[i].deadline_us < deadline_us)
            deadline_us = net->connections[i].deadline_us;
    return deadline_us;
}
