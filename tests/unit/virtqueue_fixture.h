/* A queue in guest memory (split virtqueues: virtio 1.2, section 2.7), and the rings that a driver writes there. */
#pragma once

#include "tests/unit/harness.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "tests/unit/guest_ring.h"

enum { SIZE = 16 };
#define RING_GPA GUEST_RINGS_GPA
#define DATA_GPA 0x100000ULL
#define TABLE_GPA 0x200000ULL

#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)

struct fixture {
    struct guest_memory memory;
    struct guest_ring ring;
    struct virtqueue queue;
    struct virtqueue_chain chain;
};

static struct fixture fixture;
static struct guest_ring *const ring = &fixture.ring;
static struct virtqueue *const queue = &fixture.queue;
static struct virtqueue_chain *const chain = &fixture.chain;

static inline int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    guest_memory_setup(&fixture.memory);
    guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
    guest_ring_configure(ring, queue);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    guest_memory_unmap(&fixture.memory);
    return 0;
}

static inline void activate(uint64_t features)
{
    assert_true(virtqueue_activate(queue, &fixture.memory, features));
}

/* With a ring that is empty again. */
static inline void start_over(uint64_t features)
{
    virtqueue_reset(queue);
    guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
    guest_ring_configure(ring, queue);
    activate(features);
}

static inline void assert_pops(void)
{
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_CHAIN);
}

static inline void table_entry(unsigned index, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    struct vring_desc descriptor = {.addr = gpa, .len = length, .flags = flags, .next = next};

    memcpy(guest_at(&fixture.memory, TABLE_GPA + index * sizeof(descriptor), sizeof(descriptor)), &descriptor,
           sizeof(descriptor));
}

#define QUEUE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
