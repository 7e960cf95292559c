#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/hotplug_memory.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* The memory device, driven as a guest would: 256 MiB from 8 GiB in blocks of 2 MiB. */

enum { BLOCKS = 128, UNTOUCHED = 0x7777 };
#define BLOCK (2ull << 20)
#define START 0x200000000ULL
#define REQUEST_GPA 0x200000ULL
#define RESPONSE_GPA 0x201000ULL

static const struct memory_hotplug_config config = {
    .present = true, .total_size_mib = 256, .slot_size_mib = 128, .block_size_mib = 2};
static struct hotplug_memory memory;
static struct guest_driver driver;
static struct guest_ring *const ring = &driver.rings[0];
static bool host_refuses;
static enum memory_use use;
static unsigned use_asked;

static bool memslot_set(void *owner, uint32_t slot, const struct guest_region *region)
{
    (void)owner;
    (void)slot;
    return region->size == 0 || !host_refuses;
}

static enum memory_use tell_use(void *owner, uint64_t gpa, uint64_t length)
{
    assert_ptr_equal(owner, &use);
    assert_true(hotplug_memory_is_range(&memory, gpa, length));
    use_asked++;
    return use;
}

static int setup(void **state)
{
    (void)state;
    host_refuses = false;
    use = MEMORY_UNUSED;
    use_asked = 0;
    memset(&metrics.memory_hotplug, 0, sizeof(metrics.memory_hotplug));
    guest_driver_setup(&driver);
    assert_no_error(hotplug_memory_new(&memory, &config, START, HUGE_PAGES_NONE, false));
    memory.memslot_set = memslot_set;
    driver.memory.hotplug = &memory;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    hotplug_memory_free(&memory);
    return 0;
}

/* A device whose host wishes for `blocks`. */
static struct virtio_device *start(uint64_t blocks)
{
    const struct virtio_mem_users users = {.use = tell_use, .owner = &use};
    struct virtio_device *device = NULL;

    assert_no_error(virtio_mem_new(&config, &memory, &users, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_MEM);
    guest_driver_start(&driver, device, 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE);
    virtio_mem_request(device, blocks * BLOCK);
    return device;
}

static struct virtio_mem_resp *response(void)
{
    return guest_at(&driver.memory, RESPONSE_GPA, sizeof(struct virtio_mem_resp));
}

static void add(uint16_t type, uint64_t gpa, uint16_t blocks)
{
    const struct guest_buffer buffers[] = {{REQUEST_GPA, sizeof(struct virtio_mem_req), false},
                                           {RESPONSE_GPA, sizeof(struct virtio_mem_resp), true}};
    struct virtio_mem_req request = {.type = type, .u.plug = {.addr = gpa, .nb_blocks = blocks}};

    memcpy(guest_at(&driver.memory, REQUEST_GPA, sizeof(request)), &request, sizeof(request));
    response()->type = response()->u.state.state = UNTOUCHED;
    guest_ring_add(ring, buffers, 2);
}

static uint16_t ask(uint16_t type, uint64_t block, uint16_t blocks)
{
    add(type, START + block * BLOCK, blocks);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), sizeof(struct virtio_mem_resp));
    return response()->type;
}

static uint16_t state_of(uint64_t block, uint16_t blocks)
{
    assert_int_equal(ask(VIRTIO_MEM_REQ_STATE, block, blocks), VIRTIO_MEM_RESP_ACK);
    return response()->u.state.state;
}

static void test_config_space_tells_place_and_sizes(void **state)
{
    struct virtio_device *device = start(5);
    struct virtio_mem_config found;
    uint8_t beyond[4];

    (void)state;
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 3), VIRTIO_MEM_RESP_ACK);
    device->ops->config_read(device, 0, (uint8_t *)&found, sizeof(found));
    assert_int_equal(found.block_size, BLOCK);
    assert_int_equal(found.addr, START);
    assert_int_equal(found.region_size, BLOCKS * BLOCK);
    assert_int_equal(found.usable_region_size, BLOCKS * BLOCK);
    assert_int_equal(found.plugged_size, 3 * BLOCK);
    assert_int_equal(found.requested_size, 5 * BLOCK);
    assert_int_equal(virtio_mem_requested(device), 5 * BLOCK);
    assert_int_equal(driver.config_signals, 1);
    memset(beyond, 0xff, sizeof(beyond));
    device->ops->config_read(device, sizeof(found), beyond, sizeof(beyond));
    assert_int_equal(beyond[0] | beyond[3], 0);
}

