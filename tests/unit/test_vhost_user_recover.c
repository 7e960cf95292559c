/* Where a queue goes on after its back end vanished. */
#include "tests/unit/harness.h"

#include "vmm/backend/vhost_user.h"

#include <linux/virtio_ring.h>
#include <string.h>

enum { SIZE = 8 };

static union {
    struct vring_avail available;
    uint16_t room[2 + SIZE + 1];
} available;
static union {
    struct vring_used used;
    vring_used_elem_t room[1 + SIZE + 1];
} used;

/* The rings after these heads were made available, and these given back: as many as have happened before are 0. */
static struct vhost_user_ring ring_of(uint16_t before, const uint16_t *posted, uint16_t posted_count,
                                      const uint16_t *done, uint16_t done_count)
{
    memset(&available, 0, sizeof(available));
    memset(&used, 0, sizeof(used));
    for (uint16_t i = 0; i < posted_count; i++)
        available.available.ring[(uint16_t)(before + i) % SIZE] = posted[i];
    for (uint16_t i = 0; i < done_count; i++)
        used.used.ring[(uint16_t)(before + i) % SIZE].id = done[i];
    available.available.idx = (uint16_t)(before + posted_count);
    used.used.idx = (uint16_t)(before + done_count);
    return (struct vhost_user_ring){.ready = true, .size = SIZE, .available = &available.available, .used = &used.used};
}

#define HEADS(...) ((const uint16_t[]){__VA_ARGS__})

static void test_queue_with_nothing_in_flight_goes_on_whatever_the_order_was(void **state)
{
    struct vhost_user_ring ring = ring_of(0, HEADS(0, 3, 6), 3, HEADS(6, 0, 3), 3);
    uint16_t base = 99;

    (void)state;
    assert_true(vhost_user_ring_recover(&ring, &base));
    assert_int_equal(base, 3);
}

static void test_requests_done_in_order_leave_the_rest_to_the_next_back_end(void **state)
{
    uint16_t base = 99;

    (void)state;
    for (unsigned before = 0; before <= UINT16_MAX; before += 0x1333) {
        struct vhost_user_ring ring = ring_of((uint16_t)before, HEADS(0, 1, 2, 0, 1, 2, 4, 5), 8, HEADS(0, 1, 2, 0), 4);

        assert_true(vhost_user_ring_recover(&ring, &base));
        assert_int_equal(base, (uint16_t)(before + 4));
    }
}

static void test_full_queue_of_different_requests_goes_on(void **state)
{
    struct vhost_user_ring ring = ring_of(0xfffc, HEADS(7, 6, 5, 4, 3, 2, 1, 0), 8, NULL, 0);
    uint16_t base = 0;

    (void)state;
    assert_true(vhost_user_ring_recover(&ring, &base));
    assert_int_equal(base, 0xfffc);
}

static void test_requests_done_out_of_order_are_not_guessed_at(void **state)
{
    struct vhost_user_ring ring = ring_of(0, HEADS(0, 3, 6), 3, HEADS(3), 1);
    uint16_t base;

    (void)state;
    assert_false(vhost_user_ring_recover(&ring, &base));
    ring = ring_of(0, HEADS(0, 1, 2, 3, 4, 5, 1, 2), 8, HEADS(0, 2, 1, 3), 4);
    assert_false(vhost_user_ring_recover(&ring, &base));
}

static void test_requests_that_a_back_end_never_saw_go_to_the_next_whatever_the_order_was(void **state)
{
    struct vhost_user_ring ring = ring_of(0, HEADS(0, 3, 6), 3, HEADS(6, 0, 3), 3);
    uint16_t base = 99;

    (void)state;
    vhost_user_ring_lost(&ring);
    available.available.ring[3] = 1;
    available.available.ring[4] = 2;
    available.available.idx = 5;
    assert_true(vhost_user_ring_recover(&ring, &base));
    assert_int_equal(base, 3);
    /* It was not dead: it has done one of them since. */
    used.used.ring[3].id = 2;
    used.used.idx = 4;
    assert_false(vhost_user_ring_recover(&ring, &base));
    /* It had something in hand. */
    ring = ring_of(0, HEADS(0, 3, 6), 3, HEADS(3), 1);
    vhost_user_ring_lost(&ring);
    assert_false(vhost_user_ring_recover(&ring, &base));
}

static void test_rings_that_cannot_be_are_refused(void **state)
{
    uint16_t base;

    (void)state;
    /* The same request in flight twice. */
    struct vhost_user_ring ring = ring_of(0, HEADS(0, 1, 1), 3, HEADS(0), 1);
    assert_false(vhost_user_ring_recover(&ring, &base));
    /* More in flight than the ring holds; more done than was asked. */
    ring = ring_of(0, NULL, 0, NULL, 0);
    available.available.idx = SIZE + 1;
    assert_false(vhost_user_ring_recover(&ring, &base));
    available.available.idx = 0;
    used.used.idx = 1;
    assert_false(vhost_user_ring_recover(&ring, &base));
    /* What was given back was never asked for. */
    ring = ring_of(0, HEADS(0, 1), 2, HEADS(0), 1);
    used.used.ring[0].id = 0x10000;
    assert_false(vhost_user_ring_recover(&ring, &base));
}

/* The heads in flight as a bitmap, or -1 when they cannot be told. */
static int in_flight(const struct vhost_user_ring *ring)
{
    uint16_t heads[SIZE];
    unsigned count;
    int bitmap = 0;

    if (!vhost_user_ring_in_flight(ring, heads, &count))
        return -1;
    for (unsigned i = 0; i < count; i++)
        bitmap |= 1 << heads[i];
    return bitmap;
}

