#include "vmm/virtio/mmio.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

enum {
    MAGIC = 0x74726976, /* "virt" */
    VERSION = 2,
    VENDOR = 0x4659414d, /* "MAYF" */
};

#define TRANSPORT_FEATURES                                                                                             \
    (1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_RING_F_EVENT_IDX)

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

/* Interrupts. The cause is there before the interrupt is, or the guest finds none and forgets it. */

static void interrupt(struct virtio_mmio *mmio, uint32_t cause)
{
    METRIC_INCREMENT(interrupt_triggers);
    __atomic_fetch_or(&mmio->interrupt_status, cause, __ATOMIC_SEQ_CST);
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

    mmio->config_generation++;
    if (mmio->device->active)
        interrupt(mmio, VIRTIO_MMIO_INT_CONFIG);
}

/* A driver that is not there yet needs no interrupt, it reads the status anyway (2.1.2). */
static void needs_reset(void *transport)
{
    struct virtio_mmio *mmio = transport;

    mmio->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    if ((mmio->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0)
        interrupt(mmio, VIRTIO_MMIO_INT_CONFIG);
}

static int notify_fd(void *transport, unsigned index)
{
    return ((struct virtio_mmio *)transport)->doorbells[index].source.fd;
}

static int interrupt_fd(void *transport)
{
    return ((struct virtio_mmio *)transport)->irq_fd;
}

static const struct virtio_transport_ops transport_ops = {
    .signal_queue = signal_queue,
    .signal_config = signal_config,
    .fail = needs_reset,
    .notify_fd = notify_fd,
    .interrupt_fd = interrupt_fd,
};

static uint64_t offered_features(const struct virtio_device *device)
{
    return device->served_elsewhere ? device->features : device->features | TRANSPORT_FEATURES;
}

/*
 * Who serves the queues from another process interrupts the guest without a word to us: then there may always be a used
 * buffer, and the driver has to look.
 */
static uint32_t interrupt_causes(const struct virtio_mmio *mmio)
{
    uint32_t causes = __atomic_load_n(&mmio->interrupt_status, __ATOMIC_SEQ_CST);

    return mmio->device->served_elsewhere && mmio->device->active ? causes | VIRTIO_MMIO_INT_VRING : causes;
}

/* The status machine (3.1.1, 2.1). */

static void reset(struct virtio_mmio *mmio)
{
    struct virtio_device *device = mmio->device;

    if (device->active)
        device->ops->reset(device);
    device->active = false;
    device->failed = false;
    device->driver_features = 0;
    for (unsigned i = 0; i < device->queue_count; i++)
        virtqueue_reset(&device->queues[i]);

    mmio->status = 0;
    mmio->device_features_select = mmio->driver_features_select = mmio->queue_select = 0;
    mmio->driver_features = 0;
    __atomic_store_n(&mmio->interrupt_status, 0, __ATOMIC_SEQ_CST);
}

static bool accept_step(struct virtio_mmio *mmio)
{
    (void)mmio;
    return true;
}

static bool accept_features(struct virtio_mmio *mmio)
{
    uint64_t offered = offered_features(mmio->device);

    if ((mmio->driver_features & ~offered) != 0 || (mmio->driver_features & 1ULL << VIRTIO_F_VERSION_1) == 0)
        return false;
    mmio->device->driver_features = mmio->driver_features;
    return true;
}

static bool activate_queues(struct virtio_mmio *mmio)
{
    struct virtio_device *device = mmio->device;

    for (unsigned i = 0; i < device->queue_count; i++)
        if (device->queues[i].ready &&
            !virtqueue_activate(&device->queues[i], device->memory, device->driver_features)) {
            log_warning("%s \"%s\": the guest's queue %u is misplaced", device->ops->name, device->id, i);
            return false;
        }
    return true;
}

/* The driver's step is taken in any case; a device that cannot follow says so by DEVICE_NEEDS_RESET. */
static bool accept_driver(struct virtio_mmio *mmio)
{
    struct virtio_device *device = mmio->device;

    mmio->status |= VIRTIO_CONFIG_S_DRIVER_OK;
    device->active = activate_queues(mmio) && device->ops->activate(device);
    if (!device->active)
        needs_reset(mmio);
    return true;
}

/* A driver's way up, a bit a step: each needs the one before, and the device's consent. */
static const struct {
    uint32_t bit;
    bool (*accept)(struct virtio_mmio *mmio);
} steps[] = {
    {VIRTIO_CONFIG_S_ACKNOWLEDGE, accept_step},
    {VIRTIO_CONFIG_S_DRIVER, accept_step},
    {VIRTIO_CONFIG_S_FEATURES_OK, accept_features},
    {VIRTIO_CONFIG_S_DRIVER_OK, accept_driver},
};

static void status_write(struct virtio_mmio *mmio, uint32_t value)
{
    if (value == 0) {
        reset(mmio);
        return;
    }
    /* Bits go away by reset only. Who failed, or was told to reset, must do that before anything else. */
    if ((mmio->status & ~value) != 0 || (mmio->status & (VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)) != 0)
        return;
    if ((value & VIRTIO_CONFIG_S_FAILED) != 0) {
        mmio->status |= VIRTIO_CONFIG_S_FAILED;
        return;
    }
    for (size_t i = 0; i < array_length(steps); i++) {
        if ((mmio->status & steps[i].bit) != 0)
            continue;
        if ((value & steps[i].bit) == 0 || !steps[i].accept(mmio))
            return;
        mmio->status |= steps[i].bit;
    }
}

/* Whether the driver is where it may do something: all of `after`, nothing of `before`, and not failed. */
static bool status_between(const struct virtio_mmio *mmio, uint32_t after, uint32_t before)
{
    before |= VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET;
    return (mmio->status & after) == after && (mmio->status & before) == 0;
}

/* Registers (4.2.2). Writes at the wrong moment are ignored. */

static uint32_t half(uint64_t value, uint32_t select)
{
    return select == 0 ? (uint32_t)value : select == 1 ? (uint32_t)(value >> 32) : 0;
}

static void half_set(uint64_t *value, uint32_t select, uint32_t to)
{
    if (select == 0)
        *value = (*value & ~0xffffffffULL) | to;
    else if (select == 1)
        *value = (*value & 0xffffffffULL) | (uint64_t)to << 32;
}

static struct virtqueue *selected_queue(const struct virtio_mmio *mmio)
{
    const struct virtio_device *device = mmio->device;

    return mmio->queue_select < device->queue_count ? &device->queues[mmio->queue_select] : NULL;
}

static uint32_t register_read(struct virtio_mmio *mmio, uint64_t offset)
{
    const struct virtqueue *queue = selected_queue(mmio);

    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return mmio->device->ops->type;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return half(offered_features(mmio->device), mmio->device_features_select);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return queue != NULL ? queue->size_max : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue != NULL && queue->ready;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return interrupt_causes(mmio);
    case VIRTIO_MMIO_STATUS:
        return mmio->status;
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return mmio->config_generation;
    case VIRTIO_MMIO_SHM_LEN_LOW:
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX; /* no such region */
    default:
        return 0;
    }
}

