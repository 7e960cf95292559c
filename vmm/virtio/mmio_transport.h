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
    uint32_t config_generation;
    uint32_t device_features_select;
    uint32_t driver_features_select;
    uint32_t queue_select;
    uint64_t driver_features; /* as written; the device sees them from FEATURES_OK on */
    uint8_t *page;            /* what the guest reads; NULL before virtio_mmio_place */
    int irq_fd;               /* -1 before the VM is connected */
    struct doorbell doorbells[];
};

/* The driver notified a queue; also without need. */
void virtio_mmio_notify(struct virtio_mmio *mmio, uint32_t index);
/* Makes the guest find on the page what the registers are now, or only the configuration space. */
void virtio_mmio_show(struct virtio_mmio *mmio);
void virtio_mmio_show_config(struct virtio_mmio *mmio);
/* The causes of interrupts that the guest has not acknowledged: a word of the page. */
uint32_t *virtio_mmio_causes(const struct virtio_mmio *mmio);
/* The device cannot go on: DEVICE_NEEDS_RESET. */
void virtio_mmio_needs_reset(struct virtio_mmio *mmio);
