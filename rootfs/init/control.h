/*
 * The guest's end of the control port: frames in, frames out.
 */
#pragma once

#include "frame.h"

#include <stdint.h>

struct control {
    int fd;       /* -1: there is no control port */
    size_t start; /* the bytes that are not consumed yet: [start, end) of buffer */
    size_t end;
    bool closed; /* the host has closed the port, or broken the protocol */
    unsigned char buffer[sizeof(struct protocol_header) + PROTOCOL_PAYLOAD_MAX];
};

/*
 * Opens the port at `path` and says HELLO with init's start time. Returns when the host has taken
 * the port: Linux holds the first write back until then. From here on the descriptor does not
 * block. -1 with errno when the port cannot be opened.
 */
int control_open(struct control *control, const char *path, uint64_t init_start);

/*
 * The next frame, or FRAME_INCOMPLETE when it is not all there (`control->closed` tells whether more
 * can come). The frame stays valid until the next call.
 */
enum frame_status control_receive(struct control *control, struct frame *frame);

/* As control_receive, but waits for a whole frame; false when the host has closed the port. */
bool control_wait(struct control *control, struct frame *frame);

/* Sends the frame `type` with `head` (a struct of protocol.h) and `text` behind it (may be NULL).
 * Waits until the port takes it; does nothing without a port or after the host closed it. */
void control_send(struct control *control, uint32_t type, const void *head, size_t head_size, const char *text);