static void test_requests_in_flight_are_told_whatever_the_order_was(void **state)
{
    (void)state;
    for (unsigned before = 0; before <= UINT16_MAX; before += 0x1333) {
        struct vhost_user_ring ring = ring_of((uint16_t)before, NULL, 0, NULL, 0);

        assert_int_equal(in_flight(&ring), 0);
        ring = ring_of((uint16_t)before, HEADS(1, 2, 3), 3, HEADS(2), 1);
        assert_int_equal(in_flight(&ring), 1 << 1 | 1 << 3);
        /* One that takes long, while another comes and goes. */
        ring = ring_of((uint16_t)before, HEADS(5, 2, 2, 2, 2), 5, HEADS(2, 2, 2), 3);
        assert_int_equal(in_flight(&ring), 1 << 5 | 1 << 2);
        /* So little of it shows that 4 may be one of the two. */
        ring = ring_of((uint16_t)before, HEADS(5, 2, 4, 2, 2), 5, HEADS(2, 4, 2), 3);
        assert_int_equal(in_flight(&ring), -1);
        ring = ring_of((uint16_t)before, HEADS(7, 6, 5, 4, 3, 2, 1, 0), 8, NULL, 0);
        assert_int_equal(in_flight(&ring), 0xff);
    }
}

static void test_requests_in_flight_of_impossible_rings_are_not_told(void **state)
{
    (void)state;
    struct vhost_user_ring ring = ring_of(0, HEADS(1, 1), 2, NULL, 0);
    assert_int_equal(in_flight(&ring), -1);
    ring = ring_of(0, HEADS(SIZE, 1), 2, NULL, 0);
    assert_int_equal(in_flight(&ring), -1);
    ring = ring_of(0, NULL, 0, NULL, 0);
    available.available.idx = SIZE + 1;
    assert_int_equal(in_flight(&ring), -1);
    available.available.idx = 0;
    used.used.idx = 1;
    assert_int_equal(in_flight(&ring), -1);
}

/* --- A guest and a back end at work, until the back end dies --- */

enum { LARGE = 128 };

static struct {
    union {
        struct vring_avail available;
        uint16_t room[2 + LARGE + 1];
    };
    union {
        struct vring_used used;
        vring_used_elem_t used_room[1 + LARGE + 1];
    };
    uint16_t unused[LARGE]; /* heads: the one unused last is used next, as Linux does it */
    unsigned unused_count;
    uint16_t in_flight[LARGE]; /* in the order in which they were made available */
    unsigned in_flight_count;
} play;

static uint64_t dice = 1;

static unsigned roll(unsigned sides)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(dice >> 33) % sides;
}

static void post_one(void)
{
    uint16_t head = play.unused[--play.unused_count];

    play.available.ring[play.available.idx++ % LARGE] = head;
    play.in_flight[play.in_flight_count++] = head;
}

static void give_back(unsigned nth)
{
    uint16_t head = play.in_flight[nth];

    play.in_flight_count--;
    memmove(&play.in_flight[nth], &play.in_flight[nth + 1], (play.in_flight_count - nth) * sizeof(play.in_flight[0]));
    play.used.ring[play.used.idx++ % LARGE].id = head;
    play.unused[play.unused_count++] = head;
}

/* `batches`: the back end does all that it finds, the newest first, as virtiofsd 7.2 does; else in no order at all. */
static void play_until_death(unsigned depth, bool batches)
{
    unsigned batch = 0;

    memset(&play, 0, sizeof(play));
    for (unsigned i = 0; i < LARGE; i++)
        play.unused[i] = (uint16_t)(LARGE - 1 - i);
    play.unused_count = LARGE;
    for (unsigned step = 500 + roll(1000); step > 0; step--) {
        if (play.in_flight_count < 1 + roll(depth)) {
            post_one();
        } else if (!batches) {
            give_back(roll(play.in_flight_count));
        } else {
            batch = batch == 0 ? play.in_flight_count : batch;
            give_back(--batch);
        }
    }
}

static bool is_in_flight(uint16_t head)
{
    for (unsigned i = 0; i < play.in_flight_count; i++)
        if (play.in_flight[i] == head)
            return true;
    return false;
}

/* Who answers a request that is not in flight writes into memory that the guest has put to other use. */
static void test_requests_in_flight_are_told_right_or_not_at_all(void **state)
{
    const struct vhost_user_ring ring = {
        .ready = true, .size = LARGE, .available = &play.available, .used = &play.used};
    unsigned told = 0;

    (void)state;
    for (unsigned death = 0; death < 600; death++) {
        uint16_t heads[LARGE];
        unsigned count;

        play_until_death(2u << death % 4, death % 3 == 0);
        if (!vhost_user_ring_in_flight(&ring, heads, &count))
            continue;
        told++;
        assert_int_equal(count, play.in_flight_count);
        for (unsigned i = 0; i < count; i++)
            assert_true(is_in_flight(heads[i]));
    }
    assert_true(told > 500);
}

TEST_MAIN(cmocka_unit_test(test_requests_in_flight_are_told_right_or_not_at_all),
          cmocka_unit_test(test_requests_in_flight_are_told_whatever_the_order_was),
          cmocka_unit_test(test_requests_in_flight_of_impossible_rings_are_not_told),
          cmocka_unit_test(test_queue_with_nothing_in_flight_goes_on_whatever_the_order_was),
          cmocka_unit_test(test_requests_done_in_order_leave_the_rest_to_the_next_back_end),
          cmocka_unit_test(test_full_queue_of_different_requests_goes_on),
          cmocka_unit_test(test_requests_done_out_of_order_are_not_guessed_at),
          cmocka_unit_test(test_requests_that_a_back_end_never_saw_go_to_the_next_whatever_the_order_was),
          cmocka_unit_test(test_rings_that_cannot_be_are_refused))