static void test_blocks_are_plugged_and_unplugged(void **state)
{
    (void)state;
    start(BLOCKS);
    assert_int_equal(state_of(0, BLOCKS), VIRTIO_MEM_STATE_UNPLUGGED);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 2, 4), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(memory.plugged_size, 4 * BLOCK);
    assert_int_equal(state_of(2, 4), VIRTIO_MEM_STATE_PLUGGED);
    assert_int_equal(state_of(1, 2), VIRTIO_MEM_STATE_MIXED);
    *(uint32_t *)guest_at(&driver.memory, START + 2 * BLOCK, 4) = 1;
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 2, 2), VIRTIO_MEM_RESP_ACK);
    assert_null(guest_memory_at(&driver.memory, START + 2 * BLOCK, 4));
    assert_int_equal(state_of(2, 4), VIRTIO_MEM_STATE_MIXED);
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(memory.plugged_size, 0);
    assert_int_equal(metrics.memory_hotplug.plug_bytes, 4 * BLOCK);
    assert_int_equal(metrics.memory_hotplug.unplug_bytes, 2 * BLOCK);
    assert_int_equal(metrics.memory_hotplug.unplug_all_count, 1);
    assert_int_equal(metrics.memory_hotplug.state_count, 4);
    assert_int_equal(metrics.memory_hotplug.plug_fails + metrics.memory_hotplug.unplug_fails, 0);
}

static void test_more_than_the_host_wishes_for_is_refused(void **state)
{
    struct virtio_device *device = start(4);

    (void)state;
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 5), VIRTIO_MEM_RESP_NACK);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 4), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 4, 1), VIRTIO_MEM_RESP_NACK);
    virtio_mem_request(device, 2 * BLOCK); /* less than there is */
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 4, 1), VIRTIO_MEM_RESP_NACK);
    assert_int_equal(memory.plugged_size, 4 * BLOCK);
    assert_int_equal(metrics.memory_hotplug.plug_fails, 3);
}

