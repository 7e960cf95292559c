#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>

/* Split virtqueues (virtio 1.2, section 2.7), fed by drivers that keep the rules and by drivers that do not. */

enum { SIZE = 16 };
#define RING_GPA GUEST_RINGS_GPA
#define DATA_GPA 0x100000ULL
#define TABLE_GPA 0x200000ULL

#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)

struct fixture {
    struct guest_memory memory;
    struct guest_ring ring;
    struct virtqueue queue;
    struct virtqueue_chain chain;
};

static struct fixture fixture;
static struct guest_ring *const ring = &fixture.ring;
static struct virtqueue *const queue = &fixture.queue;
static struct virtqueue_chain *const chain = &fixture.chain;

static int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    guest_memory_setup(&fixture.memory);
    guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
    guest_ring_configure(ring, queue);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_memory_unmap(&fixture.memory);
    return 0;
}

static void activate(uint64_t features)
{
    assert_true(virtqueue_activate(queue, &fixture.memory, features));
}

static void assert_pops(void)
{
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_CHAIN);
}

/* Breaking is for good: not even a good chain afterwards is taken. */
static void assert_breaks(void)
{
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_BROKEN);
    assert_true(queue->broken);
    guest_ring_descriptor(ring, 0, DATA_GPA, 16, 0, 0);
    guest_ring_publish(ring, 0);
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_BROKEN);
    assert_false(virtqueue_arm(queue));
    assert_false(virtqueue_needs_signal(queue));
}

static void table_entry(unsigned index, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    struct vring_desc descriptor = {.addr = gpa, .len = length, .flags = flags, .next = next};

    memcpy(guest_at(&fixture.memory, TABLE_GPA + index * sizeof(descriptor), sizeof(descriptor)), &descriptor,
           sizeof(descriptor));
}

/* Activation */

static void test_queue_activates_within_memory(void **state)
{
    (void)state;
    activate(0);
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_EMPTY);
}

static void test_queue_rejects_sizes_that_are_no_power_of_two_or_too_large(void **state)
{
    static const uint16_t sizes[] = {0, 3, 15, SIZE * 2, 0xffff, 0x8000};

    (void)state;
    for (size_t i = 0; i < array_length(sizes); i++) {
        queue->size = sizes[i];
        assert_false(virtqueue_activate(queue, &fixture.memory, 0));
    }
    queue->size = SIZE / 2;
    activate(0);
}

struct misplacement {
    uint64_t descriptor, driver, device;
};

static void test_queue_rejects_areas_that_are_misaligned_or_not_memory(void **state)
{
    const uint64_t good = RING_GPA, end = GUEST_LOW_SIZE, high_end = GUEST_HIGH_GPA + GUEST_HIGH_SIZE;
    const struct misplacement wrong[] = {
        {good + 8, good, good},
        {good, good + 1, good},
        {good, good, good + 2},
        {end, good, good},
        {end - SIZE * 16 + 16, good, good},
        {good, end - 4, good},
        {good, end - 6 - SIZE * 2 + 2, good},
        {good, good, end - 6 - SIZE * 8 + 4 - 2},
        {good, good, end - 4},
        {good, good, high_end - 64},
        {0xfffffffffffffff0, good, good},
        {good, 0xfffffffffffffffe, good},
        {good, good, 0xfffffffffffffffc},
        {GUEST_HIGH_GPA - 16, good, good},
        {good, GUEST_LOW_SIZE + 0x1000, good},
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        queue->descriptor_gpa = wrong[i].descriptor;
        queue->driver_gpa = wrong[i].driver;
        queue->device_gpa = wrong[i].device;
        assert_false(virtqueue_activate(queue, &fixture.memory, 0));
    }
    queue->descriptor_gpa = end - SIZE * 16;
    queue->driver_gpa = high_end - 6 - SIZE * 2;
    queue->device_gpa = GUEST_HIGH_GPA;
    activate(0);
}

