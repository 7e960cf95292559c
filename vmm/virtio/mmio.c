#include "vmm/virtio/mmio_transport.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

/* Interrupts. The cause is there before the interrupt is, or the guest finds none and forgets it. */

static void interrupt(struct virtio_mmio *mmio, uint32_t cause)
{
    METRIC_INCREMENT(interrupt_triggers);
    __atomic_fetch_or(virtio_mmio_causes(mmio), cause, __ATOMIC_SEQ_CST);
    if (mmio->irq_fd >= 0 && eventfd_write(mmio->irq_fd, 1) < 0)
        log_error("%s \"%s\": cannot interrupt the guest: %s", mmio->device->ops->name, mmio->device->id,
                  strerror(errno));
}

static void signal_queue(void *transport, unsigned index)
{
    (void)index;
    interrupt(transport, VIRTIO_MMIO_INT_VRING);
}

static void signal_config(void *transport)
{
    struct virtio_mmio *mmio = transport;

    virtio_mmio_show_config(mmio);
    if (mmio->device->active)
        interrupt(mmio, VIRTIO_MMIO_INT_CONFIG);
}

/* A driver that is not there yet needs no interrupt, it reads the status anyway (2.1.2). */
void virtio_mmio_needs_reset(struct virtio_mmio *mmio)
{
    mmio->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    virtio_mmio_show(mmio);
    if ((mmio->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0)
        interrupt(mmio, VIRTIO_MMIO_INT_CONFIG);
}

static void fail(void *transport)
{
    virtio_mmio_needs_reset(transport);
}

static void show_config(void *transport)
{
    virtio_mmio_show_config(transport);
}

static int notify_fd(void *transport, unsigned index)
{
    return ((struct virtio_mmio *)transport)->doorbells[index].source.fd;
}

static int interrupt_fd(void *transport)
{
    return ((struct virtio_mmio *)transport)->irq_fd;
}

static void serve_here(void *transport, unsigned index, bool here)
{
    struct virtio_mmio *mmio = transport;
    struct doorbell *doorbell = &mmio->doorbells[index];

    if (!here) {
        event_source_remove(&doorbell->source);
        return;
    }
    if (doorbell->source.fd < 0 || doorbell->source.loop != NULL)
        return;

    struct error *error = event_source_add(mmio->device->loop, &doorbell->source, EPOLLIN | EPOLLET);
    if (error != NULL)
        log_error("%s \"%s\": queue %u: %s", mmio->device->ops->name, mmio->device->id, index, error->message);
    error_free(error);
}

static const struct virtio_transport_ops transport_ops = {
    .signal_queue = signal_queue,
    .signal_config = signal_config,
    .show_config = show_config,
    .fail = fail,
    .notify_fd = notify_fd,
    .interrupt_fd = interrupt_fd,
    .serve_here = serve_here,
};

/* While the machine is paused the queue waits: resume looks at all of them. */
void virtio_mmio_notify(struct virtio_mmio *mmio, uint32_t index)
{
    struct virtio_device *device = mmio->device;

    if (device->active && !device->failed && !device->paused && index < device->queue_count)
        device->ops->notify(device, index);
}

/* The transport's life. */

/* Edge-triggered: each ring is an event, and the eventfd's count, which nobody reads, just grows. */
static void doorbell_rung(struct event_source *source, uint32_t events)
{
    struct doorbell *doorbell = container_of(source, struct doorbell, source);

    (void)events;
    virtio_mmio_notify(doorbell->transport, doorbell->index);
}

struct error *virtio_mmio_new(struct virtio_device *device, const struct guest_memory *memory, struct event_loop *loop,
                              struct virtio_mmio **transport)
{
    struct virtio_mmio *mmio = calloc(1, sizeof(*mmio) + device->queue_count * sizeof(mmio->doorbells[0]));

    if (mmio == NULL)
        return error_errno(ENOMEM, "cannot make the transport of %s \"%s\"", device->ops->name, device->id);
    mmio->device = device;
    mmio->irq_fd = -1;
    for (unsigned i = 0; i < device->queue_count; i++)
        mmio->doorbells[i] =
            (struct doorbell){.source = {.fd = -1, .ready = doorbell_rung}, .transport = mmio, .index = i};

    device->memory = memory;
    device->loop = loop;
    device->transport_ops = &transport_ops;
    device->transport = mmio;
    *transport = mmio;
    return NULL;
}

static struct error *doorbell_connect(struct doorbell *doorbell, int vm_fd, uint64_t gpa)
{
    if (doorbell->source.fd < 0) {
        doorbell->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (doorbell->source.fd < 0)
            return error_errno(errno, "cannot make an eventfd");
    }
    if (doorbell->source.loop == NULL && !doorbell->transport->device->served_elsewhere) {
        struct error *error = event_source_add(doorbell->transport->device->loop, &doorbell->source, EPOLLIN | EPOLLET);

        if (error != NULL)
            return error;
    }

    struct kvm_ioeventfd ioeventfd = {
        .datamatch = doorbell->index,
        .addr = gpa + VIRTIO_MMIO_QUEUE_NOTIFY,
        .len = sizeof(uint32_t),
        .fd = doorbell->source.fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };
    if (ioctl(vm_fd, KVM_IOEVENTFD, &ioeventfd) < 0)
        return error_errno(errno, "KVM_IOEVENTFD");
    return NULL;
}

/*
 * Acknowledging used buffers changes nothing (see accept_driver): KVM swallows it, by an eventfd that nobody waits for,
 * and the vCPU need not come out for it.
 */
static struct error *acknowledgement_connect(int vm_fd, uint64_t gpa)
{
    cleanup_fd int nobody = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct kvm_ioeventfd ioeventfd = {
        .datamatch = VIRTIO_MMIO_INT_VRING,
        .addr = gpa + VIRTIO_MMIO_INTERRUPT_ACK,
        .len = sizeof(uint32_t),
        .fd = nobody,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };

    if (nobody < 0)
        return error_errno(errno, "cannot make an eventfd");
    if (ioctl(vm_fd, KVM_IOEVENTFD, &ioeventfd) < 0)
        return error_errno(errno, "KVM_IOEVENTFD");
    return NULL;
}

/* A fresh one each time: since Linux 6.17 an eventfd serves one VM, and the one before may still be on its way out. */
static struct error *interrupt_connect(struct virtio_mmio *mmio, int vm_fd, uint32_t gsi)
{
    fd_close(&mmio->irq_fd);
    mmio->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mmio->irq_fd < 0)
        return error_errno(errno, "cannot make an eventfd");

    struct kvm_irqfd irqfd = {.fd = (uint32_t)mmio->irq_fd, .gsi = gsi};
    if (ioctl(vm_fd, KVM_IRQFD, &irqfd) < 0)
        return error_errno(errno, "KVM_IRQFD for GSI %u", gsi);
    return NULL;
}

