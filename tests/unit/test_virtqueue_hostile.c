/* Chains and indices that no driver should make. */
#include "tests/unit/virtqueue_fixture.h"

#include <linux/virtio_ring.h>

/* Breaking is for good: not even a good chain afterwards is taken. */
static void assert_breaks(void)
{
    uint16_t used = ring->used->idx;

    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_BROKEN);
    assert_true(queue->broken);
    guest_ring_descriptor(ring, 0, DATA_GPA, 16, 0, 0);
    guest_ring_publish(ring, 0);
    assert_int_equal(virtqueue_pop(queue, chain), VIRTQUEUE_BROKEN);
    assert_false(virtqueue_arm(queue));
    virtqueue_push(queue, 0, 8);
    assert_int_equal(ring->used->idx, used);
    assert_int_equal(ring->used->ring[used % SIZE].len, 0);
    assert_false(virtqueue_needs_signal(queue));
}

/* So does a chain that begins with this. */
static void assert_breaks_on(uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    guest_ring_descriptor(ring, 0, gpa, length, flags, next);
    guest_ring_publish(ring, 0);
    assert_breaks();
}

static void test_queue_rejects_chain_that_loops(void **state)
{
    (void)state;
    activate(0);
    guest_ring_descriptor(ring, 1, DATA_GPA, 8, VRING_DESC_F_NEXT, 0);
    assert_breaks_on(DATA_GPA, 8, VRING_DESC_F_NEXT, 1);
}

static void test_queue_rejects_loop_of_empty_buffers(void **state)
{
    (void)state;
    activate(0);
    assert_breaks_on(DATA_GPA, 0, VRING_DESC_F_NEXT, 0);
}

static void test_queue_rejects_loop_in_indirect_table(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, DATA_GPA, 8, VRING_DESC_F_NEXT, 1);
    table_entry(1, DATA_GPA, 8, VRING_DESC_F_NEXT, 1);
    assert_breaks_on(TABLE_GPA, 32, VRING_DESC_F_INDIRECT, 0);
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
    assert_breaks_on(DATA_GPA, 8, VRING_DESC_F_NEXT, SIZE);
}

static void test_queue_rejects_next_beyond_indirect_table(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, DATA_GPA, 8, VRING_DESC_F_NEXT, 2);
    assert_breaks_on(TABLE_GPA, 32, VRING_DESC_F_INDIRECT, 0);
}

static void test_queue_rejects_indirect_within_indirect(void **state)
{
    (void)state;
    activate(INDIRECT);
    table_entry(0, TABLE_GPA, 16, VRING_DESC_F_INDIRECT, 0);
    assert_breaks_on(TABLE_GPA, 16, VRING_DESC_F_INDIRECT, 0);
}

static void test_queue_rejects_indirect_that_was_not_negotiated(void **state)
{
    (void)state;
    activate(0);
    table_entry(0, DATA_GPA, 16, 0, 0);
    assert_breaks_on(TABLE_GPA, 16, VRING_DESC_F_INDIRECT, 0);
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
        start_over(INDIRECT);
        table_entry(0, DATA_GPA, 16, 0, 0);
        assert_breaks_on(wrong[i].gpa, wrong[i].length, wrong[i].flags | VRING_DESC_F_INDIRECT, 1);
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
        start_over(0);
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
        start_over(0);
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

/* Random garbage in all areas: whatever happens, it ends, and stays within memory (the sanitizers watch). */
static void test_queue_survives_random_rings(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        start_over(round % 2 == 0 ? INDIRECT | EVENT_IDX : 0);
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

TEST_MAIN(QUEUE_TEST(test_queue_rejects_chain_that_loops), QUEUE_TEST(test_queue_rejects_loop_of_empty_buffers),
          QUEUE_TEST(test_queue_rejects_loop_in_indirect_table), QUEUE_TEST(test_queue_rejects_head_out_of_range),
          QUEUE_TEST(test_queue_rejects_next_out_of_range), QUEUE_TEST(test_queue_rejects_next_beyond_indirect_table),
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
          QUEUE_TEST(test_queue_survives_random_rings))
