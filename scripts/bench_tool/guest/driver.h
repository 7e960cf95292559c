/*
 * A virtio-mmio driver that behaves as Linux's does where it costs something: indirect descriptors and EVENT_IDX when
 * they are offered, one notification for all that is added at once, and an interrupt asked for whenever it waits.
 * Interrupts do not come (see tests/guest/lib/guest.h): it polls the used ring, which costs the host nothing.
 *
 * It finds devices where Mayfly has them and where QEMU's microvm has them.
 */
#pragma once

#include "tests/guest/lib/virtio.h"

enum { RING_SIZE = 256, RINGS = 2 };

struct ring {
    volatile struct descriptor descriptors[RING_SIZE] __attribute__((aligned(4096)));
    volatile struct {
        uint16_t flags;
        uint16_t index;
        uint16_t ring[RING_SIZE];
        uint16_t used_event;
    } available __attribute__((aligned(16)));
    volatile struct {
        uint16_t flags;
        uint16_t index;
        struct used_element ring[RING_SIZE];
        uint16_t available_event;
    } used __attribute__((aligned(4096)));
    struct virtio *device;
    unsigned number;
    uint16_t size;
    uint16_t added;    /* available index */
    uint16_t notified; /* available index at the last notification's time */
    uint16_t taken;    /* used index up to which elements were taken */
};

/* Finds the first device of a type and brings it up with `count` rings. */
void driver_open(struct virtio *device, uint32_t type, uint64_t wanted, struct ring *rings, unsigned count);
/* Puts a chain that stands at `head` into the available ring, where a device that looks finds it. */
void ring_add(struct ring *ring, uint16_t head);
/* Notifies the device of what was added, if it wants that. */
void ring_kick(struct ring *ring);
/* Takes a used element when there is one. */
bool ring_take(struct ring *ring, struct used_element *element);
/* Asks for an interrupt once `count` more elements are used; to be done before anything is added that they may be for.
 */
void ring_arm(struct ring *ring, uint16_t count);
/* Waits until `count` elements are there to be taken. */
void ring_wait(const struct ring *ring, uint16_t count);

/* Says `text` and a newline, then does nothing for ever, without leaving the guest. */
void say_and_spin(const char *text) __attribute__((noreturn));
