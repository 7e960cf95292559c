/*
 * The registers of the mmio transport (virtio 1.2, 4.2.2) and the status that the driver takes the device through.
 */
#include "vmm/virtio/mmio_transport.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

enum {
    MAGIC = 0x74726976, /* "virt" */
    VERSION = 2,
    VENDOR = 0x4659414d, /* "MAYF" */
};

#define TRANSPORT_FEATURES                                                                                             \
    (1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_RING_F_EVENT_IDX)

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
        virtio_mmio_needs_reset(mmio);
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
        virtio_mmio_notify(mmio, value);
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
