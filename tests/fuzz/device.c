#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/virtio/mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

/*
 * Guest memory: 256 KiB from 0, a hole, 64 KiB from 4 GiB. The rings of queue n lie in QUEUE_STRIDE bytes from
 * QUEUES_GPA + n * QUEUE_STRIDE, room for QUEUE_SIZE_MAX entries; buffers from DATA_GPA.
 */
#define LOW_SIZE 0x40000ull
#define HIGH_GPA 0x100000000ull
#define HIGH_SIZE 0x10000ull
enum {
    QUEUES_GPA = 0x1000,
    QUEUE_STRIDE = 0x1000,
    AVAILABLE = 0x400,
    USED = 0x800,
    QUEUE_SIZE_MAX = 64,
    QUEUES_MAX = 24,
    DATA_GPA = 0x20000,
    CHAIN_MAX = 5,
};

struct script {
    struct fuzz_input input;
    const struct fuzz_device_ops *ops;
    struct event_loop *loop;
    struct virtio_mmio *transport;
    unsigned queue_count;
    uint16_t size[QUEUES_MAX];
    uint16_t next_descriptor[QUEUES_MAX];
    uint16_t next_available[QUEUES_MAX];
};

static struct guest_memory memory;

static void memory_prepare(bool shared)
{
    if (memory.count == 0) {
        memory.count = 2;
        memory.regions[0] = (struct guest_region){.gpa = 0, .size = LOW_SIZE};
        memory.regions[1] = (struct guest_region){.gpa = HIGH_GPA, .size = HIGH_SIZE};
        fuzz_no_error(shared ? guest_memory_map_shared(&memory, HUGE_PAGES_NONE)
                             : guest_memory_map(&memory, HUGE_PAGES_NONE));
    }
    for (size_t i = 0; i < memory.count; i++)
        memset(memory.regions[i].hva, 0, memory.regions[i].size);
}

static void register_write(struct script *script, uint64_t offset, uint32_t value)
{
    virtio_mmio_bus_ops.write(script->transport, offset, (const uint8_t *)&value, sizeof(value));
}

static uint32_t register_read(struct script *script, uint64_t offset)
{
    uint32_t value = 0;

    virtio_mmio_bus_ops.read(script->transport, offset, (uint8_t *)&value, sizeof(value));
    return value;
}

static unsigned some_queue(struct script *script)
{
    return fuzz_u8(&script->input) % script->queue_count;
}

/* --- What a driver does --- */

