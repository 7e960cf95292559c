/*
 * Where a queue goes on after its back end vanished. The used index tells how many requests were given back, not which
 * ones. They are the first ones that were made available as long as the back end gave them back in order; the two
 * rings still show the last `size` of each, less what is in flight, and all of these must agree. A back end that kept
 * one request for longer than that, while it did others in order, could deceive us; nobody who does requests out of
 * order passes.
 */
#include "vmm/backend/vhost_user.h"

#include <linux/virtio_ring.h>

/* Position `at` of a ring: the guest may write while we look. */
static uint16_t available_head(const struct vhost_user_ring *ring, uint16_t at)
{
    return __atomic_load_n(&ring->available->ring[at & (ring->size - 1)], __ATOMIC_RELAXED);
}

static uint32_t used_head(const struct vhost_user_ring *ring, uint16_t at)
{
    return __atomic_load_n(&ring->used->ring[at & (ring->size - 1)].id, __ATOMIC_RELAXED);
}

/* A request cannot be in flight twice. */
static bool heads_differ(const struct vhost_user_ring *ring, uint16_t from, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++)
        for (uint16_t j = 0; j < i; j++)
            if (available_head(ring, (uint16_t)(from + i)) == available_head(ring, (uint16_t)(from + j)))
                return false;
    return true;
}

bool vhost_user_ring_recover(const struct vhost_user_ring *ring, uint16_t *base)
{
    const uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
    const uint16_t in_flight = (uint16_t)(__atomic_load_n(&ring->available->idx, __ATOMIC_ACQUIRE) - used);

    if (in_flight > ring->size)
        return false;
    *base = used;
    if (in_flight == 0)
        return true;
    for (uint16_t back = 1; back <= ring->size - in_flight; back++)
        if (used_head(ring, (uint16_t)(used - back)) != available_head(ring, (uint16_t)(used - back)))
            return false;
    return heads_differ(ring, used, in_flight);
}
