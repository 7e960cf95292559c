/*
 * The virtio-mmio transport, version 2 (virtio 1.2, section 4.2): registers, the status machine, ioeventfd
 * notifications and irqfd interrupts. One transport carries one device.
 *
 * The guest reads the registers from a page of memory, in a memslot that it cannot write, without an exit: the page
 * says what they are at any moment. Only writes come to the bus.
 */
#pragma once

#include "vmm/bus.h"
#include "vmm/virtio/device.h"

enum { VIRTIO_MMIO_SIZE = 0x1000 };

struct virtio_mmio;

/* Accesses to the transport's registers, once they have their page; `device` is a struct virtio_mmio. */
extern const struct bus_ops virtio_mmio_bus_ops;

/*
 * Makes the transport for `device`, which it owns from then on (destroy included; on failure the caller keeps it).
 * `memory` and `loop` are borrowed. Not yet connected to a VM.
 */
struct error *virtio_mmio_new(struct virtio_device *device, const struct guest_memory *memory, struct event_loop *loop,
                              struct virtio_mmio **transport);

/*
 * Connects to a KVM VM: one ioeventfd a queue (register QueueNotify at `gpa`, datamatch the queue index) and one irqfd
 * for `gsi`. Only after all memslots, the irqchip and the vCPUs exist (a memslot call after it waits milliseconds). May
 * be called again for another VM. Nothing is ever disconnected, for KVM waits milliseconds for that: the VM keeps its
 * ends of the eventfds until it is closed, and what it does with them then reaches nobody.
 */
struct error *virtio_mmio_connect(struct virtio_mmio *transport, int vm_fd, uint64_t gpa, uint32_t gsi);

/* Where the guest finds the registers from now on: VIRTIO_MMIO_SIZE bytes, borrowed until the transport is freed. */
void virtio_mmio_place(struct virtio_mmio *transport, uint8_t *page);

struct virtio_device *virtio_mmio_device(struct virtio_mmio *transport);

void virtio_mmio_pause(struct virtio_mmio *transport);
/* Also replays notifications: the ioeventfds that fired while paused are looked at again. */
void virtio_mmio_resume(struct virtio_mmio *transport);

/* Destroys the device, too. */
void virtio_mmio_free(struct virtio_mmio *transport);