static void set_up_queue(struct script *script, unsigned queue, uint16_t size)
{
    uint32_t gpa = QUEUES_GPA + queue * QUEUE_STRIDE;

    register_write(script, VIRTIO_MMIO_QUEUE_SEL, queue);
    uint32_t most = register_read(script, VIRTIO_MMIO_QUEUE_NUM_MAX);
    if (size > most)
        size = (uint16_t)most;
    script->size[queue] = size == 0 ? 1 : size;
    script->next_descriptor[queue] = script->next_available[queue] = 0;
    register_write(script, VIRTIO_MMIO_QUEUE_NUM, size);
    register_write(script, VIRTIO_MMIO_QUEUE_DESC_LOW, gpa);
    register_write(script, VIRTIO_MMIO_QUEUE_AVAIL_LOW, gpa + AVAILABLE);
    register_write(script, VIRTIO_MMIO_QUEUE_USED_LOW, gpa + USED);
    register_write(script, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* Reset, features, queues, DRIVER_OK: what a good driver does, with features as the input says. */
static void negotiate(struct script *script)
{
    uint64_t refused = fuzz_u64(&script->input);
    uint8_t sizes = fuzz_u8(&script->input);
    uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    register_write(script, VIRTIO_MMIO_STATUS, 0);
    register_write(script, VIRTIO_MMIO_STATUS, status);
    for (uint32_t half = 0; half < 2; half++) {
        register_write(script, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        uint32_t offered = register_read(script, VIRTIO_MMIO_DEVICE_FEATURES);
        uint32_t keep = half == 1 ? 1u << (VIRTIO_F_VERSION_1 - 32) : 0;

        register_write(script, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        register_write(script, VIRTIO_MMIO_DRIVER_FEATURES, (offered & ~(uint32_t)(refused >> half * 32)) | keep);
    }
    status |= VIRTIO_CONFIG_S_FEATURES_OK;
    register_write(script, VIRTIO_MMIO_STATUS, status);
    for (unsigned queue = 0; queue < script->queue_count; queue++) {
        memset(guest_memory_at(&memory, QUEUES_GPA + queue * QUEUE_STRIDE, QUEUE_STRIDE), 0, QUEUE_STRIDE);
        set_up_queue(script, queue, (uint16_t)(1u << (queue + sizes) % 7));
    }
    register_write(script, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static struct vring_desc *descriptor_of(unsigned queue, uint16_t index)
{
    return guest_memory_at(&memory, QUEUES_GPA + queue * QUEUE_STRIDE + index * sizeof(struct vring_desc),
                           sizeof(struct vring_desc));
}

static void publish(struct script *script, unsigned queue, uint16_t head)
{
    struct vring_avail *available =
        guest_memory_at(&memory, QUEUES_GPA + queue * QUEUE_STRIDE + AVAILABLE, USED - AVAILABLE);

    available->ring[script->next_available[queue]++ % script->size[queue]] = head;
    available->idx = script->next_available[queue];
}

/* A chain of a few buffers in the data area, the first of them filled from the input; then the doorbell. */
static void action_chain(struct script *script)
{
    unsigned queue = some_queue(script);
    uint16_t size = script->size[queue];
    uint8_t shape = fuzz_u8(&script->input);
    unsigned count = 1 + shape % CHAIN_MAX;
    uint16_t head = script->next_descriptor[queue] % size;
    uint64_t gpa = DATA_GPA + (uint64_t)(shape >> 4) * 0x1000;

    for (unsigned i = 0; i < count; i++) {
        uint16_t index = script->next_descriptor[queue]++ % size;
        uint16_t length = fuzz_u16(&script->input);
        struct vring_desc descriptor = {.addr = gpa, .len = length & 0x3fff, .next = (uint16_t)((index + 1) % size)};

        descriptor.flags = (length & 0x8000) ? VRING_DESC_F_WRITE : 0;
        if (i + 1 < count)
            descriptor.flags |= VRING_DESC_F_NEXT;
        if (i == 0)
            fuzz_bytes(&script->input, guest_memory_at(&memory, gpa, 64), (length & 0x4000) ? 64 : 16);
        if (i == 0 && script->ops->request != NULL)
            script->ops->request(&script->input, queue, guest_memory_at(&memory, gpa, FUZZ_REQUEST_SIZE));
        *descriptor_of(queue, index) = descriptor;
        gpa += descriptor.len;
    }
    publish(script, queue, head);
    register_write(script, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void action_descriptor(struct script *script)
{
    unsigned queue = some_queue(script);
    uint16_t index = fuzz_u8(&script->input) % QUEUE_SIZE_MAX;
    struct vring_desc *descriptor = descriptor_of(queue, index);

    descriptor->addr = fuzz_u64(&script->input);
    descriptor->len = fuzz_u32(&script->input);
    descriptor->flags = fuzz_u8(&script->input);
    descriptor->next = fuzz_u8(&script->input);
}

static void action_publish(struct script *script)
{
    unsigned queue = some_queue(script);

    publish(script, queue, fuzz_u8(&script->input));
    register_write(script, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void action_available_index(struct script *script)
{
    unsigned queue = some_queue(script);
    uint16_t index = fuzz_u16(&script->input);

    guest_memory_write(&memory, QUEUES_GPA + queue * QUEUE_STRIDE + AVAILABLE + 2, &index, sizeof(index));
    register_write(script, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void action_memory(struct script *script)
{
    uint8_t bytes[64];
    uint32_t gpa = fuzz_u32(&script->input) % LOW_SIZE;

    fuzz_bytes(&script->input, bytes, sizeof(bytes));
    guest_memory_write(&memory, gpa, bytes, sizeof(bytes));
}

static void action_notify(struct script *script)
{
    register_write(script, VIRTIO_MMIO_QUEUE_NOTIFY, fuzz_u8(&script->input));
}

static void action_register(struct script *script)
{
    uint64_t offset = fuzz_u16(&script->input) % VIRTIO_MMIO_SIZE;

    register_write(script, offset, fuzz_u32(&script->input));
}

/* Any access: every width, every place, config space included. */
static void action_access(struct script *script)
{
    uint8_t how = fuzz_u8(&script->input), data[8];
    uint64_t offset = fuzz_u16(&script->input) % VIRTIO_MMIO_SIZE;
    uint32_t length = 1u << (how & 3);

    fuzz_bytes(&script->input, data, sizeof(data));
    if (how & 4)
        virtio_mmio_bus_ops.read(script->transport, offset, data, length);
    else
        virtio_mmio_bus_ops.write(script->transport, offset, data, length);
}

static void action_settle(struct script *script)
{
    fuzz_settle(script->loop);
}

static void action_pause_and_resume(struct script *script)
{
    virtio_mmio_pause(script->transport);
    if (script->ops->host_event != NULL)
        script->ops->host_event(&script->input);
    fuzz_settle(script->loop);
    virtio_mmio_resume(script->transport);
}

static void action_host_event(struct script *script)
{
    if (script->ops->host_event != NULL)
        script->ops->host_event(&script->input);
    fuzz_settle(script->loop);
}

/* The loop has not seen it when the driver goes on. */
static void action_unseen_event(struct script *script)
{
    if (script->ops->host_event != NULL)
        script->ops->host_event(&script->input);
}

/* Chains and events come oftener than the rest. */
static void (*const actions[])(struct script *script) = {
    action_chain,        action_chain,  action_chain,   action_chain,      action_host_event,
    action_settle,       action_memory, action_publish, action_descriptor, action_available_index,
    action_register,     action_access, action_notify,  negotiate,         action_pause_and_resume,
    action_unseen_event,
};

/* The driver reads the page, whatever happened to the device. */
static void check_page(const struct script *script, struct virtio_device *device)
{
    uint8_t config[256] = {0}, shown[sizeof(config)];

    if (device->ops->config_read != NULL)
        device->ops->config_read(device, 0, config, sizeof(config));
    virtio_mmio_bus_ops.read(script->transport, VIRTIO_MMIO_CONFIG, shown, sizeof(shown));
    if (memcmp(config, shown, sizeof(config)) != 0)
        abort();
}

/* What the driver and the host's side do to a device that is there. */
static void play(struct script *script, struct virtio_device *device)
{
    static _Alignas(4096) uint8_t page[VIRTIO_MMIO_SIZE];

    script->queue_count = device->queue_count < QUEUES_MAX ? device->queue_count : QUEUES_MAX;
    memory.hotplug = NULL;
    if (script->ops->attach != NULL)
        script->ops->attach(&memory);
    fuzz_no_error(virtio_mmio_new(device, &memory, script->loop, &script->transport));
    virtio_mmio_place(script->transport, page);
    negotiate(script);
    while (script->input.left > 0) {
        actions[fuzz_u8(&script->input) % array_length(actions)](script);
        check_page(script, device);
    }
    fuzz_settle(script->loop);
    virtio_mmio_free(script->transport);
}

int fuzz_device(const struct fuzz_device_ops *ops, const uint8_t *data, size_t size)
{
    struct script script = {.input = {data, size}, .ops = ops};

    log_set_level(LOG_LEVEL_OFF);
    memory_prepare(ops->memory_is_shared);
    fuzz_no_error(event_loop_new(&script.loop));

    struct virtio_device *device = ops->make(script.loop);
    if (device != NULL)
        play(&script, device);
    if (ops->end != NULL)
        ops->end();
    event_loop_free(script.loop);
    return 0;
}