static void queue_register_write(struct virtqueue *queue, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        /* A size of zero is refused at activation, like the one that was meant. */
        queue->size = value <= queue->size_max ? (uint16_t)value : 0;
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
        half_set(&queue->descriptor_gpa, 0, value);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        half_set(&queue->descriptor_gpa, 1, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        half_set(&queue->driver_gpa, 0, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        half_set(&queue->driver_gpa, 1, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
        half_set(&queue->device_gpa, 0, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        half_set(&queue->device_gpa, 1, value);
        break;
    default:
        break;
    }
}

/* Queues are laid out between FEATURES_OK and DRIVER_OK, each before it is ready. */
static void queue_write(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
    struct virtqueue *queue = selected_queue(mmio);

    if (queue == NULL || !status_between(mmio, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK))
        return;
    if (offset == VIRTIO_MMIO_QUEUE_READY)
        queue->ready = (value & 1) != 0;
    else if (!queue->ready)
        queue_register_write(queue, offset, value);
}

/* While the machine is paused the queue waits: resume looks at all of them. */
static void notify(struct virtio_mmio *mmio, uint32_t index)
{
    struct virtio_device *device = mmio->device;

    if (device->active && !device->failed && !device->paused && index < device->queue_count)
        device->ops->notify(device, index);
}

static void register_write(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        mmio->device_features_select = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        mmio->driver_features_select = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        if (status_between(mmio, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_FEATURES_OK))
            half_set(&mmio->driver_features, mmio->driver_features_select, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        mmio->queue_select = value;
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        notify(mmio, value);
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        __atomic_fetch_and(&mmio->interrupt_status, ~value, __ATOMIC_SEQ_CST);
        break;
    case VIRTIO_MMIO_STATUS:
        status_write(mmio, value);
        break;
    default:
        queue_write(mmio, offset, value);
        break;
    }
}

static void mmio_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    struct virtio_mmio *mmio = device;

    memset(data, 0, length);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (mmio->device->ops->config_read != NULL)
            mmio->device->ops->config_read(mmio->device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, length);
        return;
    }
    /* Registers are read and written whole (4.2.2.2). */
    if (length != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0)
        return;

    uint32_t value = register_read(mmio, offset);
    memcpy(data, &value, sizeof(value));
}

static void mmio_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct virtio_mmio *mmio = device;
    uint32_t value;

    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (mmio->device->ops->config_write != NULL && status_between(mmio, VIRTIO_CONFIG_S_DRIVER, 0))
            mmio->device->ops->config_write(mmio->device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, length);
        return;
    }
    if (length != sizeof(value) || offset % sizeof(value) != 0)
        return;
    memcpy(&value, data, sizeof(value));
    register_write(mmio, offset, value);
}

const struct bus_ops virtio_mmio_bus_ops = {.read = mmio_read, .write = mmio_write};

/* The transport's life. */

static void doorbell_rung(struct event_source *source, uint32_t events)
{
    struct doorbell *doorbell = container_of(source, struct doorbell, source);
    eventfd_t count;

    (void)events;
    if (eventfd_read(source->fd, &count) == 0)
        notify(doorbell->transport, doorbell->index);
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
        struct error *error = event_source_add(doorbell->transport->device->loop, &doorbell->source, EPOLLIN);

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

    /* Without a doorbell a notification is a write to a register, as any. */
    for (unsigned i = 0; error == NULL && i < device->queue_count; i++)
        if ((device->prompt_queues & 1ull << i) == 0)
            error = doorbell_connect(&transport->doorbells[i], vm_fd, gpa);
    if (error != NULL)
        return error_wrap(error, "cannot connect %s \"%s\" to the VM", device->ops->name, device->id);
    return NULL;
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
    if (device->active && device->ops->pause != NULL)
        device->ops->pause(device);
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
        notify(transport, i);
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
    transport->device->ops->destroy(transport->device);
    free(transport);
}
