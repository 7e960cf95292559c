/*
 * A device behind the virtio-mmio transport (virtio 1.2, sections 2.1, 3.1 and 4.2), and what a vCPU does with its
 * registers.
 */
#pragma once

#include "tests/unit/harness.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#include "tests/unit/guest_ring.h"
#include "vmm/virtio/mmio.h"

enum { QUEUES = 2, SIZE = 16, OFFERED = 1 << 3 };

#define ACKNOWLEDGE VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define FAILED VIRTIO_CONFIG_S_FAILED

struct fixture {
    struct guest_memory memory;
    struct guest_ring rings[QUEUES];
    struct event_loop *loop;
    struct virtio_mmio *transport;

    struct virtio_device device;
    struct virtqueue queues[QUEUES];
    uint8_t config[12];
    _Alignas(4096) uint8_t page[VIRTIO_MMIO_SIZE];
    bool refuse;
    unsigned activations, resets, destroyed, pauses;
    unsigned notified[QUEUES];
};

static struct fixture fixture;

static inline void fake_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    (void)device;
    virtio_config_copy(fixture.config, sizeof(fixture.config), offset, data, length);
}

static inline void fake_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data,
                                     uint32_t length)
{
    (void)device;
    for (uint32_t i = 0; i < length && offset + i < sizeof(fixture.config); i++)
        fixture.config[offset + i] = data[i];
}

static inline bool fake_activate(struct virtio_device *device)
{
    (void)device;
    fixture.activations++;
    return !fixture.refuse;
}

static inline void fake_notify(struct virtio_device *device, unsigned index)
{
    struct virtqueue_chain chain;

    assert_in_range(index, 0, QUEUES - 1);
    fixture.notified[index]++;
    switch (virtqueue_pop(&device->queues[index], &chain)) {
    case VIRTQUEUE_CHAIN:
        virtqueue_push(&device->queues[index], chain.head, 0);
        virtio_device_signal(device, index);
        break;
    case VIRTQUEUE_BROKEN:
        virtio_device_fail(device, "the queue is broken");
        break;
    default:
        break;
    }
}

static inline void fake_reset(struct virtio_device *device)
{
    (void)device;
    fixture.resets++;
}

static inline void fake_pause(struct virtio_device *device)
{
    (void)device;
    fixture.pauses++;
}

static inline void fake_destroy(struct virtio_device *device)
{
    (void)device;
    fixture.destroyed++;
}

static const struct virtio_ops fake_ops = {
    .type = VIRTIO_ID_BLOCK,
    .name = "fake",
    .config_read = fake_config_read,
    .config_write = fake_config_write,
    .activate = fake_activate,
    .notify = fake_notify,
    .reset = fake_reset,
    .pause = fake_pause,
    .destroy = fake_destroy,
};

static inline int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    guest_memory_setup(&fixture.memory);
    assert_no_error(event_loop_new(&fixture.loop));
    for (size_t i = 0; i < sizeof(fixture.config); i++)
        fixture.config[i] = (uint8_t)(i + 1);
    for (unsigned i = 0; i < QUEUES; i++)
        fixture.queues[i].size_max = SIZE;
    fixture.device = (struct virtio_device){
        .ops = &fake_ops,
        .id = "test",
        .features = OFFERED,
        .queues = fixture.queues,
        .queue_count = QUEUES,
    };
    assert_no_error(virtio_mmio_new(&fixture.device, &fixture.memory, fixture.loop, &fixture.transport));
    virtio_mmio_place(fixture.transport, fixture.page);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    virtio_mmio_free(fixture.transport);
    assert_int_equal(fixture.destroyed, 1);
    event_loop_free(fixture.loop);
    guest_memory_unmap(&fixture.memory);
    return 0;
}

static inline uint64_t read_sized(uint64_t offset, uint32_t length)
{
    uint64_t value = 0;
    uint8_t data[8];

    memset(data, 0xaa, sizeof(data));
    virtio_mmio_bus_ops.read(fixture.transport, offset, data, length);
    memcpy(&value, data, length);
    return value;
}

static inline uint32_t read32(uint64_t offset)
{
    return (uint32_t)read_sized(offset, 4);
}

static inline void write_sized(uint64_t offset, uint64_t value, uint32_t length)
{
    uint8_t data[8];

    memcpy(data, &value, sizeof(data));
    virtio_mmio_bus_ops.write(fixture.transport, offset, data, length);
}

static inline void write32(uint64_t offset, uint32_t value)
{
    write_sized(offset, value, 4);
}

static inline uint32_t status(void)
{
    return read32(VIRTIO_MMIO_STATUS);
}

static inline void set_status(uint32_t bits)
{
    write32(VIRTIO_MMIO_STATUS, bits);
}

static inline void write_features(uint64_t features)
{
    write32(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    write32(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    write32(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write32(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

static inline void configure_queue(unsigned index)
{
    struct guest_ring *ring = &fixture.rings[index];

    guest_ring_init(ring, &fixture.memory, GUEST_RINGS_GPA + index * GUEST_RING_STRIDE, SIZE);
    write32(VIRTIO_MMIO_QUEUE_SEL, index);
    write32(VIRTIO_MMIO_QUEUE_NUM, SIZE);
    write32(VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)ring->descriptor_gpa);
    write32(VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(ring->descriptor_gpa >> 32));
    write32(VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)ring->driver_gpa);
    write32(VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(ring->driver_gpa >> 32));
    write32(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)ring->device_gpa);
    write32(VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(ring->device_gpa >> 32));
    write32(VIRTIO_MMIO_QUEUE_READY, 1);
}

static inline void negotiate(uint64_t features)
{
    set_status(0);
    set_status(ACKNOWLEDGE);
    set_status(ACKNOWLEDGE | DRIVER);
    write_features(features | 1ULL << VIRTIO_F_VERSION_1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static inline void bring_up(void)
{
    negotiate(OFFERED);
    for (unsigned i = 0; i < QUEUES; i++)
        configure_queue(i);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static inline void add_request(unsigned index)
{
    const struct guest_buffer buffer = {0x100000, 16, true};

    guest_ring_add(&fixture.rings[index], &buffer, 1);
}

#define MMIO_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