static void test_wrong_ranges_are_errors_and_change_nothing(void **state)
{
    static const struct {
        uint64_t gpa;
        uint16_t blocks;
    } wrong[] = {{START, 0},
                 {START, BLOCKS + 1},
                 {START, UINT16_MAX},
                 {START - BLOCK, 1},
                 {START + 1, 1},
                 {START + 4096, 1},
                 {START + (BLOCKS - 1) * BLOCK, 2},
                 {START + BLOCKS * BLOCK, 1},
                 {0, 1},
                 {UINT64_MAX - BLOCK + 1, 1},
                 {UINT64_MAX - BLOCK + 1, 2}};
    static const uint16_t types[] = {VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_STATE};

    (void)state;
    start(BLOCKS);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_ACK);
    for (size_t type = 0; type < array_length(types); type++)
        for (size_t i = 0; i < array_length(wrong); i++) {
            add(types[type], wrong[i].gpa, wrong[i].blocks);
            guest_driver_notify(&driver, 0);
            guest_driver_wait_used(&driver, 0, NULL);
            assert_int_equal(response()->type, VIRTIO_MEM_RESP_ERROR);
        }
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 0, 2), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(4, 0, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(UINT16_MAX, 0, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(memory.plugged_size, BLOCK);
    assert_int_equal(use_asked, 0);
    assert_int_equal(metrics.memory_hotplug.plug_fails, array_length(wrong) + 2);
    assert_int_equal(metrics.memory_hotplug.unplug_fails, array_length(wrong) + 2);
    assert_int_equal(metrics.memory_hotplug.state_fails, array_length(wrong));
    assert_int_equal(metrics.memory_hotplug.queue_event_fails, 2);
}

static void test_request_in_parts_or_cut_short(void **state)
{
    const struct guest_buffer parts[] = {
        {REQUEST_GPA, 1, false}, {REQUEST_GPA + 1, 23, false}, {RESPONSE_GPA, sizeof(struct virtio_mem_resp), true}};
    const struct guest_buffer cut[] = {{REQUEST_GPA, 23, false}, {RESPONSE_GPA, sizeof(struct virtio_mem_resp), true}};
    const struct guest_buffer type_only[] = {{REQUEST_GPA, 2, false},
                                             {RESPONSE_GPA, sizeof(struct virtio_mem_resp), true}};
    struct virtio_mem_req request = {.type = VIRTIO_MEM_REQ_PLUG, .u.plug = {.addr = START, .nb_blocks = 1}};

    (void)state;
    start(BLOCKS);
    memcpy(guest_at(&driver.memory, REQUEST_GPA, sizeof(request)), &request, sizeof(request));
    guest_ring_add(ring, cut, 2);
    guest_driver_notify(&driver, 0);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(response()->type, VIRTIO_MEM_RESP_ERROR);
    guest_ring_add(ring, parts, 3);
    guest_driver_notify(&driver, 0);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(response()->type, VIRTIO_MEM_RESP_ACK);
    assert_int_equal(memory.plugged_size, BLOCK);
    request.type = VIRTIO_MEM_REQ_UNPLUG_ALL;
    memcpy(guest_at(&driver.memory, REQUEST_GPA, sizeof(request)), &request, sizeof(request));
    guest_ring_add(ring, type_only, 2);
    guest_driver_notify(&driver, 0);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(response()->type, VIRTIO_MEM_RESP_ACK);
    assert_int_equal(memory.plugged_size, 0);
}

/* The answer's buffer was memory when the chain was taken, and is none any more. */
static void test_answer_into_what_was_just_unplugged_is_not_written(void **state)
{
    const struct guest_buffer buffers[] = {{REQUEST_GPA, sizeof(struct virtio_mem_req), false},
                                           {START + 64, sizeof(struct virtio_mem_resp), true}};
    const struct guest_buffer no_room[] = {{REQUEST_GPA, sizeof(struct virtio_mem_req), false},
                                           {RESPONSE_GPA, sizeof(struct virtio_mem_resp) - 1, true}};

    (void)state;
    start(BLOCKS);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
    struct virtio_mem_req request = {.type = VIRTIO_MEM_REQ_UNPLUG, .u.unplug = {.addr = START, .nb_blocks = 1}};
    memcpy(guest_at(&driver.memory, REQUEST_GPA, sizeof(request)), &request, sizeof(request));
    guest_ring_add(ring, buffers, 2);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 0);
    assert_int_equal(memory.plugged_size, BLOCK);
    guest_ring_add(ring, no_room, 2);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 0);
    guest_ring_add(ring, no_room, 1);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 0);
    /* Where the request before had its answer is no place for this one's. */
    const struct guest_buffer nowhere = {REQUEST_GPA + 0x100, sizeof(struct virtio_mem_req), false};
    memset(guest_at(&driver.memory, nowhere.gpa, nowhere.length), 0xff, nowhere.length);
    add(VIRTIO_MEM_REQ_STATE, START, 1);
    guest_ring_add(ring, &nowhere, 1);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), sizeof(struct virtio_mem_resp));
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 0);
    assert_int_equal(response()->type, VIRTIO_MEM_RESP_ACK);
    assert_false(driver.failed);
    assert_int_equal(metrics.memory_hotplug.queue_event_fails, 5);
}

static void test_memory_that_holds_a_ring_stays(void **state)
{
    (void)state;
    start(BLOCKS);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
    use = MEMORY_HOLDS_RING;
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 0, 1), VIRTIO_MEM_RESP_BUSY);
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_BUSY);
    assert_int_equal(memory.plugged_size, 2 * BLOCK);
    assert_int_equal(metrics.memory_hotplug.unplug_count, 0);
    assert_int_equal(metrics.memory_hotplug.unplug_all_fails, 1);
}

static bool was_asked_again(void *argument)
{
    return use_asked >= *(unsigned *)argument;
}

static void test_memory_that_a_device_works_on_is_waited_for(void **state)
{
    unsigned times = 3;

    (void)state;
    start(BLOCKS);
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
    use = MEMORY_MAY_BE_WORKED_ON;
    add(VIRTIO_MEM_REQ_UNPLUG, START, 1);
    for (unsigned i = 0; i < 5; i++) /* it does not come sooner because the guest is impatient */
        guest_driver_notify(&driver, 0);
    assert_int_equal(use_asked, 1);
    guest_driver_run_until(&driver, was_asked_again, &times);
    assert_false(guest_ring_has_used(ring));
    assert_int_equal(response()->type, UNTOUCHED);
    use = MEMORY_UNUSED;
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(response()->type, VIRTIO_MEM_RESP_ACK);
    assert_int_equal(metrics.memory_hotplug.unplug_count, 1);

    /* For a second or so; then the guest is to come again. */
    use = MEMORY_MAY_BE_WORKED_ON;
    use_asked = 0;
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_BUSY);
    assert_int_equal(metrics.memory_hotplug.unplug_fails, 1);
    unsigned asked_first = use_asked;
    use_asked = 0;
    assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_BUSY);
    assert_int_equal(use_asked, asked_first);
    assert_int_equal(memory.plugged_size, BLOCK);
}

