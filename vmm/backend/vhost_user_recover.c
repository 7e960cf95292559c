/*
 * Where a queue goes on after its back end vanished. The used index tells how many requests were given back, not which
 * ones. They are the first ones that were made available as long as the back end gave them back in order; the two
 * rings still show the last `size` of each, less what is in flight, and all of these must agree. A back end that kept
 * one request for longer than that, while it did others in order, could deceive us; nobody who does requests out of
 * order passes.
 *
 * Of requests done out of order, a queue that is never empty does not tell which are in hand: its rings show no moment
 * from which both could be counted. Doing all that might be again is no way out: the guest may have made new use of a
 * descriptor since, and a disk would write what is there now to where the old request said. So such a queue stops.
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

void vhost_user_ring_lost(struct vhost_user_ring *ring)
{
    ring->idle_at = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
    ring->was_idle = __atomic_load_n(&ring->available->idx, __ATOMIC_ACQUIRE) == ring->idle_at;
}

bool vhost_user_ring_recover(const struct vhost_user_ring *ring, uint16_t *base)
{
    const uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
    const uint16_t in_flight = (uint16_t)(__atomic_load_n(&ring->available->idx, __ATOMIC_ACQUIRE) - used);

    if (in_flight > ring->size)
        return false;
    *base = used;
    /* What came after the back end went, it never saw. */
    if (in_flight == 0 || (ring->was_idle && ring->idle_at == used))
        return true;
    for (uint16_t back = 1; back <= ring->size - in_flight; back++)
        if (used_head(ring, (uint16_t)(used - back)) != available_head(ring, (uint16_t)(used - back)))
            return false;
    return heads_differ(ring, used, in_flight);
}

/* --- The same without an order --- */

/*
 * The requests in flight are those made available once more often than they were given back, if both rings are counted
 * from a moment at which nothing was in flight. `window` positions back may be such a moment if no request comes out
 * otherwise; it is not if one had been in hand for longer and is still.
 */
static bool count_in_window(const struct vhost_user_ring *ring, uint16_t used, uint16_t in_flight, uint16_t window,
                            int16_t *balance)
{
    const uint16_t start = (uint16_t)(used + in_flight - window);

    for (uint16_t i = 0; i < window; i++) {
        uint16_t head = available_head(ring, (uint16_t)(start + i));

        if (head >= ring->size)
            return false;
        balance[head]++;
    }
    for (uint16_t i = 0; i < window - in_flight; i++) {
        uint32_t head = used_head(ring, (uint16_t)(start + i));

        if (head >= ring->size)
            return false;
        balance[head]--;
    }
    for (uint16_t head = 0; head < ring->size; head++)
        if (balance[head] != 0 && balance[head] != 1)
            return false;
    return true;
}

bool vhost_user_ring_in_flight(const struct vhost_user_ring *ring, uint16_t *heads, unsigned *count)
{
    const uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
    const uint16_t in_flight = (uint16_t)(__atomic_load_n(&ring->available->idx, __ATOMIC_ACQUIRE) - used);

    *count = 0;
    if (in_flight > ring->size)
        return false;
    /* The longest view tells most. */
    for (uint16_t window = in_flight > 0 ? ring->size : 0; window >= in_flight && window > 0; window--) {
        int16_t balance[VHOST_USER_RING_SIZE_MAX] = {0};

        if (!count_in_window(ring, used, in_flight, window, balance))
            continue;
        for (uint16_t head = 0; head < ring->size; head++)
            if (balance[head] != 0)
                heads[(*count)++] = head;
        return true;
    }
    return in_flight == 0;
}
