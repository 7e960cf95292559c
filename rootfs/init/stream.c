#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Chunks in one call: enough to be quick, few enough for the other streams and signals. */
#define FAIR_SHARE 8

enum step {
    STEP_MOVED,
    STEP_BLOCKED,
    STEP_ENDED,
};

static enum step stream_fill(struct stream *stream)
{
    size_t room = stream->limit < STREAM_CHUNK ? (size_t)stream->limit : STREAM_CHUNK;
    ssize_t got;

    if (room == 0) {
        return STEP_ENDED;
    }
    got = read(stream->from, stream->buffer, room);
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? STEP_BLOCKED : STEP_ENDED;
    }
    if (got == 0) {
        return STEP_ENDED;
    }
    if (stream->limit != UINT64_MAX) {
        stream->limit -= (uint64_t)got;
    }
    stream->have = (size_t)got;
    stream->sent = 0;
    return STEP_MOVED;
}

static enum step stream_drain(struct stream *stream)
{
    ssize_t put = write(stream->to, stream->buffer + stream->sent, stream->have - stream->sent);

    if (put > 0) {
        stream->sent += (size_t)put;
        stream->total += (uint64_t)put;
        return STEP_MOVED;
    }
    /* 0 and ENOMEM: the port could not queue it now. */
    if (put == 0 || errno == EAGAIN || errno == EINTR || errno == ENOMEM) {
        struct pollfd state = {.fd = stream->to, .events = POLLOUT};

        /* A port that the host has closed says so by a hang-up, a pipe without reader by an error. */
        poll(&state, 1, 0);
        return (state.revents & (POLLHUP | POLLERR)) != 0 ? STEP_ENDED
               : (state.revents & POLLOUT) != 0           ? STEP_MOVED
                                                          : STEP_BLOCKED;
    }
    return STEP_ENDED;
}

bool stream_pump(struct stream *stream)
{
    for (int i = 0; i < 2 * FAIR_SHARE && !stream_ended(stream); i++) {
        enum step step = stream->sent < stream->have ? stream_drain(stream) : stream_fill(stream);

        if (step == STEP_BLOCKED) {
            return false;
        }
        if (step == STEP_ENDED) {
            stream_close(stream);
        }
    }
    return !stream_ended(stream);
}

void stream_finish(struct stream *stream)
{
    int waiting = 0;

    if (!stream_ended(stream)) {
        ioctl(stream->from, FIONREAD, &waiting);
        stream->limit = (uint64_t)waiting;
    }
}

void stream_close(struct stream *stream)
{
    if (stream->from >= 0) {
        close(stream->from);
        stream->from = -1;
    }
    if (stream->to >= 0 && !stream->keep_to) {
        close(stream->to);
        stream->to = -1;
    }
}