static void test_reset_and_pause_end_the_waiting(void **state)
{
    struct virtio_device *device = start(BLOCKS);

    (void)state;
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
    use = MEMORY_MAY_BE_WORKED_ON;
    add(VIRTIO_MEM_REQ_UNPLUG, START, 1);
    guest_driver_notify(&driver, 0);
    device->paused = true;
    device->ops->pause(device);
    use = MEMORY_UNUSED;
    guest_driver_settle(&driver);
    assert_int_equal(response()->type, UNTOUCHED);
    device->paused = false;
    device->ops->resume(device);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(response()->type, VIRTIO_MEM_RESP_ACK);

    use = MEMORY_MAY_BE_WORKED_ON;
    add(VIRTIO_MEM_REQ_UNPLUG, START + BLOCK, 1);
    guest_driver_notify(&driver, 0);
    guest_driver_reset(&driver);
    use = MEMORY_UNUSED;
    guest_driver_settle(&driver);
    assert_int_equal(memory.plugged_size, BLOCK); /* what is plugged stays so */
    guest_driver_restart(&driver, 0);
    assert_int_equal(state_of(1, 1), VIRTIO_MEM_STATE_PLUGGED);
}

static void test_host_without_memory_is_busy(void **state)
{
    (void)state;
    start(BLOCKS);
    host_refuses = true;
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_BUSY);
    assert_int_equal(memory.plugged_size, 0);
    assert_int_equal(metrics.memory_hotplug.plug_fails, 1);
    host_refuses = false;
    assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_ACK);
}

static void test_many_requests_are_all_served(void **state)
{
    const struct guest_buffer buffers[] = {{REQUEST_GPA, sizeof(struct virtio_mem_req), false},
                                           {RESPONSE_GPA, sizeof(struct virtio_mem_resp), true}};

    (void)state;
    start(BLOCKS);
    add(VIRTIO_MEM_REQ_STATE, START, BLOCKS);
    for (unsigned i = 1; i < 60; i++)
        guest_ring_add(ring, buffers, 2);
    guest_driver_notify(&driver, 0);
    assert_in_range(metrics.memory_hotplug.state_count, 1, 16); /* others have their turn */
    for (unsigned i = 0; i < 60; i++)
        guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(metrics.memory_hotplug.state_count, 60);
    guest_driver_settle(&driver);
}

static void test_broken_ring_stops_the_device(void **state)
{
    (void)state;
    start(BLOCKS);
    guest_ring_available_index(ring, 1000);
    guest_driver_notify(&driver, 0);
    assert_true(driver.failed);
    guest_driver_settle(&driver);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    assert_int_equal(state_of(0, 1), VIRTIO_MEM_STATE_UNPLUGGED);
}

static void test_driver_without_its_queue_is_refused(void **state)
{
    struct virtio_device *device = start(BLOCKS);

    (void)state;
    guest_driver_reset(&driver);
    assert_false(device->ops->activate(device));
    assert_int_equal(metrics.memory_hotplug.activate_fails, 1);
}

#define mem_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(mem_test(test_config_space_tells_place_and_sizes), mem_test(test_blocks_are_plugged_and_unplugged),
          mem_test(test_more_than_the_host_wishes_for_is_refused),
          mem_test(test_wrong_ranges_are_errors_and_change_nothing), mem_test(test_request_in_parts_or_cut_short),
          mem_test(test_answer_into_what_was_just_unplugged_is_not_written),
          mem_test(test_memory_that_holds_a_ring_stays), mem_test(test_memory_that_a_device_works_on_is_waited_for),
          mem_test(test_reset_and_pause_end_the_waiting), mem_test(test_host_without_memory_is_busy),
          mem_test(test_many_requests_are_all_served), mem_test(test_broken_ring_stops_the_device),
          mem_test(test_driver_without_its_queue_is_refused))