struct error *virtio_mmio_connect(struct virtio_mmio *transport, int vm_fd, uint64_t gpa, uint32_t gsi)
{
    struct virtio_device *device = transport->device;
    struct error *error = interrupt_connect(transport, vm_fd, gsi);

    if (error == NULL)
        error = acknowledgement_connect(vm_fd, gpa);
    /* Without a doorbell a notification is a write to a register, as any. */
    for (unsigned i = 0; error == NULL && i < device->queue_count; i++)
        if (!virtio_device_is_prompt(device, i))
            error = doorbell_connect(&transport->doorbells[i], vm_fd, gpa);
    if (error != NULL)
        return error_wrap(error, "cannot connect %s \"%s\" to the VM", device->ops->name, device->id);
    return NULL;
}

void virtio_mmio_place(struct virtio_mmio *transport, uint8_t *page)
{
    transport->page = page;
    *virtio_mmio_causes(transport) = 0;
    virtio_mmio_show_config(transport);
    virtio_mmio_show(transport);
}

struct virtio_device *virtio_mmio_device(struct virtio_mmio *transport)
{
    return transport->device;
}

void virtio_mmio_pause(struct virtio_mmio *transport)
{
    struct virtio_device *device = transport->device;

    if (device->paused)
        return;
    device->paused = true;
    if (device->active)
        virtio_device_pause(device);
}

void virtio_mmio_resume(struct virtio_mmio *transport)
{
    struct virtio_device *device = transport->device;

    if (!device->paused)
        return;
    device->paused = false;
    if (!device->active || device->failed)
        return;
    if (device->ops->resume != NULL) {
        device->ops->resume(device);
        return;
    }
    for (unsigned i = 0; i < device->queue_count; i++)
        virtio_mmio_notify(transport, i);
}

void virtio_mmio_free(struct virtio_mmio *transport)
{
    if (transport == NULL)
        return;
    for (unsigned i = 0; i < transport->device->queue_count; i++) {
        event_source_remove(&transport->doorbells[i].source);
        fd_close(&transport->doorbells[i].source.fd);
    }
    fd_close(&transport->irq_fd);
    virtio_device_destroy(transport->device);
    free(transport);
}
