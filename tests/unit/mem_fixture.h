/* A virtio-mem device of 256 MiB that nothing else of the machine uses, for tests of all devices. */
#pragma once

#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "vmm/hotplug_memory.h"
#include "vmm/virtio/devices.h"

static inline bool memslot_is_set(void *owner, uint32_t slot, const struct guest_region *region)
{
    (void)owner;
    (void)slot;
    (void)region;
    return true;
}

static inline enum memory_use nobody_uses(void *owner, uint64_t gpa, uint64_t length)
{
    (void)owner;
    (void)gpa;
    (void)length;
    return MEMORY_UNUSED;
}

/* `hotplug` is freed by the test, after the driver. */
static inline struct virtio_device *mem_device(struct guest_driver *driver, struct hotplug_memory *hotplug)
{
    const struct memory_hotplug_config config = {
        .present = true, .total_size_mib = 256, .slot_size_mib = 128, .block_size_mib = 2};
    const struct virtio_mem_users users = {.use = nobody_uses};
    struct virtio_device *device = NULL;

    assert_no_error(hotplug_memory_new(hotplug, &config, 2 * GUEST_HIGH_GPA, HUGE_PAGES_NONE, false));
    hotplug->memslot_set = memslot_is_set;
    driver->memory.hotplug = hotplug;
    assert_no_error(virtio_mem_new(&config, hotplug, &users, &device));
    return device;
}
