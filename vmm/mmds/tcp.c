/*
 * A TCP (RFC 9293) that only listens, on one port, and speaks HTTP: it takes a request, sends the answer, takes the
 * next. So a connection has either a request that is coming in or an answer that goes out, and never more than one
 * answer in flight. Out-of-order segments are dropped: the guest sends them again.
 *
 * Loss is mended by the timer alone, which goes back to the first byte that was not acknowledged. The same timer probes
 * a closed window. The wire is memory: what gets lost is what the guest had no buffer for.
 */
#include "vmm/mmds/mmds_net.h"

#include "vmm/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    HTTP_PORT = 80,
    RESETS_MAX = 10, /* waiting to be sent; more are not sent */
    ARPS_MAX = 8,
    MSS_DEFAULT = 536,
    MSS_MIN = 48, /* a guest that asks for less makes work for nothing */
    RETRIES_MAX = 8,
    RTO_US = 300 * 1000,
    RTO_MAX_US = 5000 * 1000,
    IDLE_US = 5000 * 1000, /* a connection that did nothing for so long makes room for another */
};

struct connection {
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
    struct frame_peer arps[ARPS_MAX];
    struct segment resets[RESETS_MAX];
    struct connection connections[MMDS_NET_CONNECTIONS_MAX];
};

/* Locally administered, and the same in every VM: it is seen on no real network. */
static const uint8_t service_mac[6] = {0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

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

static void connection_end(struct mmds_net *net, struct connection *connection)
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
            connection_end(net, &net->connections[i]);
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

static void reset_queue(struct mmds_net *net, const struct frame_peer *peer, uint16_t port, uint32_t sequence,
                        uint32_t acknowledged, uint8_t flags)
{
    if (net->reset_count == RESETS_MAX)
        return;
    net->resets[net->reset_count++] = (struct segment){
        .peer = *peer,
        .port = port,
        .flags = flags,
        .sequence = sequence,
        .acknowledged = acknowledged,
    };
}

/* Answers a segment that belongs to no connection (3.10.7.1). */
static void refuse(struct mmds_net *net, const struct segment *segment)
{
    uint32_t length =
        (uint32_t)segment->length + ((segment->flags & SEGMENT_SYN) != 0) + ((segment->flags & SEGMENT_FIN) != 0);

    if ((segment->flags & SEGMENT_RST) != 0)
        return;
    if ((segment->flags & SEGMENT_ACK) != 0)
        reset_queue(net, &segment->peer, segment->port, segment->acknowledged, 0, SEGMENT_RST);
    else
        reset_queue(net, &segment->peer, segment->port, 0, segment->sequence + length, SEGMENT_RST | SEGMENT_ACK);
}

static void connection_abort(struct mmds_net *net, struct connection *connection)
{
    reset_queue(net, &connection->peer, HTTP_PORT, connection->sent_max, connection->next_in,
                SEGMENT_RST | SEGMENT_ACK);
    connection_end(net, connection);
}

/* Beginning. */

static struct connection *connection_find(struct mmds_net *net, const struct frame_peer *peer)
{
    for (size_t i = 0; i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &net->connections[i];

        if (connection->used && connection->peer.port == peer->port && connection->peer.address == peer->address)
            return connection;
    }
    return NULL;
}

/* A free place, or that of the connection that has been idle for longest, if that is long. */
static struct connection *connection_place(struct mmds_net *net, uint64_t now_us)
{
    struct connection *idlest = &net->connections[0];

    for (size_t i = 0; i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &net->connections[i];

        if (!connection->used)
            return connection;
        if (connection->progress_us < idlest->progress_us)
            idlest = connection;
    }
    if (now_us < idlest->progress_us + IDLE_US)
        return NULL;
    connection_abort(net, idlest);
    return idlest;
}

static void connection_begin(struct mmds_net *net, const struct segment *segment, uint64_t now_us)
{
    struct connection *connection = connection_place(net, now_us);
    uint16_t mss = segment->mss != 0 ? segment->mss : MSS_DEFAULT;

    if (connection == NULL) {
        refuse(net, segment);
        return;
    }
    /* All but the room for the request, which stays as it is: not touched before it is needed. */
    memset(connection, 0, offsetof(struct connection, request));
    connection->used = true;
    connection->peer = segment->peer;
    connection->mss = mss < MSS_MIN ? MSS_MIN : mss > FRAME_MSS ? FRAME_MSS : mss;
    connection->window = segment->window;
    connection->next_in = segment->sequence + 1;
    connection->unacked = connection->next_out = connection->sent_max = net->sequence;
    connection->answer_start = net->sequence + 1;
    connection->deadline_us = MMDS_NET_NEVER;
    connection->progress_us = now_us;
    net->sequence += 0x10000 + (uint32_t)(now_us & 0xffff);
    net->connection_count++;
    METRIC_INCREMENT(mmds.connections_created);
}

/* Receiving. */

/* How far our FIN is from the answer's start: it follows the answer. */
static uint32_t fin_offset(const struct connection *connection)
{
    return (uint32_t)connection->answer.length;
}

static bool fin_is_acked(const struct connection *connection)
{
    return connection->established && connection->unacked - connection->answer_start == fin_offset(connection) + 1;
}

/* What the peer has acknowledged is done with. */
static void connection_advance(struct connection *connection, uint32_t acknowledged, uint64_t now_us)
{
    connection->unacked = acknowledged;
    if ((int32_t)(connection->next_out - acknowledged) < 0)
        connection->next_out = acknowledged;
    connection->retries = 0;
    connection->progress_us = now_us;
    connection->deadline_us = acknowledged == connection->sent_max ? MMDS_NET_NEVER : now_us + RTO_US;
    if (connection->established && connection->answer.length > 0 &&
        acknowledged - connection->answer_start >= connection->answer.length) {
        free(connection->answer.bytes);
        connection->answer_start += (uint32_t)connection->answer.length;
        connection->answer = (struct mmds_answer){0};
    }
}

/* Returns false when the segment ends here. */
static bool take_acknowledgement(struct mmds_net *net, struct connection *connection, const struct segment *segment,
                                 uint64_t now_us)
{
    uint32_t advance = segment->acknowledged - connection->unacked;

    if (!connection->established) {
        if (segment->acknowledged != connection->answer_start || connection->sent_max != connection->answer_start) {
            refuse(net, segment);
            return false;
        }
        connection->established = true;
    } else if (advance > connection->sent_max - connection->unacked) {
        connection->ack_wanted = true;
        return (int32_t)advance < 0; /* an old one: its data may be new all the same */
    }
    if (connection->window == 0 && segment->window > 0 && connection->deadline_us != MMDS_NET_NEVER)
        connection->deadline_us = now_us; /* no need to wait for the probe any more */
    connection->window = segment->window;
    if (advance > 0)
        connection_advance(connection, segment->acknowledged, now_us);
    return true;
}

static void take_data(struct connection *connection, const struct segment *segment)
{
    uint32_t skip = connection->next_in - segment->sequence;
    bool fin = (segment->flags & SEGMENT_FIN) != 0;

    if (segment->length == 0 && !fin)
        return;
    connection->ack_wanted = true;
    if (skip > segment->length || connection->peer_done)
        return;

    size_t length = segment->length - skip;
    size_t room = MMDS_NET_REQUEST_MAX - connection->request_length;
    size_t taken = length;
    if (!connection->closing) { /* after the last answer nobody reads any more */
        taken = length < room ? length : room;
        memcpy(connection->request + connection->request_length, segment->data + skip, taken);
        connection->request_length += taken;
    }
    connection->next_in += (uint32_t)taken;
    if (fin && taken == length) {
        connection->next_in++;
        connection->peer_done = true;
    }
}

/* Answers the next request, once it is whole and the last answer has been acknowledged. */
static void connection_serve(struct mmds_net *net, struct connection *connection, uint64_t now_us)
{
    if (!connection->established || connection->closing || connection->answer.length > 0)
        return;
    if (connection->request_length > 0) {
        size_t used = mmds_http_serve(net->mmds, connection->request, connection->request_length,
                                      connection->request_length == MMDS_NET_REQUEST_MAX, now_us, &connection->answer);

        connection->request_length -= used;
        memmove(connection->request, connection->request + used, connection->request_length);
        if (used > 0) {
            METRIC_INCREMENT(mmds.tx_count);
            connection->progress_us = now_us;
            connection->closing = connection->answer.close;
            return;
        }
    }
    connection->closing = connection->peer_done;
}

static void connection_receive(struct mmds_net *net, struct connection *connection, const struct segment *segment,
                               uint64_t now_us)
{
    /* RFC 5961: a RST must hit the very next byte; a SYN never means anything on a connection. */
    if ((segment->flags & SEGMENT_RST) != 0) {
        if (segment->sequence == connection->next_in)
            connection_end(net, connection);
        return;
    }
    if ((segment->flags & SEGMENT_SYN) != 0) {
        if (!connection->established)
            connection->next_out = connection->unacked; /* the answer to it is sent again */
        connection->ack_wanted = connection->established;
        return;
    }
    if ((segment->flags & SEGMENT_ACK) == 0 || !take_acknowledgement(net, connection, segment, now_us))
        return;
    take_data(connection, segment);
    connection_serve(net, connection, now_us);
    if (fin_is_acked(connection) && connection->peer_done) {
        /* Its FIN is acknowledged by a segment that nothing will repeat: one that gets lost is answered by a RST. */
        if (connection->ack_wanted)
            reset_queue(net, &connection->peer, HTTP_PORT, connection->next_out, connection->next_in, SEGMENT_ACK);
        connection_end(net, connection);
    }
}

static void receive_segment(struct mmds_net *net, const struct segment *segment, uint64_t now_us)
{
    struct connection *connection = connection_find(net, &segment->peer);

    if (segment->port != HTTP_PORT)
        refuse(net, segment);
    else if (connection != NULL)
        connection_receive(net, connection, segment, now_us);
    else if ((segment->flags & (SEGMENT_SYN | SEGMENT_ACK | SEGMENT_FIN | SEGMENT_RST)) == SEGMENT_SYN)
        connection_begin(net, segment, now_us);
    else
        refuse(net, segment);
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
        if (net->arp_count < ARPS_MAX)
            net->arps[net->arp_count++] = peer;
    } else {
        METRIC_INCREMENT(mmds.rx_accepted_err);
    }
}

