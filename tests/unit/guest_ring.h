/*
 * The guest's side of virtqueues, for tests: memory, a ring that a driver (well-behaved or hostile) fills, and a
 * driver that runs a device without a transport.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/virtio/device.h"

/* Guest memory of a test: two regions with a hole between them. */
#define GUEST_LOW_SIZE 0x1000000ULL   /* 16 MiB from 0 */
#define GUEST_HIGH_GPA 0x100000000ULL /* 1 MiB from 4 GiB */
#define GUEST_HIGH_SIZE 0x100000ULL
/* Where the rings of guest_driver lie; buffers of a test may be anywhere else. */
#define GUEST_RINGS_GPA 0x10000ULL
#define GUEST_RING_STRIDE 0x4000ULL

void guest_memory_setup(struct guest_memory *memory);
/* The host address of guest memory; fails the test when there is none. */
void *guest_at(const struct guest_memory *memory, uint64_t gpa, size_t length);

struct guest_buffer {
    uint64_t gpa;
    uint32_t length;
    bool writable;
};

enum { GUEST_RING_SIZE_MAX = 256 };

struct guest_ring {
    struct guest_memory *memory;
    uint16_t size;
    uint64_t descriptor_gpa, driver_gpa, device_gpa;
    struct vring_desc *descriptors;
    struct vring_avail *available;
    struct vring_used *used;
    uint16_t free_head; /* first free descriptor, linked by next_free */
    uint16_t last_used; /* next used element to look at */
    uint16_t next_free[GUEST_RING_SIZE_MAX];
    uint16_t chain_length[GUEST_RING_SIZE_MAX]; /* by head: descriptors to free */
};

/* Lays out an empty ring of `size` entries in GUEST_RING_STRIDE bytes at `gpa`. */
void guest_ring_init(struct guest_ring *ring, struct guest_memory *memory, uint64_t gpa, uint16_t size);
/* Tells `queue` where the ring is, as a driver does through the transport; size_max is set if it was 0. */
void guest_ring_configure(const struct guest_ring *ring, struct virtqueue *queue);

/* Makes a chain of `count` buffers available; returns its head. */
uint16_t guest_ring_add(struct guest_ring *ring, const struct guest_buffer *buffers, size_t count);
/* The same through an indirect table, which is written at `table_gpa`. */
uint16_t guest_ring_add_indirect(struct guest_ring *ring, uint64_t table_gpa, const struct guest_buffer *buffers,
                                 size_t count);
/* Takes the next used element; false when there is none. Frees its descriptors. */
bool guest_ring_take_used(struct guest_ring *ring, uint16_t *head, uint32_t *length);
/* Whether guest_ring_take_used would find one. */
bool guest_ring_has_used(const struct guest_ring *ring);

/* For hostile drivers: writes a descriptor, an available entry, an available index just so. */
void guest_ring_descriptor(struct guest_ring *ring, uint16_t index, uint64_t gpa, uint32_t length, uint16_t flags,
                           uint16_t next);
void guest_ring_publish(struct guest_ring *ring, uint16_t head);
void guest_ring_available_index(struct guest_ring *ring, uint16_t index);

/* EVENT_IDX: asks to be interrupted when used element `index` is there; what the device asked for. */
void guest_ring_used_event(struct guest_ring *ring, uint16_t index);
uint16_t guest_ring_avail_event(const struct guest_ring *ring);
/* Without EVENT_IDX: VRING_AVAIL_F_NO_INTERRUPT or 0. */
void guest_ring_flags(struct guest_ring *ring, uint16_t flags);

/* A device and its driver, with a transport that only counts. */
enum { GUEST_DRIVER_QUEUES_MAX = 40 };

struct guest_driver {
    struct guest_memory memory;
    struct event_loop *loop;
    struct virtio_device *device;
    struct guest_ring rings[GUEST_DRIVER_QUEUES_MAX];
    unsigned queue_signals[GUEST_DRIVER_QUEUES_MAX]; /* interrupts so far */
    unsigned config_signals;
    bool failed;                             /* DEVICE_NEEDS_RESET */
    /* Of a device that is served elsewhere: eventfds that only count, 0 before they are asked for. */
    int bells[GUEST_DRIVER_QUEUES_MAX], interrupt;
    bool served_here[GUEST_DRIVER_QUEUES_MAX];
    const struct event_source *first_source; /* the loop's own */

    /* guest_driver_run_until */
    struct event_timer poll;
    bool (*done)(void *argument);
    void *argument;
    uint64_t deadline_us;
};

/* Memory and a loop; then the test makes its device with driver->loop. */
void guest_driver_setup(struct guest_driver *driver);
/* Takes the device over, lays out a ring of size_max entries for each of its queues, activates it with `features`
 * (VIRTIO_F_VERSION_1 is added). Fails the test when the device does not offer them or refuses. */
void guest_driver_start(struct guest_driver *driver, struct virtio_device *device, uint64_t features);
/* What the transport does on a reset; guest_driver_restart activates again with fresh rings. */
void guest_driver_reset(struct guest_driver *driver);
void guest_driver_restart(struct guest_driver *driver, uint64_t features);
/* Destroys device, loop and memory. Fails the test when something is left in the loop. */
void guest_driver_teardown(struct guest_driver *driver);

/* Notifies queue `index`, unless the device failed (the transport would not pass it on either). */
void guest_driver_notify(struct guest_driver *driver, unsigned index);
/* Runs the loop until `done` says so; fails the test after 20 seconds. */
void guest_driver_run_until(struct guest_driver *driver, bool (*done)(void *argument), void *argument);
/* Runs the loop until queue `index` has a used element, and takes it. Returns its length. */
uint32_t guest_driver_wait_used(struct guest_driver *driver, unsigned index, uint16_t *head);
