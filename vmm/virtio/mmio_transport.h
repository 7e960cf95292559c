/* What mmio.c (the transport) and mmio_registers.c (what the guest sees of it) share; others have mmio.h. */
#pragma once

#include "vmm/base/event_loop.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/mmio.h"

/* What the guest's notifications of one queue arrive at, once connected to a VM. */
struct doorbell {
    struct event_source source; /* an eventfd, -1 before */
    struct virtio_mmio *transport;
    unsigned index;
};

struct virtio_mmio {
    struct virtio_device *device;
    uint32_t status;
    uint32_t interrupt_status;
    uint32_t config_generation;
    uint32_t device_features_select;
    uint32_t driver_features_select;
    uint32_t queue_select;
    uint64_t driver_features; /* as written; the device sees them from FEATURES_OK on */
    int irq_fd;               /* -1 before the VM is connected */
    struct doorbell doorbells[];
};

/* The driver notified a queue; also without need. */
void virtio_mmio_notify(struct virtio_mmio *mmio, uint32_t index);
/* The device cannot go on: DEVICE_NEEDS_RESET. */
void virtio_mmio_needs_reset(struct virtio_mmio *mmio);