/* Sending. */

static size_t segment_send(struct mmds_net *net, struct connection *connection, struct segment *segment, uint8_t *frame)
{
    segment->peer = connection->peer;
    segment->port = HTTP_PORT;
    segment->acknowledged = connection->next_in;
    segment->window = (uint16_t)(MMDS_NET_REQUEST_MAX - connection->request_length);
    connection->ack_wanted = false;
    return frame_write_segment(frame, service_mac, net->address, segment);
}

static uint64_t retransmit_after(const struct connection *connection)
{
    uint64_t wait_us = (uint64_t)RTO_US << connection->retries;

    return wait_us < RTO_MAX_US ? wait_us : RTO_MAX_US;
}

/* Sends a segment that takes `length` sequence numbers. */
static size_t segment_send_counted(struct mmds_net *net, struct connection *connection, struct segment *segment,
                                   uint32_t length, uint8_t *frame, uint64_t now_us)
{
    segment->sequence = connection->next_out;
    connection->next_out += length;
    if ((int32_t)(connection->next_out - connection->sent_max) > 0)
        connection->sent_max = connection->next_out;
    if (connection->deadline_us == MMDS_NET_NEVER)
        connection->deadline_us = now_us + retransmit_after(connection);
    return segment_send(net, connection, segment, frame);
}

