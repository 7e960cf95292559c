/*
 * The one interface between a virtio device and its transport. The transport knows no device, a device knows no
 * transport, the event loop knows neither. Everything here runs with the event loop's lock held: notify (but see
 * prompt_queues), timers and backends on the loop's thread; configuration, activate and reset on a vCPU's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/virtio/virtqueue.h"

struct virtio_device;

struct virtio_ops {
    uint32_t type;    /* virtio device ID, <linux/virtio_ids.h> */
    const char *name; /* "block": for the log */

    /* Config space. Ranges beyond its end read as zero and ignore writes; the device clips. NULL: no config space. */
    void (*config_read)(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length);
    void (*config_write)(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length);

    /*
     * The driver is ready (DRIVER_OK): driver_features are agreed, ready queues are activated. Returns false when the
     * device cannot run: the transport then sets DEVICE_NEEDS_RESET.
     */
    bool (*activate)(struct virtio_device *device);
    /* The driver notified queue `index` of an active device. May be called without need. */
    void (*notify)(struct virtio_device *device, unsigned index);
    /* Back to the state before activate; no request may touch guest memory afterwards. The transport resets the queues.
     */
    void (*reset)(struct virtio_device *device);
    /*
     * The machine pauses: no guest memory is touched after this returns (requests in flight are finished or kept
     * for resume). resume starts again and looks at every queue, as if notified. NULL: nothing to do on pause, and
     * resume is notify for every queue.
     */
    void (*pause)(struct virtio_device *device);
    void (*resume)(struct virtio_device *device);
    /*
     * Whether the device may still read or write the guest's memory at [start, start + length) by itself, a chain that
     * it has not given back being there. NULL: wherever it is, as long as it has one.
     */
    bool (*holds)(const struct virtio_device *device, const uint8_t *start, uint64_t length);
    /* Frees the device and all that it owns. */
    void (*destroy)(struct virtio_device *device);
};

/* What a transport does for its device; set when the device is attached. */
struct virtio_transport_ops {
    void (*signal_queue)(void *transport, unsigned index); /* used buffer notification */
    void (*signal_config)(void *transport);                /* config space changed: tell an active driver */
    void (*show_config)(void *transport);                  /* config space changed, as the driver expects */
    void (*fail)(void *transport);                         /* sets DEVICE_NEEDS_RESET and signals it */
    /* The eventfds of a device whose queues another process serves: -1 before the VM is connected. */
    int (*notify_fd)(void *transport, unsigned index);
    int (*interrupt_fd)(void *transport);
    /* Has notifications of such a device's queue come to it after all (ops->notify), or not any more. */
    void (*serve_here)(void *transport, unsigned index, bool here);
};

/* The common head of every device; embedded in the device's private struct. */
struct virtio_device {
    const struct virtio_ops *ops;
    const char *id;    /* "rootfs", "eth0": borrowed from the device's own configuration, for the log */
    uint64_t features; /* offered; VIRTIO_F_VERSION_1 and the ring features are added by the transport */
    /*
     * Another process serves the queues (vhost-user): `features` are all, notifications go to notify_fd past the
     * event loop, and interrupts come through interrupt_fd without a call.
     */
    bool served_elsewhere;
    /*
     * Bit n (no queue from the 64th on can have it): a vCPU that notifies queue n calls notify itself, and does not go
     * on before that returns. Else it does, and notify comes later. What notify does then must be allowed to a vCPU's
     * thread (vmm.rules).
     */
    uint64_t prompt_queues;
    uint64_t driver_features; /* agreed; 0 before FEATURES_OK */
    struct virtqueue *queues; /* queue_count of them, within the private struct */
    unsigned queue_count;
    bool active; /* between activate and reset */
    bool failed; /* virtio_device_fail was called since the last reset: notifications are ignored */
    bool paused;
    struct event_timer held;           /* a signal that waits, see virtio_device_signal_soon */
    unsigned prompt_signals;           /* so many do not */
    const struct guest_memory *memory; /* set at attach */
    struct event_loop *loop;           /* set at attach */
    const struct virtio_transport_ops *transport_ops;
    void *transport;
};

/* Interrupts the guest for queue `index` if it asked for that (virtqueue_needs_signal). */
void virtio_device_signal(struct virtio_device *device, unsigned index);
/*
 * The same for what the guest does not wait for, such as buffers whose content was sent: it goes with the next signal
 * of the device, or a little later.
 */
void virtio_device_signal_soon(struct virtio_device *device, unsigned index);
/* The same for all of its queues, which have one interrupt: once. */
void virtio_device_signal_all(struct virtio_device *device);
/*
 * What the transport has a device do, by its ops. A signal that waits is forgotten with it: after a reset and a destroy
 * nobody wants it; after a pause the resume looks at every queue.
 */
void virtio_device_reset(struct virtio_device *device);
void virtio_device_pause(struct virtio_device *device);
void virtio_device_destroy(struct virtio_device *device);
/* Tells the guest that config space changed; before the device is active it only finds another generation. */
void virtio_device_config_changed(struct virtio_device *device);
/* Config space changed by what the driver asked for: it finds that, and is not told. */
void virtio_device_config_shown(struct virtio_device *device);
/*
 * The guest broke the device: it stays dead until the driver resets it (its queues are broken, so that what is still
 * on its way ends quietly). Logs `reason`, rate-limited. Calling it again does nothing.
 */
void virtio_device_fail(struct virtio_device *device, const char *reason);
/* For devices that keep chains and never look at them again: `holds` that is always false. */
bool virtio_device_holds_nothing(const struct virtio_device *device, const uint8_t *start, uint64_t length);
/* Whether queue `index` is one of device->prompt_queues. */
bool virtio_device_is_prompt(const struct virtio_device *device, unsigned index);
/* Copies [offset, offset + length) of a config space of `size` bytes, zeros beyond its end. For config_read. */
void virtio_config_copy(const void *config, size_t size, uint32_t offset, uint8_t *data, uint32_t length);
