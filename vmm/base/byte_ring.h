/* A queue of bytes in memory that grows as it fills and is given back when it is empty. A zeroed struct is empty. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct byte_ring {
    uint8_t *data;
    size_t size; /* a power of two, or 0 */
    size_t start;
    size_t used;
};

/* Makes room for `more` bytes; false without memory, and then nothing has changed. */
bool byte_ring_reserve(struct byte_ring *ring, size_t more);
/* Adds bytes that there is room for. */
void byte_ring_append(struct byte_ring *ring, const void *bytes, size_t length);
/* Replaces bytes that are there, from the `offset`th on. */
void byte_ring_overwrite(struct byte_ring *ring, size_t offset, const void *bytes, size_t length);
/* Copies bytes that are there, from the `offset`th on. */
void byte_ring_peek(const struct byte_ring *ring, size_t offset, void *bytes, size_t length);
/* Where the `length` bytes from the `offset`th on lie; returns how many of `iov` that takes. */
size_t byte_ring_iovec(const struct byte_ring *ring, size_t offset, size_t length, struct iovec iov[2]);
/* Drops the first `length` bytes. */
void byte_ring_consume(struct byte_ring *ring, size_t length);
void byte_ring_free(struct byte_ring *ring);