/* How much of the answer may go out now. Into a closed window nothing may, but for what the timer probes it with. */
static size_t sendable(struct connection *connection, size_t sent, uint64_t now_us)
{
    size_t left = connection->answer.length - sent;
    uint32_t in_flight = connection->next_out - connection->unacked;
    size_t allowed = connection->window > in_flight ? connection->window - in_flight : 0;

    if (allowed == 0 && in_flight == 0) {
        if (connection->probing)
            allowed = 1;
        else if (connection->deadline_us == MMDS_NET_NEVER)
            connection->deadline_us = now_us + retransmit_after(connection);
    }
    connection->probing = false;
    left = left < allowed ? left : allowed;
    return left < connection->mss ? left : connection->mss;
}

static size_t connection_send(struct mmds_net *net, struct connection *connection, uint8_t *frame, uint64_t now_us)
{
    struct segment segment = {.flags = SEGMENT_ACK};
    size_t sent = connection->next_out - connection->answer_start;

    if (!connection->established) {
        if (connection->next_out != connection->unacked)
            return 0;
        segment.flags |= SEGMENT_SYN;
        segment.mss = FRAME_MSS;
        return segment_send_counted(net, connection, &segment, 1, frame, now_us);
    }
    if (sent < connection->answer.length) {
        segment.length = sendable(connection, sent, now_us);
        segment.data = (const uint8_t *)connection->answer.bytes + sent;
        segment.flags |= SEGMENT_PSH;
        if (segment.length > 0)
            return segment_send_counted(net, connection, &segment, (uint32_t)segment.length, frame, now_us);
        segment.flags = SEGMENT_ACK;
    } else if (connection->closing && sent == fin_offset(connection)) {
        segment.flags |= SEGMENT_FIN;
        return segment_send_counted(net, connection, &segment, 1, frame, now_us);
    }
    segment.sequence = connection->next_out;
    return connection->ack_wanted ? segment_send(net, connection, &segment, frame) : 0;
}

/* The timer: back to what was not acknowledged, or the end after many times. */
static void connection_expire(struct mmds_net *net, struct connection *connection)
{
    connection->deadline_us = MMDS_NET_NEVER;
    if (connection->retries == RETRIES_MAX) {
        connection_abort(net, connection);
        return;
    }
    connection->retries++;
    connection->next_out = connection->unacked;
    connection->probing = true;
}

static size_t send_queued(struct mmds_net *net, uint8_t *frame)
{
    size_t size = 0;

    if (net->arp_count > 0) {
        size = frame_write_arp(frame, service_mac, net->address, &net->arps[0]);
        net->arp_count--;
        memmove(net->arps, net->arps + 1, net->arp_count * sizeof(*net->arps));
    } else if (net->reset_count > 0) {
        size = frame_write_segment(frame, service_mac, net->address, &net->resets[0]);
        net->reset_count--;
        memmove(net->resets, net->resets + 1, net->reset_count * sizeof(*net->resets));
    }
    return size;
}

static size_t send_next(struct mmds_net *net, uint8_t *frame, uint64_t now_us)
{
    size_t size = send_queued(net, frame);

    for (unsigned i = 0; size == 0 && net->connection_count > 0 && i < MMDS_NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &net->connections[net->turn];

        net->turn = (net->turn + 1) % MMDS_NET_CONNECTIONS_MAX;
        if (connection->used && connection->deadline_us <= now_us)
            connection_expire(net, connection);
        if (connection->used)
            size = connection_send(net, connection, frame, now_us);
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
