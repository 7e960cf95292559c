/*
 * One connection of the metadata service: what comes in, what goes out.
 *
 * Loss is mended by the timer alone, which goes back to the first byte that was not acknowledged. The same timer probes
 * a closed window. The wire is memory: what gets lost is what the guest had no buffer for.
 */
#include "vmm/mmds/tcp.h"

#include "vmm/metrics.h"

#include <stdlib.h>
#include <string.h>

enum {
    MSS_DEFAULT = 536,
    MSS_MIN = 48, /* a guest that asks for less makes work for nothing */
    RETRIES_MAX = 8,
    RTO_US = 300 * 1000,
    RTO_MAX_US = 5000 * 1000,
};

void tcp_connection_begin(struct tcp_connection *connection, const struct segment *segment, uint32_t sequence,
                          uint64_t now_us)
{
    uint16_t mss = segment->mss != 0 ? segment->mss : MSS_DEFAULT;

    /* All but the room for the request, which stays as it is: not touched before it is needed. */
    memset(connection, 0, offsetof(struct tcp_connection, request));
    connection->used = true;
    connection->peer = segment->peer;
    connection->mss = mss < MSS_MIN ? MSS_MIN : mss > FRAME_MSS ? FRAME_MSS : mss;
    connection->window = segment->window;
    connection->next_in = segment->sequence + 1;
    connection->unacked = connection->next_out = connection->sent_max = sequence;
    connection->answer_start = sequence + 1;
    connection->deadline_us = MMDS_NET_NEVER;
    connection->progress_us = now_us;
}

/* Receiving. */

/* How far our FIN is from the answer's start: it follows the answer. */
static uint32_t fin_offset(const struct tcp_connection *connection)
{
    return (uint32_t)connection->answer.length;
}

static bool fin_is_acked(const struct tcp_connection *connection)
{
    return connection->established && connection->unacked - connection->answer_start == fin_offset(connection) + 1;
}

/* What the peer has acknowledged is done with. */
static void connection_advance(struct tcp_connection *connection, uint32_t acknowledged, uint64_t now_us)
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
static bool take_acknowledgement(struct mmds_net *net, struct tcp_connection *connection, const struct segment *segment,
                                 uint64_t now_us)
{
    uint32_t advance = segment->acknowledged - connection->unacked;

    if (!connection->established) {
        if (segment->acknowledged != connection->answer_start || connection->sent_max != connection->answer_start) {
            tcp_refuse(net, segment);
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

static void take_data(struct tcp_connection *connection, const struct segment *segment)
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
static void connection_serve(struct mmds_net *net, struct tcp_connection *connection, uint64_t now_us)
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

void tcp_connection_receive(struct mmds_net *net, struct tcp_connection *connection, const struct segment *segment,
                            uint64_t now_us)
{
    /* RFC 5961: a RST must hit the very next byte; a SYN never means anything on a connection. */
    if ((segment->flags & SEGMENT_RST) != 0) {
        if (segment->sequence == connection->next_in)
            tcp_connection_end(net, connection);
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
            tcp_reset_queue(net, &connection->peer, TCP_HTTP_PORT, connection->next_out, connection->next_in,
                            SEGMENT_ACK);
        tcp_connection_end(net, connection);
    }
}

/* Sending. */

static size_t segment_send(struct mmds_net *net, struct tcp_connection *connection, struct segment *segment,
                           uint8_t *frame)
{
    segment->peer = connection->peer;
    segment->port = TCP_HTTP_PORT;
    segment->acknowledged = connection->next_in;
    segment->window = (uint16_t)(MMDS_NET_REQUEST_MAX - connection->request_length);
    connection->ack_wanted = false;
    return frame_write_segment(frame, tcp_mac, net->address, segment);
}

static uint64_t retransmit_after(const struct tcp_connection *connection)
{
    uint64_t wait_us = (uint64_t)RTO_US << connection->retries;

    return wait_us < RTO_MAX_US ? wait_us : RTO_MAX_US;
}

/* Sends a segment that takes `length` sequence numbers. */
static size_t segment_send_counted(struct mmds_net *net, struct tcp_connection *connection, struct segment *segment,
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
static size_t sendable(struct tcp_connection *connection, size_t sent, uint64_t now_us)
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

size_t tcp_connection_send(struct mmds_net *net, struct tcp_connection *connection, uint8_t *frame, uint64_t now_us)
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

void tcp_connection_expire(struct mmds_net *net, struct tcp_connection *connection)
{
    connection->deadline_us = MMDS_NET_NEVER;
    if (connection->retries == RETRIES_MAX) {
        tcp_connection_abort(net, connection);
        return;
    }
    connection->retries++;
    connection->next_out = connection->unacked;
    connection->probing = true;
}