/* Chains of drivers that keep the rules */

static void test_queue_hands_out_buffers_in_order(void **state)
{
    const struct guest_buffer buffers[] = {{DATA_GPA, 16, false},
                                           {DATA_GPA + 0x1000, 512, false},
                                           {GUEST_HIGH_GPA, 4096, true},
                                           {DATA_GPA + 0x2000, 1, true}};

    (void)state;
    activate(0);
    uint16_t head = guest_ring_add(ring, buffers, 4);
    assert_pops();
    assert_int_equal(chain->head, head);
    assert_int_equal(chain->readable_count, 2);
    assert_int_equal(chain->writable_count, 2);
    assert_int_equal(chain->readable_bytes, 528);
    assert_int_equal(chain->writable_bytes, 4097);
    for (size_t i = 0; i < 4; i++) {
        assert_ptr_equal(chain->iov[i].iov_base, guest_at(&fixture.memory, buffers[i].gpa, buffers[i].length));
        assert_int_equal(chain->iov[i].iov_len, buffers[i].length);
    }
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_EMPTY);
}

static void test_queue_takes_a_chain_as_long_as_the_ring(void **state)
{
    struct guest_buffer buffers[SIZE];

    (void)state;
    activate(0);
    for (size_t i = 0; i < SIZE; i++)
        buffers[i] = (struct guest_buffer){DATA_GPA + i * 64, 64, i >= SIZE / 2};
    guest_ring_add(ring, buffers, SIZE);
    assert_pops();
    assert_int_equal(chain->readable_count + chain->writable_count, SIZE);
}

static void test_queue_walks_indirect_tables_at_any_alignment(void **state)
{
    struct guest_buffer buffers[VIRTQUEUE_IOV_MAX];

    (void)state;
    activate(INDIRECT);
    for (size_t i = 0; i < VIRTQUEUE_IOV_MAX; i++)
        buffers[i] = (struct guest_buffer){DATA_GPA + i * 64, 64, i > 0};
    guest_ring_add_indirect(ring, TABLE_GPA + 3, buffers, VIRTQUEUE_IOV_MAX);
    assert_pops();
    assert_int_equal(chain->readable_count, 1);
    assert_int_equal(chain->writable_count, VIRTQUEUE_IOV_MAX - 1);
    assert_int_equal(chain->writable_bytes, 64 * (VIRTQUEUE_IOV_MAX - 1));
}

static void test_queue_takes_direct_descriptors_before_an_indirect_one(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, DATA_GPA + 64, 32, VRING_DESC_F_NEXT, 1);
    table_entry(1, DATA_GPA + 128, 32, VRING_DESC_F_WRITE, 0);
    guest_ring_descriptor(ring, 0, DATA_GPA, 16, VRING_DESC_F_NEXT, 5);
    /* The write flag of the descriptor that refers to the table means nothing (2.7.5.3.2). */
    guest_ring_descriptor(ring, 5, TABLE_GPA, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
    guest_ring_publish(ring, 0);
    assert_pops();
    assert_int_equal(chain->readable_bytes, 48);
    assert_int_equal(chain->writable_bytes, 32);
}

static void test_queue_leaves_empty_buffers_out(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 0, 0xdead000000000000, 0, VRING_DESC_F_NEXT, 1);
    guest_ring_descriptor(ring, 1, DATA_GPA, 8, VRING_DESC_F_WRITE, 0);
    guest_ring_publish(ring, 0);
    assert_pops();
    assert_int_equal(chain->readable_count, 0);
    assert_int_equal(chain->writable_count, 1);
}

static void test_queue_goes_round_past_the_index_wrap(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    (void)state;
    activate(0);
    for (uint32_t i = 0; i < 0x10000 + 3 * SIZE; i++) {
        uint16_t head = guest_ring_add(ring, &buffer, 1), used_head;
        uint32_t length;

        assert_pops();
        assert_int_equal(chain->head, head);
        virtqueue_push(queue, chain->head, i);
        assert_true(guest_ring_take_used(ring, &used_head, &length));
        assert_int_equal(used_head, head);
        assert_int_equal(length, i);
    }
}

