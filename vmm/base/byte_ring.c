#include "vmm/base/byte_ring.h"

#include "vmm/base/checked.h"

#include <stdlib.h>
#include <string.h>

enum { SIZE_MIN = 4096 };

bool byte_ring_reserve(struct byte_ring *ring, size_t more)
{
    size_t needed;
    size_t size = ring->size != 0 ? ring->size : SIZE_MIN;

    if (!checked_add(ring->used, more, &needed))
        return false;
    if (needed <= ring->size)
        return true;
    while (size < needed)
        if (!checked_mul(size, 2u, &size))
            return false;

    uint8_t *data = malloc(size);
    if (data == NULL)
        return false;
    byte_ring_peek(ring, 0, data, ring->used);
    free(ring->data);
    ring->data = data;
    ring->size = size;
    ring->start = 0;
    return true;
}

size_t byte_ring_iovec(const struct byte_ring *ring, size_t offset, size_t length, struct iovec iov[2])
{
    if (length == 0)
        return 0;

    size_t at = (ring->start + offset) & (ring->size - 1);
    size_t straight = ring->size - at;

    if (straight > length)
        straight = length;
    iov[0] = (struct iovec){.iov_base = ring->data + at, .iov_len = straight};
    if (straight == length)
        return 1;
    iov[1] = (struct iovec){.iov_base = ring->data, .iov_len = length - straight};
    return 2;
}

void byte_ring_peek(const struct byte_ring *ring, size_t offset, void *bytes, size_t length)
{
    struct iovec iov[2];
    size_t count = byte_ring_iovec(ring, offset, length, iov);
    uint8_t *to = bytes;

    for (size_t i = 0; i < count; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
}

void byte_ring_overwrite(struct byte_ring *ring, size_t offset, const void *bytes, size_t length)
{
    struct iovec iov[2];
    size_t count = byte_ring_iovec(ring, offset, length, iov);
    const uint8_t *from = bytes;

    for (size_t i = 0; i < count; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        from += iov[i].iov_len;
    }
}

void byte_ring_append(struct byte_ring *ring, const void *bytes, size_t length)
{
    byte_ring_overwrite(ring, ring->used, bytes, length);
    ring->used += length;
}

void byte_ring_consume(struct byte_ring *ring, size_t length)
{
    ring->used -= length;
    if (ring->used == 0) {
        byte_ring_free(ring);
        return;
    }
    ring->start = (ring->start + length) & (ring->size - 1);
}

void byte_ring_free(struct byte_ring *ring)
{
    free(ring->data);
    *ring = (struct byte_ring){0};
}
