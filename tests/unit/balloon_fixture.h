/* A balloon, its driver, and the memory whose pages come and go. */
#pragma once

#include "tests/unit/harness.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include "tests/unit/settle.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

enum { PAGE = 4096, INFLATE = 0, DEFLATE = 1 };
/* Requests lie at REQUEST_GPA; the pages of a test, filled with 0xaa, from PAGES_GPA on. */
#define REQUEST_GPA 0x200000ULL
#define PAGES_GPA 0x400000ULL
#define FIRST_PAGE ((uint32_t)(PAGES_GPA / PAGE))
enum { PAGE_COUNT = 1200 };

#define HINT (1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define STATISTICS (1ull << VIRTIO_BALLOON_F_STATS_VQ)
#define REPORTING (1ull << VIRTIO_BALLOON_F_REPORTING)

static struct guest_driver driver;
static struct balloon_config config;

static inline int setup(void **state)
{
    (void)state;
    config = (struct balloon_config){.present = true};
    memset(&metrics.balloon, 0, sizeof(metrics.balloon));
    guest_driver_setup(&driver);
    memset(guest_at(&driver.memory, PAGES_GPA, PAGE_COUNT * PAGE), 0xaa, PAGE_COUNT * PAGE);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    return 0;
}

static inline struct virtio_device *make(void)
{
    struct virtio_device *device = NULL;

    assert_no_error(virtio_balloon_new(&config, driver.loop, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_BALLOON);
    return device;
}

static inline struct virtio_device *start(uint64_t features)
{
    struct virtio_device *device = make();

    guest_driver_start(&driver, device, features);
    guest_driver_settle(&driver);
    return device;
}

static inline void *request(size_t length)
{
    return guest_at(&driver.memory, REQUEST_GPA, length);
}

/* Sends what lies at REQUEST_GPA, and waits until it is back. */
static inline void send(unsigned queue, uint32_t length)
{
    const struct guest_buffer buffer = {REQUEST_GPA, length, false};

    guest_ring_add(&driver.rings[queue], &buffer, 1);
    guest_driver_notify(&driver, queue);
    assert_int_equal(guest_driver_wait_used(&driver, queue, NULL), 0);
}

static inline void name_free(unsigned queue, uint64_t gpa, uint32_t length)
{
    const struct guest_buffer buffer = {gpa, length, true};

    guest_ring_add(&driver.rings[queue], &buffer, 1);
    guest_driver_notify(&driver, queue);
    assert_int_equal(guest_driver_wait_used(&driver, queue, NULL), 0);
}

static inline uint8_t page(unsigned index)
{
    return *(uint8_t *)guest_at(&driver.memory, PAGES_GPA + index * PAGE, 1);
}

static inline unsigned pages_left(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < PAGE_COUNT; i++)
        count += page(i) == 0xaa;
    return count;
}

static inline struct virtio_balloon_config config_space(void)
{
    struct virtio_balloon_config found;

    driver.device->ops->config_read(driver.device, 0, (uint8_t *)&found, sizeof(found));
    return found;
}

#define balloon_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
