/*
 * A polling virtio-mmio driver (virtio 1.2, sections 2.7 and 4.2), open enough to misbehave with: a hostile program
 * writes registers, descriptors and indices itself.
 */
#pragma once

#include "tests/guest/lib/guest.h"

enum {
    VIRTIO_NET = 1,
    VIRTIO_BLOCK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_ENTROPY = 4,
    VIRTIO_BALLOON = 5,
    VIRTIO_VSOCK = 19,
    VIRTIO_MEM = 24,
    VIRTIO_FS = 26,
    VIRTIO_PMEM = 27,

    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SELECT = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SELECT = 0x024,
    REG_QUEUE_SELECT = 0x030,
    REG_QUEUE_SIZE_MAX = 0x034,
    REG_QUEUE_SIZE = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESCRIPTOR = 0x080,
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,

    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,

    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,

    QUEUE_SIZE = 16, /* at most */
    QUEUES_MAX = 12,
    SLOTS_MAX = 19,
};

#define FEATURE_VERSION_1 (1ull << 32)
#define FEATURE_INDIRECT_DESC (1ull << 28)
#define FEATURE_EVENT_IDX (1ull << 29)

struct descriptor {
    uint64_t gpa;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct available_ring {
    uint16_t flags;
    uint16_t index;
    uint16_t ring[QUEUE_SIZE];
    uint16_t used_event;
};

struct used_element {
    uint32_t id;
    uint32_t length;
};

struct used_ring {
    uint16_t flags;
    uint16_t index;
    struct used_element ring[QUEUE_SIZE];
    uint16_t available_event;
};

struct queue {
    volatile struct descriptor descriptors[QUEUE_SIZE];
    volatile struct available_ring available;
    volatile struct used_ring used __attribute__((aligned(16)));
    uint16_t size; /* in use: QUEUE_SIZE, or what the device can */
    uint16_t next_descriptor;
    uint16_t next_used;
} __attribute__((aligned(4096)));

struct virtio {
    uint64_t base;
    uint64_t offered;
    uint64_t features;
    struct queue *queues;
    unsigned queue_count;
};

struct buffer {
    const volatile void *data;
    uint32_t length;
    bool writable;
};

static inline uint32_t virtio_read(const struct virtio *virtio, uint32_t reg)
{
    return mmio_read32(virtio->base + reg);
}

static inline void virtio_write(const struct virtio *virtio, uint32_t reg, uint32_t value)
{
    mmio_write32(virtio->base + reg, value);
}

/* The `nth` device (from 0) of a type; false when the machine has none. */
bool virtio_find(struct virtio *virtio, uint32_t type, unsigned nth);
/* Reset, ACKNOWLEDGE, DRIVER, features (what is offered of `wanted`), FEATURES_OK; false when that is refused. */
bool virtio_negotiate(struct virtio *virtio, uint64_t wanted);
/* Puts queue `index` in place, empty. Its memory is static: one set of queues at a time. */
void virtio_queue(struct virtio *virtio, unsigned index);
void virtio_driver_ok(struct virtio *virtio);
/* All of the above for `queue_count` queues. */
bool virtio_open(struct virtio *virtio, uint32_t type, uint64_t wanted, unsigned queue_count);
uint64_t virtio_config64(const struct virtio *virtio, uint32_t offset);

/* Makes a chain of the buffers and puts it into the available ring; returns its head. The device is not told. */
uint16_t queue_add(struct queue *queue, const struct buffer *buffers, unsigned count);
void virtio_notify(const struct virtio *virtio, unsigned index);
bool queue_has_used(const struct queue *queue);
/* Waits for the next used element; returns what it says. */
struct used_element queue_wait(struct queue *queue);
/* queue_add, notify and wait; returns the used length. */
uint32_t virtio_request(struct virtio *virtio, unsigned index, const struct buffer *buffers, unsigned count);
