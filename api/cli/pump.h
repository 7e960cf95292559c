/*
 * One direction of a byte stream, descriptor to descriptor, through one buffer: no more is read while the other side
 * does not take what there is. Never blocks: a pipe or terminal is written in pieces that poll(2) promises to fit,
 * because making the caller's stdout non-blocking would change it for everybody who shares it.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PUMP_BUFFER_SIZE = 64 * 1024 };

struct pump {
    int from; /* -1: ended */
    int to;   /* -1: nobody takes it: what comes is counted and thrown away */
    bool to_socket;
    bool to_pieces;    /* a pipe, terminal or the like: at most PIPE_BUF bytes a write */
    int error;         /* errno of the write that failed, else 0 */
    uint64_t taken;    /* bytes read in all */
    size_t start, end; /* what the buffer holds */
    uint8_t *buffer;   /* PUMP_BUFFER_SIZE bytes */
};

/* Borrows the descriptors. `to` may be -1. */
void pump_init(struct pump *pump, int from, int to);
void pump_free(struct pump *pump);

/* What to poll for: two entries, with a negative fd where nothing is to be waited for. */
void pump_poll(const struct pump *pump, struct pollfd wait[2]);
/* Does what `wait` says is possible. */
void pump_run(struct pump *pump, const struct pollfd wait[2]);

/* The source has ended and all has been delivered (or thrown away). */
bool pump_done(const struct pump *pump);
/* Nothing waits in the buffer. */
bool pump_empty(const struct pump *pump);
