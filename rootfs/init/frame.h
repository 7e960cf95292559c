/*
 * Frames of rootfs/protocol.h: finding them in a stream of bytes and taking them apart. No I/O.
 */
#pragma once

#include "../protocol.h"

#include <stdbool.h>
#include <stddef.h>

/* A frame inside somebody else's buffer. */
struct frame {
    uint32_t type;
    uint32_t length; /* of payload */
    const unsigned char *payload;
};

enum frame_status {
    FRAME_BROKEN = -1,    /* its length is over PROTOCOL_PAYLOAD_MAX: nothing after it makes sense */
    FRAME_INCOMPLETE = 0, /* more bytes are needed */
    FRAME_COMPLETE = 1,
};

/* Looks for a whole frame at the start of the `length` bytes at `bytes`. */
enum frame_status frame_find(struct frame *frame, const unsigned char *bytes, size_t length);

/* The bytes that `frame` takes in the stream, its header included. */
static inline size_t frame_size(const struct frame *frame)
{
    return sizeof(struct protocol_header) + frame->length;
}

/* A RUN frame, decoded. The strings point into the frame. */
struct run {
    const char *directory;
    const char *hostname;
    char **arguments;   /* NULL-terminated, at least one */
    char **environment; /* NULL-terminated */
    uint32_t flags;
};

/*
 * Decodes the payload of a RUN frame. On success returns NULL, and run->arguments is to be freed
 * (environment is part of it). Otherwise returns what is wrong with it, a static string.
 */
const char *run_decode(struct run *run, const struct frame *frame);

/* The number of a SIGNAL frame, or 0 when it is malformed or not a signal. */
int signal_decode(const struct frame *frame);
