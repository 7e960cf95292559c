/* Queues of drivers that keep the rules. */
#include "tests/unit/virtqueue_fixture.h"

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>

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

/* Each area counts from its first byte to its last, and only while the driver says that it is there. */
static void test_queue_knows_where_its_areas_are(void **state)
{
    const struct {
        uint64_t gpa, length;
    } areas[] = {{ring->descriptor_gpa, SIZE * 16}, {ring->driver_gpa, 6 + SIZE * 2}, {ring->device_gpa, 6 + SIZE * 8}};

    (void)state;
    /* Far from each other, so that each is found for itself. */
    queue->descriptor_gpa = 0x100000;
    queue->driver_gpa = 0x200000;
    queue->device_gpa = 0x300000;
    const uint64_t starts[] = {queue->descriptor_gpa, queue->driver_gpa, queue->device_gpa};
    activate(0);
    for (size_t i = 0; i < array_length(starts); i++) {
        uint64_t start = starts[i], end = start + areas[i].length;

        assert_false(virtqueue_overlaps(queue, start - 0x1000, 0x1000));
        assert_true(virtqueue_overlaps(queue, start - 0x1000, 0x1001));
        assert_true(virtqueue_overlaps(queue, start, 1));
        assert_true(virtqueue_overlaps(queue, end - 1, 0x1000));
        assert_false(virtqueue_overlaps(queue, end, 0x1000));
        assert_true(virtqueue_overlaps(queue, start - 0x1000, 0x3000));
    }
    assert_true(virtqueue_overlaps(queue, 0, UINT32_MAX));
    queue->ready = false;
    assert_false(virtqueue_overlaps(queue, 0, UINT32_MAX));
}

static void test_queue_works_while_it_has_chains_that_were_not_given_back(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    (void)state;
    activate(0);
    assert_false(virtqueue_is_working(queue));
    guest_ring_add(ring, &buffer, 1);
    assert_false(virtqueue_is_working(queue));
    assert_pops();
    assert_true(virtqueue_is_working(queue));
    virtqueue_push(queue, chain->head, 8);
    assert_false(virtqueue_is_working(queue));
}

/* Another process had three of four chains, and gave back the first. */
static void test_queue_goes_on_behind_what_another_process_took(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};
    uint16_t heads[4], used_head;
    uint32_t length;

    (void)state;
    activate(0);
    for (size_t i = 0; i < array_length(heads); i++)
        heads[i] = guest_ring_add(ring, &buffer, 1);
    assert_pops();
    virtqueue_push(queue, heads[0], 8);
    queue->next_used = queue->next_available = 0;
    virtqueue_take_over(queue, 2);
    assert_true(virtqueue_is_working(queue));
    assert_pops();
    assert_int_equal(chain->head, heads[3]);
    virtqueue_push(queue, heads[2], 16);
    assert_true(guest_ring_take_used(ring, &used_head, &length));
    assert_int_equal(used_head, heads[0]);
    assert_true(guest_ring_take_used(ring, &used_head, &length));
    assert_int_equal(used_head, heads[2]);
    assert_int_equal(length, 16);
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

/* However much the chain has: `length` bytes are copied, wherever it ends. */
static void test_chain_copies_no_more_than_asked_for(void **state)
{
    const struct guest_buffer buffers[] = {
        {DATA_GPA, 4, false}, {DATA_GPA + 0x10, 16, false}, {DATA_GPA + 0x100, 4, true}, {DATA_GPA + 0x200, 16, true}};

    (void)state;
    activate(0);
    memset(guest_at(&fixture.memory, DATA_GPA, 0x20), 'g', 0x20);
    guest_ring_add(ring, buffers, 4);
    assert_pops();
    for (size_t offset = 0; offset < 5; offset++)
        for (size_t length = 0; length <= 20 - offset; length++) {
            const char *written = guest_at(&fixture.memory, DATA_GPA + 0x200, 20);
            char text[32];

            memset(text, '.', sizeof(text));
            assert_int_equal(virtqueue_chain_read(chain, offset, text, length), length);
            for (size_t i = 0; i < sizeof(text); i++)
                assert_int_equal(text[i], i < length ? 'g' : '.');

            memset(guest_at(&fixture.memory, DATA_GPA + 0x100, 0x200), '.', 0x200);
            assert_int_equal(virtqueue_chain_write(chain, offset, "0123456789abcdefghij", length), length);
            for (size_t i = 0; i < 20; i++)
                assert_int_equal(written[i] != '.', i + 4 >= offset && i + 4 < offset + length);
        }
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

TEST_MAIN(QUEUE_TEST(test_queue_activates_within_memory),
          QUEUE_TEST(test_queue_rejects_sizes_that_are_no_power_of_two_or_too_large),
          QUEUE_TEST(test_queue_rejects_areas_that_are_misaligned_or_not_memory),
          QUEUE_TEST(test_queue_knows_where_its_areas_are),
          QUEUE_TEST(test_queue_works_while_it_has_chains_that_were_not_given_back),
          QUEUE_TEST(test_queue_goes_on_behind_what_another_process_took),
          QUEUE_TEST(test_queue_hands_out_buffers_in_order), QUEUE_TEST(test_queue_takes_a_chain_as_long_as_the_ring),
          QUEUE_TEST(test_queue_walks_indirect_tables_at_any_alignment),
          QUEUE_TEST(test_queue_takes_direct_descriptors_before_an_indirect_one),
          QUEUE_TEST(test_queue_leaves_empty_buffers_out), QUEUE_TEST(test_queue_goes_round_past_the_index_wrap),
          QUEUE_TEST(test_unpopped_chain_comes_again), QUEUE_TEST(test_chain_copies_across_buffers),
          QUEUE_TEST(test_chain_copies_no_more_than_asked_for), QUEUE_TEST(test_iovec_slice_skips_and_limits),
          QUEUE_TEST(test_queue_orders_data_between_threads))
