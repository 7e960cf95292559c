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
    CONFIG_SIZE = 256,   /* shown of the configuration space: more than any device has */
};

#define TRANSPORT_FEATURES                                                                                             \
    (1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_RING_F_EVENT_IDX)

static uint64_t offered_features(const struct virtio_device *device)
{
    return device->served_elsewhere ? device->features : device->features | TRANSPORT_FEATURES;
}

/* Causes of interrupts. */

uint32_t *virtio_mmio_causes(const struct virtio_mmio *mmio)
{
    return (uint32_t *)(void *)(mmio->page + VIRTIO_MMIO_INTERRUPT_STATUS);
}

/* What accept_driver has put there stays. */
static void acknowledge(struct virtio_mmio *mmio, uint32_t causes)
{
    uint32_t kept = mmio->device->active ? VIRTIO_MMIO_INT_VRING : 0;

    __atomic_fetch_and(virtio_mmio_causes(mmio), ~causes | kept, __ATOMIC_SEQ_CST);
}

/* The status machine (3.1.1, 2.1). */

static void reset(struct virtio_mmio *mmio)
{
    struct virtio_device *device = mmio->device;

    if (device->active)
        virtio_device_reset(device);
    device->active = false;
    device->failed = false;
    device->driver_features = 0;
    for (unsigned i = 0; i < device->queue_count; i++)
        virtqueue_reset(&device->queues[i]);

    mmio->status = 0;
    mmio->device_features_select = mmio->driver_features_select = mmio->queue_select = 0;
    mmio->driver_features = 0;
    __atomic_store_n(virtio_mmio_causes(mmio), 0, __ATOMIC_SEQ_CST);
    virtio_mmio_show_config(mmio);
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
    /*
     * There may always be a used buffer, and who is interrupted has to look. So an acknowledgement has nothing to
     * change, and need not come to us; and who serves the queues from another process can interrupt without a word to
     * us.
     */
    if (device->active)
        __atomic_fetch_or(virtio_mmio_causes(mmio), VIRTIO_MMIO_INT_VRING, __ATOMIC_SEQ_CST);
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
        acknowledge(mmio, value);
        break;
    case VIRTIO_MMIO_STATUS:
        status_write(mmio, value);
        break;
    default:
        queue_write(mmio, offset, value);
        break;
    }
}

/* The page. */

void virtio_mmio_show(struct virtio_mmio *mmio)
{
    if (mmio->page == NULL)
        return;
    for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset += sizeof(uint32_t))
        if (offset != VIRTIO_MMIO_INTERRUPT_STATUS)
            __atomic_store_n((uint32_t *)(void *)(mmio->page + offset), register_read(mmio, offset), __ATOMIC_RELEASE);
}

static void show_generation(struct virtio_mmio *mmio)
{
    __atomic_store_n((uint32_t *)(void *)(mmio->page + VIRTIO_MMIO_CONFIG_GENERATION), ++mmio->config_generation,
                     __ATOMIC_SEQ_CST);
}

/* One generation while it changes, another one after: a driver that reads meanwhile finds that, and reads again. */
void virtio_mmio_show_config(struct virtio_mmio *mmio)
{
    const struct virtio_ops *ops = mmio->device->ops;
    uint64_t config[CONFIG_SIZE / sizeof(uint64_t)];
    uint64_t *shown = (uint64_t *)(void *)(mmio->page + VIRTIO_MMIO_CONFIG);

    if (mmio->page == NULL || ops->config_read == NULL)
        return;
    ops->config_read(mmio->device, 0, (uint8_t *)config, sizeof(config));
    show_generation(mmio);
    for (size_t i = 0; i < array_length(config); i++)
        __atomic_store_n(&shown[i], config[i], __ATOMIC_SEQ_CST);
    show_generation(mmio);
}

static void mmio_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    const struct virtio_mmio *mmio = device;

    memcpy(data, mmio->page + offset, length);
}

static void mmio_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct virtio_mmio *mmio = device;
    uint32_t value;

    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (mmio->device->ops->config_write != NULL && status_between(mmio, VIRTIO_CONFIG_S_DRIVER, 0)) {
            mmio->device->ops->config_write(mmio->device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, length);
            virtio_mmio_show_config(mmio);
        }
        return;
    }
    /* Registers are written whole (4.2.2.2). */
    if (length != sizeof(value) || offset % sizeof(value) != 0)
        return;
    memcpy(&value, data, sizeof(value));
    register_write(mmio, offset, value);
    if (offset != VIRTIO_MMIO_QUEUE_NOTIFY)
        virtio_mmio_show(mmio);
}

const struct bus_ops virtio_mmio_bus_ops = {
    .read = mmio_read,
    .write = mmio_write,
};