static void test_unpopped_chain_comes_again(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    (void)state;
    activate(0);
    uint16_t head = guest_ring_add(ring, &buffer, 1);
    assert_pops();
    virtqueue_unpop(queue);
    assert_true(virtqueue_arm(queue));
    assert_pops();
    assert_int_equal(chain->head, head);
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_EMPTY);
}

/* Hostile chains */

static void test_queue_rejects_chain_that_loops(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 0, DATA_GPA, 8, VRING_DESC_F_NEXT, 1);
    guest_ring_descriptor(ring, 1, DATA_GPA, 8, VRING_DESC_F_NEXT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_loop_of_empty_buffers(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 0, DATA_GPA, 0, VRING_DESC_F_NEXT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_loop_in_indirect_table(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, DATA_GPA, 8, VRING_DESC_F_NEXT, 1);
    table_entry(1, DATA_GPA, 8, VRING_DESC_F_NEXT, 1);
    guest_ring_descriptor(ring, 0, TABLE_GPA, 32, VRING_DESC_F_INDIRECT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_head_out_of_range(void **state)
{
    (void)state;
    activate(0);
    guest_ring_publish(ring, SIZE);
    assert_breaks();
}

static void test_queue_rejects_next_out_of_range(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 0, DATA_GPA, 8, VRING_DESC_F_NEXT, SIZE);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_next_beyond_indirect_table(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, DATA_GPA, 8, VRING_DESC_F_NEXT, 2);
    guest_ring_descriptor(ring, 0, TABLE_GPA, 32, VRING_DESC_F_INDIRECT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_indirect_within_indirect(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, TABLE_GPA, 16, VRING_DESC_F_INDIRECT, 0);
    guest_ring_descriptor(ring, 0, TABLE_GPA, 16, VRING_DESC_F_INDIRECT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_indirect_that_was_not_negotiated(void **state)
{
    (void)state;
    activate(0);
    table_entry(0, DATA_GPA, 16, 0, 0);
    guest_ring_descriptor(ring, 0, TABLE_GPA, 16, VRING_DESC_F_INDIRECT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

struct indirect_case {
    uint64_t gpa;
    uint32_t length;
    uint16_t flags;
};

static void test_queue_rejects_wrong_indirect_tables(void **state)
{
    static const struct indirect_case wrong[] = {
        {TABLE_GPA, 0, 0},  /* empty */
        {TABLE_GPA, 15, 0}, /* not whole descriptors */
        {TABLE_GPA, 17, 0},
        {TABLE_GPA, 16, VRING_DESC_F_NEXT}, /* both flags (2.7.5.3.1) */
        {GUEST_LOW_SIZE - 8, 16, 0},        /* across the end of memory */
        {0xfffffffffffffff8, 16, 0},        /* wraps */
        {GUEST_HIGH_GPA - 16, 32, 0},       /* begins in the hole */
        {TABLE_GPA, 0xfffffff0, 0},         /* longer than memory */
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        virtqueue_reset(queue);
        guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
        guest_ring_configure(ring, queue);
        activate(INDIRECT);
        table_entry(0, DATA_GPA, 16, 0, 0);
        guest_ring_descriptor(ring, 0, wrong[i].gpa, wrong[i].length, wrong[i].flags | VRING_DESC_F_INDIRECT, 1);
        guest_ring_publish(ring, 0);
        assert_breaks();
    }
}

static void test_queue_rejects_more_buffers_than_a_chain_holds(void **state)
{
    struct guest_buffer buffers[VIRTQUEUE_IOV_MAX + 1];

    (void)state;
    activate(INDIRECT);
    for (size_t i = 0; i < array_length(buffers); i++)
        buffers[i] = (struct guest_buffer){DATA_GPA, 1, false};
    guest_ring_add_indirect(ring, TABLE_GPA, buffers, array_length(buffers));
    assert_breaks();
}

static void test_queue_counts_direct_and_indirect_buffers_together(void **state)
{
    (void)state;
    activate(INDIRECT);
    for (uint16_t i = 0; i + 1 < SIZE; i++)
        guest_ring_descriptor(ring, i, DATA_GPA, 1, VRING_DESC_F_NEXT, (uint16_t)(i + 1));
    for (uint16_t i = 0; i < VIRTQUEUE_IOV_MAX; i++)
        table_entry(i, DATA_GPA, 1, i + 1 < VIRTQUEUE_IOV_MAX ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
    guest_ring_descriptor(ring, SIZE - 1, TABLE_GPA, VIRTQUEUE_IOV_MAX * 16, VRING_DESC_F_INDIRECT, 0);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_writable_before_readable(void **state)
{
    const struct guest_buffer buffers[] = {{DATA_GPA, 8, true}, {DATA_GPA, 8, false}};

    (void)state;
    activate(0);
    guest_ring_add(ring, buffers, 2);
    assert_breaks();
}

static void test_queue_rejects_buffers_that_are_not_memory(void **state)
{
    static const struct guest_buffer wrong[] = {
        {GUEST_LOW_SIZE, 1, true},      {GUEST_LOW_SIZE - 1, 2, true},
        {GUEST_HIGH_GPA - 1, 2, true},  {GUEST_HIGH_GPA + GUEST_HIGH_SIZE - 4, 5, false},
        {0xffffffffffffffff, 1, false}, {0xffffffffffffff00, 0xffffffff, true},
        {DATA_GPA, 0xffffffff, true},
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        virtqueue_reset(queue);
        guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
        guest_ring_configure(ring, queue);
        activate(0);
        guest_ring_add(ring, &wrong[i], 1);
        assert_breaks();
    }
}

static void test_queue_takes_buffers_that_end_with_memory(void **state)
{
    const struct guest_buffer buffers[] = {{GUEST_LOW_SIZE - 2, 2, false}, {GUEST_HIGH_GPA, GUEST_HIGH_SIZE, true}};

    (void)state;
    activate(0);
    guest_ring_add(ring, buffers, 2);
    assert_pops();
}

static void test_queue_rejects_chain_of_four_gibibytes(void **state)
{
    struct guest_memory huge = {.regions = {{.gpa = 0, .size = 0x80000000}}, .count = 1};
    struct guest_ring huge_ring;
    struct virtqueue huge_queue = {0};
    const struct guest_buffer buffers[] = {{0, 0x80000000, true}, {0, 0x7fffffff, true}, {0, 1, true}};

    (void)state;
    assert_no_error(guest_memory_map(&huge, HUGE_PAGES_NONE));
    guest_ring_init(&huge_ring, &huge, RING_GPA, SIZE);
    guest_ring_configure(&huge_ring, &huge_queue);
    assert_true(virtqueue_activate(&huge_queue, &huge, 0));
    guest_ring_add(&huge_ring, buffers, 2);
    assert_int_equal(virtqueue_pop(&huge_queue, chain), VIRTQUEUE_CHAIN);
    assert_int_equal(chain->writable_bytes, 0xffffffff);
    guest_ring_add(&huge_ring, buffers, 3);
    assert_int_equal(virtqueue_pop(&huge_queue, chain), VIRTQUEUE_BROKEN);
    guest_memory_unmap(&huge);
}

static void test_queue_rejects_index_too_far_ahead(void **state)
{
    static const uint16_t wrong[] = {SIZE + 1, 0x7fff, 0x8000, 0xffff};

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        virtqueue_reset(queue);
        guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
        guest_ring_configure(ring, queue);
        activate(0);
        guest_ring_available_index(ring, wrong[i]);
        assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_BROKEN);
    }
}

static void test_queue_rejects_index_that_goes_back(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 0, DATA_GPA, 8, 0, 0);
    for (int i = 0; i < 5; i++)
        guest_ring_publish(ring, 0);
    for (int i = 0; i < 5; i++)
        assert_pops();
    guest_ring_available_index(ring, 3);
    assert_breaks();
}

static void test_queue_rejects_more_chains_in_flight_than_it_has_entries(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 0, DATA_GPA, 8, 0, 0);
    for (int i = 0; i < SIZE; i++)
        guest_ring_publish(ring, 0);
    for (int i = 0; i < SIZE; i++)
        assert_pops();
    /* None of them was used: one more cannot be. */
    guest_ring_publish(ring, 0);
    assert_breaks();
}

/* Notifications, both ways (2.7.7, 2.7.10) */

static void use_one(void)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    guest_ring_add(ring, &buffer, 1);
    assert_pops();
    virtqueue_push(queue, chain->head, 8);
}

static void test_no_signal_without_used_buffers(void **state)
{
    (void)state;
    activate(0);
    assert_false(virtqueue_needs_signal(queue));
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    assert_false(virtqueue_needs_signal(queue));
}

static void test_flag_keeps_the_interrupt_away(void **state)
{
    (void)state;
    activate(0);
    guest_ring_flags(ring, VRING_AVAIL_F_NO_INTERRUPT);
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    guest_ring_flags(ring, 0);
    use_one();
    assert_true(virtqueue_needs_signal(queue));
}

static void test_event_index_decides_about_the_interrupt(void **state)
{
    (void)state;
    activate(EVENT_IDX);
    /* The flag means nothing now. */
    guest_ring_flags(ring, VRING_AVAIL_F_NO_INTERRUPT);
    guest_ring_used_event(ring, 0);
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    guest_ring_used_event(ring, 3);
    use_one();
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    /* A batch that passes the index counts as well. */
    guest_ring_used_event(ring, 6);
    use_one();
    use_one();
    use_one();
    assert_true(virtqueue_needs_signal(queue));
}

/* Nothing is known about what the guest was told before: it is told in any case. */
static void test_first_used_buffer_interrupts_whatever_the_event_index(void **state)
{
    (void)state;
    activate(EVENT_IDX);
    guest_ring_used_event(ring, 100);
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    use_one();
    assert_false(virtqueue_needs_signal(queue));
}

static void test_event_index_works_across_the_wrap(void **state)
{
    (void)state;
    queue->next_available = queue->next_used = queue->signalled_used = 0xfffe;
    queue->signalled_valid = true;
    activate(EVENT_IDX);
    guest_ring_available_index(ring, 0xfffe);
    guest_ring_used_event(ring, 0);
    use_one();
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    use_one();
    assert_true(virtqueue_needs_signal(queue));
}

static void test_arm_publishes_the_event_index_and_sees_new_chains(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    (void)state;
    activate(EVENT_IDX);
    use_one();
    assert_false(virtqueue_arm(queue));
    assert_int_equal(guest_ring_avail_event(ring), 1);
    guest_ring_add(ring, &buffer, 1);
    assert_true(virtqueue_arm(queue));
}

static void test_disarm_sets_the_flag_and_arm_clears_it(void **state)
{
    (void)state;
    activate(0);
    virtqueue_disarm(queue);
    assert_int_equal(ring->used->flags, VRING_USED_F_NO_NOTIFY);
    assert_false(virtqueue_arm(queue));
    assert_int_equal(ring->used->flags, 0);
}

/* Copying */

static void test_chain_copies_across_buffers(void **state)
{
    const struct guest_buffer buffers[] = {
        {DATA_GPA, 3, false}, {DATA_GPA + 10, 4, false}, {DATA_GPA + 100, 2, true}, {DATA_GPA + 200, 5, true}};
    char text[16] = {0};

    (void)state;
    activate(0);
    memcpy(guest_at(&fixture.memory, DATA_GPA, 20), "abc.......defg......", 20);
    guest_ring_add(ring, buffers, 4);
    assert_pops();
    assert_int_equal(virtqueue_chain_read(chain, 1, text, sizeof(text)), 6);
    assert_string_equal(text, "bcdefg");
    assert_int_equal(virtqueue_chain_read(chain, 7, text, 1), 0);
    assert_int_equal(virtqueue_chain_write(chain, 1, "uvwxyz.", 7), 6);
    assert_memory_equal(guest_at(&fixture.memory, DATA_GPA + 101, 1), "u", 1);
    assert_memory_equal(guest_at(&fixture.memory, DATA_GPA + 200, 6), "vwxyz\0", 6);
}

static void test_iovec_slice_skips_and_limits(void **state)
{
    char bytes[30];
    const struct iovec from[] = {{bytes, 10}, {bytes + 10, 10}, {bytes + 20, 10}};
    struct iovec iov[3];

    (void)state;
    assert_int_equal(iovec_slice(iov, from, 3, 5, 10), 2);
    assert_ptr_equal(iov[0].iov_base, bytes + 5);
    assert_int_equal(iov[0].iov_len, 5);
    assert_int_equal(iov[1].iov_len, 5);
    assert_int_equal(iovec_slice(iov, from, 3, 10, 100), 2);
    assert_ptr_equal(iov[0].iov_base, bytes + 10);
    assert_int_equal(iovec_slice(iov, from, 3, 30, 1), 0);
    assert_int_equal(iovec_slice(iov, from, 3, 0, 0), 0);
}

/* Random garbage in all areas: whatever happens, it ends, and stays within memory (the sanitizers watch). */
static void test_queue_survives_random_rings(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        virtqueue_reset(queue);
        guest_ring_init(ring, &fixture.memory, RING_GPA, SIZE);
        guest_ring_configure(ring, queue);
        activate(round % 2 == 0 ? INDIRECT | EVENT_IDX : 0);
        for (uint16_t i = 0; i < SIZE; i++) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            uint64_t address = (seed >> 20) % (2 * GUEST_LOW_SIZE);
            uint16_t flags = (uint16_t)((seed >> 8) & (seed >> 16) & 7);

            guest_ring_descriptor(ring, i, address, (uint32_t)(seed >> 44), flags,
                                  (uint16_t)((seed >> 40) % (SIZE + 1)));
            guest_ring_publish(ring, (uint16_t)((seed >> 33) % (round % 8 == 0 ? SIZE + 1 : SIZE)));
        }

        enum virtqueue_result result;
        while ((result = virtqueue_pop(queue, chain)) == VIRTQUEUE_CHAIN)
            virtqueue_push(queue, chain->head, chain->writable_bytes);
        assert_true(result == VIRTQUEUE_EMPTY || result == VIRTQUEUE_BROKEN);
    }
}

/* A guest on another thread: TSan sees whether the indices order what they announce. */
enum { ROUNDS = 20000 };

static void *drive(void *argument)
{
    uint64_t *sum = argument;
    uint16_t head;
    uint32_t length, sent = 0, seen = 0;

    while (seen < ROUNDS) {
        if (sent < ROUNDS && sent - seen < SIZE) {
            uint64_t gpa = DATA_GPA + (sent % SIZE) * 8;
            const struct guest_buffer buffer = {gpa, 8, true};

            guest_ring_add(ring, &buffer, 1);
            sent++;
        }
        while (guest_ring_take_used(ring, &head, &length)) {
            uint64_t value;

            memcpy(&value, guest_memory_at(&fixture.memory, ring->descriptors[head].addr, 8), 8);
            *sum += value;
            seen++;
        }
    }
    return NULL;
}

static void test_queue_orders_data_between_threads(void **state)
{
    pthread_t guest;
    uint64_t sum = 0, expected = 0, done = 0;

    (void)state;
    activate(EVENT_IDX);
    assert_int_equal(pthread_create(&guest, NULL, drive, &sum), 0);
    while (done < ROUNDS) {
        if (virtqueue_pop(queue, chain) != VIRTQUEUE_CHAIN)
            continue;
        done++;
        expected += done;
        virtqueue_chain_write(chain, 0, &done, sizeof(done));
        virtqueue_push(queue, chain->head, sizeof(done));
        virtqueue_needs_signal(queue);
        virtqueue_arm(queue);
    }
    pthread_join(guest, NULL);
    assert_int_equal(sum, expected);
}

#define QUEUE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

TEST_MAIN(QUEUE_TEST(test_queue_activates_within_memory),
          QUEUE_TEST(test_queue_rejects_sizes_that_are_no_power_of_two_or_too_large),
          QUEUE_TEST(test_queue_rejects_areas_that_are_misaligned_or_not_memory),
          QUEUE_TEST(test_queue_hands_out_buffers_in_order), QUEUE_TEST(test_queue_takes_a_chain_as_long_as_the_ring),
          QUEUE_TEST(test_queue_walks_indirect_tables_at_any_alignment),
          QUEUE_TEST(test_queue_takes_direct_descriptors_before_an_indirect_one),
          QUEUE_TEST(test_queue_leaves_empty_buffers_out), QUEUE_TEST(test_queue_goes_round_past_the_index_wrap),
          QUEUE_TEST(test_unpopped_chain_comes_again), QUEUE_TEST(test_queue_rejects_chain_that_loops),
          QUEUE_TEST(test_queue_rejects_loop_of_empty_buffers), QUEUE_TEST(test_queue_rejects_loop_in_indirect_table),
          QUEUE_TEST(test_queue_rejects_head_out_of_range), QUEUE_TEST(test_queue_rejects_next_out_of_range),
          QUEUE_TEST(test_queue_rejects_next_beyond_indirect_table),
          QUEUE_TEST(test_queue_rejects_indirect_within_indirect),
          QUEUE_TEST(test_queue_rejects_indirect_that_was_not_negotiated),
          QUEUE_TEST(test_queue_rejects_wrong_indirect_tables),
          QUEUE_TEST(test_queue_rejects_more_buffers_than_a_chain_holds),
          QUEUE_TEST(test_queue_counts_direct_and_indirect_buffers_together),
          QUEUE_TEST(test_queue_rejects_writable_before_readable),
          QUEUE_TEST(test_queue_rejects_buffers_that_are_not_memory),
          QUEUE_TEST(test_queue_takes_buffers_that_end_with_memory),
          QUEUE_TEST(test_queue_rejects_chain_of_four_gibibytes), QUEUE_TEST(test_queue_rejects_index_too_far_ahead),
          QUEUE_TEST(test_queue_rejects_index_that_goes_back),
          QUEUE_TEST(test_queue_rejects_more_chains_in_flight_than_it_has_entries),
          QUEUE_TEST(test_no_signal_without_used_buffers), QUEUE_TEST(test_flag_keeps_the_interrupt_away),
          QUEUE_TEST(test_event_index_decides_about_the_interrupt),
          QUEUE_TEST(test_first_used_buffer_interrupts_whatever_the_event_index),
          QUEUE_TEST(test_event_index_works_across_the_wrap),
          QUEUE_TEST(test_arm_publishes_the_event_index_and_sees_new_chains),
          QUEUE_TEST(test_disarm_sets_the_flag_and_arm_clears_it), QUEUE_TEST(test_chain_copies_across_buffers),
          QUEUE_TEST(test_iovec_slice_skips_and_limits), QUEUE_TEST(test_queue_survives_random_rings),
          QUEUE_TEST(test_queue_orders_data_between_threads))
