/*
 * One direction of the command's input or output, from a descriptor to another, both non-blocking.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As much as a port takes at once. */
#define STREAM_CHUNK (32u * 1024)

struct stream {
    int from; /* owned; -1 once the stream has ended */
    int to;   /* owned; -1 once the stream has ended, unless `keep_to` */
    bool keep_to;
    uint64_t limit; /* bytes still to be read; UINT64_MAX: until the end of `from` */
    uint64_t total; /* bytes written so far */
    size_t have;    /* bytes in buffer */
    size_t sent;    /* of which these are written */
    unsigned char buffer[STREAM_CHUNK];
};

/*
 * Moves bytes until one side would block, the stream ends, or a fair share is done; returns true
 * in the last case (call again). A stream ends when `from` is at its end or `limit` is used up and
 * all is written, or when `to` has no reader any more; then it closes its descriptors.
 *
 * A buffer and write(2), not splice(2): splicing into a virtio-console port drops the pages that it
 * took from the pipe when the port's queue has no room for all of them.
 */
bool stream_pump(struct stream *stream);

/* Whether the stream has ended, or was never opened. */
static inline bool stream_ended(const struct stream *stream)
{
    return stream->from < 0;
}

/* Lets the stream end with what is in the pipe `from` now. */
void stream_finish(struct stream *stream);

/* Ends the stream at once. */
void stream_close(struct stream *stream);
