/* What a back end is told of memory and queues, and where they go on when it is paused or vanishes. */
#include "tests/unit/vhost_user_fixture.h"

/* The same open file, which an eventfd's number does not tell. */
static bool is_same_file(int fd, int other)
{
    struct stat one, another;

    return fstat(fd, &one) == 0 && fstat(other, &another) == 0 && one.st_ino == another.st_ino;
}

static bool is_same_bell(int fd, int other)
{
    eventfd_write(fd, 1);
    return rung(other) == 1;
}

static void start(void)
{
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until_state(VHOST_USER_RUNNING);
}

/* Open, and its rings run. */
static void start_with(uint64_t protocol)
{
    open_with(protocol);
    start();
}

/* The back end ends. What it was told is forgotten. */
static void lose(void)
{
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    forget_heard();
}

static void post(unsigned queue, uint16_t head)
{
    available[queue].ring.ring[available[queue].ring.idx++ % RING_SIZE] = head;
}

static void give_back(unsigned queue, uint16_t head)
{
    used[queue].ring.ring[used[queue].ring.idx++ % RING_SIZE].id = head;
}

static uint32_t base_told(unsigned index)
{
    uint32_t base = UINT32_MAX;

    for (unsigned n = 0; n < times_heard(VHOST_USER_SET_VRING_BASE); n++) {
        const struct vhost_user_vring_state *state = &heard_nth(VHOST_USER_SET_VRING_BASE, n)->message.payload.state;

        if (state->index == index)
            base = state->value;
    }
    return base;
}

static void test_memory_is_handed_over_with_what_may_be_plugged(void **state)
{
    (void)state;
    memory.hotplug = &plugged;
    start_with(USUAL_PROTOCOL);
    const struct heard *table = heard(VHOST_USER_SET_MEM_TABLE);
    const struct vhost_user_memory *told = &table->message.payload.memory;

    assert_int_equal(table->message.header.size, 8 + 3 * sizeof(struct vhost_user_region));
    assert_int_equal(told->count, 3);
    assert_int_equal(told->padding, 0);
    assert_int_equal(table->fd_count, 3);
    for (unsigned i = 0; i < memory.count; i++) {
        assert_true(told->regions[i].gpa == memory.regions[i].gpa);
        assert_true(told->regions[i].size == memory.regions[i].size);
        assert_true(told->regions[i].hva == (uintptr_t)memory.regions[i].hva);
        assert_true(told->regions[i].offset == memory.regions[i].shared_offset);
        assert_true(is_same_file(table->fds[i], memory.shared_fd));
    }
    assert_true(told->regions[2].gpa == plugged.gpa);
    assert_true(told->regions[2].size == plugged.size);
    assert_true(told->regions[2].hva == (uintptr_t)plugged.hva);
    assert_true(told->regions[2].offset == 0);
    assert_true(is_same_file(table->fds[2], plugged.shared_fd));
}

static void test_memory_that_cannot_be_shared_is_not(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    memory.shared = false;
    assert_false(vhost_user_start(&front, &memory, front.features, rings));
    memory.shared = true;
    memory.hotplug = &plugged;
    plugged.shared = false;
    assert_false(vhost_user_start(&front, &memory, front.features, rings));
    memory.hotplug = NULL;
    memory.count = VHOST_USER_REGIONS_MAX;
    assert_false(vhost_user_start(&front, &memory, front.features, rings));
    run();
    assert_int_equal(backend.count, 0);
    assert_int_equal(front.state, VHOST_USER_READY);
}

static void test_rings_that_the_driver_uses_are_handed_over(void **state)
{
    unsigned nth = 0;

    (void)state;
    rings[2].enabled = false;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, VERSION_1 | BIT(2) | BIT(11), rings));
    run();
    assert_int_equal(front.state, VHOST_USER_RUNNING);
    HEARS(VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_NUM, VHOST_USER_SET_VRING_BASE,
          VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_ENABLE,
          VHOST_USER_SET_VRING_NUM, VHOST_USER_SET_VRING_BASE, VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_CALL,
          VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_ENABLE);
    /* What was agreed on, of what the driver took. */
    assert_true(heard(VHOST_USER_SET_FEATURES)->message.payload.number == (VERSION_1 | PROTOCOL | BIT(2)));
    for (unsigned i = 0; i < RINGS; i += 2, nth++) {
        const struct heard *size = heard_nth(VHOST_USER_SET_VRING_NUM, nth);
        const struct heard *address = heard_nth(VHOST_USER_SET_VRING_ADDR, nth);
        const struct heard *call = heard_nth(VHOST_USER_SET_VRING_CALL, nth);
        const struct heard *kick = heard_nth(VHOST_USER_SET_VRING_KICK, nth);
        const struct heard *enable = heard_nth(VHOST_USER_SET_VRING_ENABLE, nth);

        assert_int_equal(size->message.payload.state.index, i);
        assert_int_equal(size->message.payload.state.value, RING_SIZE);
        assert_int_equal(base_told(i), 5 + i);
        assert_int_equal(address->message.payload.address.index, i);
        assert_int_equal(address->message.payload.address.flags, 0);
        assert_true(address->message.payload.address.descriptors == (uintptr_t)descriptors[i]);
        assert_true(address->message.payload.address.available == (uintptr_t)&available[i].ring);
        assert_true(address->message.payload.address.used == (uintptr_t)&used[i].ring);
        assert_true(call->message.payload.number == i && kick->message.payload.number == i);
        assert_int_equal(call->fd_count, 1);
        assert_int_equal(kick->fd_count, 1);
        /* No bell has been rung that the guest did not ring. */
        assert_int_equal(rung(rings[i].kick_fd) + rung(rings[i].call_fd), 0);
        assert_true(is_same_bell(call->fds[0], rings[i].call_fd));
        assert_true(is_same_bell(kick->fds[0], rings[i].kick_fd));
        assert_int_equal(enable->message.payload.state.index, i);
        assert_int_equal(enable->message.payload.state.value, i == 0);
    }
    assert_int_equal(counted.reconnects, 0);
}

static void test_ring_without_a_bell_says_so(void **state)
{
    (void)state;
    close(rings[0].call_fd);
    rings[0].call_fd = NOBODY;
    start_with(USUAL_PROTOCOL);
    const struct heard *call = heard_nth(VHOST_USER_SET_VRING_CALL, 0);
    assert_true(call->message.payload.number == (0 | VHOST_USER_NO_FD));
    assert_int_equal(call->fd_count, 0);
}

static void test_refusal_ends_the_connection_for_good(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    backend.refuses = VHOST_USER_SET_MEM_TABLE;
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until_state(VHOST_USER_CLOSED);
    assert_int_equal(failures, 1);
    assert_string_equal(failure, "it refused what it was told");
    assert_null(front.retry.loop);
}

static void test_ring_is_enabled_and_disabled_now_or_when_there_is_a_back_end(void **state)
{
    (void)state;
    start_with(USUAL_PROTOCOL);
    forget_heard();
    vhost_user_enable(&front, 2, true);
    vhost_user_enable(&front, 1, false);
    run();
    assert_int_equal(backend.count, 0);
    vhost_user_enable(&front, 2, false);
    assert_non_null(front.patience.loop);
    run();
    assert_null(front.patience.loop);
    const struct vhost_user_vring_state *told = &heard(VHOST_USER_SET_VRING_ENABLE)->message.payload.state;
    assert_int_equal(told->index, 2);
    assert_int_equal(told->value, 0);
    lose();
    vhost_user_enable(&front, 0, false);
    vhost_user_enable(&front, 2, true);
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(heard_nth(VHOST_USER_SET_VRING_ENABLE, 0)->message.payload.state.value, 0);
    assert_int_equal(heard_nth(VHOST_USER_SET_VRING_ENABLE, 1)->message.payload.state.value, 1);
}

/* --- Taken back --- */

static void test_rings_that_were_taken_back_go_on_where_the_back_end_said(void **state)
{
    (void)state;
    backend.base[0] = 40;
    backend.base[2] = 0xffff;
    start_with(USUAL_PROTOCOL);
    forget_heard();
    stop_front();
    HEARS(VHOST_USER_GET_VRING_BASE, VHOST_USER_GET_VRING_BASE);
    assert_int_equal(heard_nth(VHOST_USER_GET_VRING_BASE, 0)->message.payload.state.index, 0);
    assert_int_equal(heard_nth(VHOST_USER_GET_VRING_BASE, 1)->message.payload.state.index, 2);
    assert_int_equal(front.state, VHOST_USER_READY);
    assert_null(front.patience.loop);
    forget_heard();
    stop_front();
    assert_int_equal(backend.count, 0);

    vhost_user_resume(&front);
    run();
    assert_int_equal(front.state, VHOST_USER_RUNNING);
    assert_int_equal(base_told(0), 40);
    assert_int_equal(base_told(1), UINT32_MAX);
    assert_int_equal(base_told(2), 0xffff);
    assert_int_equal(counted.reconnects, 0);
    /* What was asked for meanwhile is looked at. */
    assert_int_equal(rung(rings[0].kick_fd), 1);
    assert_int_equal(rung(rings[0].call_fd), 1);
    assert_int_equal(rung(rings[1].kick_fd), 0);
}

static void test_answer_for_another_ring_ends_the_connection(void **state)
{
    (void)state;
    rings[2].ready = false;
    open_with(USUAL_PROTOCOL);
    for (unsigned turn = 0; turn < 2; turn++) {
        start();
        backend.index_off = turn == 0 ? RINGS : 0;
        backend.is_short = turn == 1;
        stop_front();
        assert_int_equal(front.state, VHOST_USER_CLOSED);
        assert_string_equal(front.failure, "it answered what it was not asked");
        assert_null(front.retry.loop);
    }
    assert_int_equal(failures, 0);
}

/* Patience is used up, all but the least: it would be waited for long. */
static void test_rings_of_a_back_end_that_gives_none_back_are_found_where_they_are(void **state)
{
    (void)state;
    start_with(USUAL_PROTOCOL);
    front.stopping = (struct vhost_user_patience){VHOST_USER_PATIENCE_MS * 1000, clock_monotonic_us()};
    backend.silent_at = VHOST_USER_GET_VRING_BASE;
    give_back(0, 0);
    post(0, 0);
    stop_front();
    assert_int_equal(front.state, VHOST_USER_CLOSED);
    assert_true(front.stopping.spent_us > (VHOST_USER_PATIENCE_MS - VHOST_USER_PATIENCE_MIN_MS) * 1000);
    assert_null(front.retry.loop);
    backend.silent_at = 0;
    backend.is_silent = false;
    forget_heard();
    vhost_user_resume(&front);
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(base_told(0), 1);
    assert_int_equal(base_told(2), 0);
    assert_int_equal(failures, 0);
    assert_int_equal(counted.reconnects, 1);
}

static void test_rings_that_start_anew_know_nothing_of_those_before(void **state)
{
    (void)state;
    start_with(USUAL_PROTOCOL);
    lose();
    vhost_user_stop(&front);
    assert_null(front.retry.loop);
    rings[0].base = 0;
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(base_told(0), 0);
    assert_int_equal(rung(rings[0].kick_fd), 0);
    assert_int_equal(counted.reconnects, 0);
}

/* --- Lost --- */

static void test_requests_that_came_after_the_back_end_went_are_the_next_ones(void **state)
{
    (void)state;
    start_with(USUAL_PROTOCOL);
    /* Done in no order; nothing is in hand. */
    for (uint16_t head = 0; head < 3; head++)
        post(2, head);
    for (uint16_t head = 3; head-- > 0;)
        give_back(2, head);
    lose();
    post(2, 2);
    post(2, 0);
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(failures, 0);
    assert_int_equal(base_told(0), 0);
    assert_int_equal(base_told(2), 3);
    assert_int_equal(counted.reconnects, 1);
    for (unsigned i = 0; i < RINGS; i += 2) {
        assert_int_equal(rung(rings[i].kick_fd), 1);
        assert_int_equal(rung(rings[i].call_fd), 1);
    }
    /* From then on it is again the back end who says where they are. */
    backend.base[2] = 77;
    stop_front();
    forget_heard();
    vhost_user_resume(&front);
    run();
    assert_int_equal(base_told(2), 77);
    assert_int_equal(counted.reconnects, 1);
}

static void test_requests_in_hand_that_nobody_counted_fail_the_device_until_it_starts_anew(void **state)
{
    (void)state;
    start_with(USUAL_PROTOCOL);
    for (uint16_t head = 0; head < 3; head++)
        post(2, head);
    give_back(2, 1);
    lose();
    run_until_failures(1);
    assert_non_null(strstr(failure, "which it did out of order and counted nowhere"));
    assert_null(heard_nth(VHOST_USER_SET_VRING_NUM, 0));
    assert_null(front.retry.loop);
    assert_int_equal(counted.reconnects, 0);
    empty_queues();
    vhost_user_stop(&front);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(failures, 1);
}

/* --- Requests in flight, counted --- */

static void test_memory_for_requests_in_flight_goes_from_one_back_end_to_the_next(void **state)
{
    (void)state;
    backend.in_flight_size = 8192;
    backend.in_flight_given = true;
    start_with(USUAL_PROTOCOL | COUNTING);
    assert_int_equal(backend.heard[2].message.header.request, VHOST_USER_GET_INFLIGHT_FD);
    assert_int_equal(backend.heard[2].message.payload.inflight.queue_count, RINGS);
    assert_int_equal(backend.heard[2].message.payload.inflight.queue_size, RING_SIZE);
    assert_int_equal(backend.heard[3].message.header.request, VHOST_USER_SET_INFLIGHT_FD);
    assert_int_equal(times_heard(VHOST_USER_SET_VRING_ENABLE), 2);
    for (unsigned life = 0; life < 2; life++) {
        const struct heard *given = heard(VHOST_USER_SET_INFLIGHT_FD);

        assert_true(given->message.payload.inflight.mmap_size == 8192);
        assert_true(given->message.payload.inflight.mmap_offset == 4096);
        assert_int_equal(given->message.payload.inflight.queue_count, RINGS);
        assert_int_equal(given->fd_count, 1);
        assert_true(is_same_file(given->fds[0], backend.in_flight_fd));
        if (life == 1)
            break;
        /* Done in no order: where the used ring stands is right all the same. */
        for (uint16_t head = 0; head < 4; head++)
            post(0, head);
        give_back(0, 3);
        give_back(0, 1);
        lose();
        run_until_state(VHOST_USER_RUNNING);
    }
    assert_null(heard_nth(VHOST_USER_GET_INFLIGHT_FD, 0));
    assert_int_equal(base_told(0), 2);
    assert_int_equal(failures, 0);
    /* Not so when the guest has reset its device. */
    stop_front();
    forget_heard();
    start();
    assert_non_null(heard(VHOST_USER_GET_INFLIGHT_FD));
}

static void test_back_end_that_needs_no_memory_to_count_gets_none(void **state)
{
    (void)state;
    start_with(USUAL_PROTOCOL | COUNTING);
    assert_non_null(heard(VHOST_USER_GET_INFLIGHT_FD));
    assert_null(heard_nth(VHOST_USER_SET_INFLIGHT_FD, 0));
    /* Nobody counts what the rings have had from then on. */
    stop_front();
    forget_heard();
    backend.in_flight_size = 8192;
    backend.in_flight_given = true;
    vhost_user_resume(&front);
    run();
    assert_int_equal(front.state, VHOST_USER_RUNNING);
    assert_null(heard_nth(VHOST_USER_GET_INFLIGHT_FD, 0));
}

static bool has_lost_count(void)
{
    return front.failure != NULL && strcmp(front.failure, "it answered what it was not asked") == 0;
}

static void test_back_end_that_gives_no_memory_to_count_in_is_of_no_use(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL | COUNTING);
    backend.in_flight_size = 8192;
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until_state(VHOST_USER_CLOSED);
    assert_string_equal(failure, "it gave no memory for requests in flight");
    assert_int_equal(failures, 1);
    backend.in_flight_given = backend.is_short = true;
    vhost_user_stop(&front);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until(has_lost_count);
    assert_int_equal(failures, 1);
}

static void test_stop_half_way_to_the_rings_begins_from_the_beginning(void **state)
{
    (void)state;
    backend.in_flight_size = 8192;
    backend.in_flight_given = true;
    open_with(USUAL_PROTOCOL | COUNTING);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    assert_int_equal(front.state, VHOST_USER_COUNTING);
    assert_non_null(front.patience.loop);
    vhost_user_stop(&front);
    assert_int_equal(front.state, VHOST_USER_CLOSED);
    assert_null(front.patience.loop);
    vhost_user_resume(&front);
    run_until_state(VHOST_USER_RUNNING);
    assert_non_null(heard_nth(VHOST_USER_SET_INFLIGHT_FD, 0));
    assert_int_equal(failures, 0);
    assert_int_equal(counted.reconnects, 0);
}

static void test_connection_that_ends_leaves_no_descriptor(void **state)
{
    const struct vhost_user_header half = {VHOST_USER_GET_INFLIGHT_FD, VHOST_USER_VERSION | VHOST_USER_REPLY,
                                           sizeof(struct vhost_user_inflight)};

    (void)state;
    backend.protocol |= COUNTING;
    backend.silent_at = VHOST_USER_GET_INFLIGHT_FD;
    assert_no_error(open_front());
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    say(backend.socket, &half, sizeof(half), backend.in_flight_fd);
    run();
    assert_true(front.incoming_fd >= 0);
    assert_true(front.channel.fd >= 0);
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    assert_int_equal(front.incoming_fd, NOBODY);
    assert_int_equal(front.channel.fd, NOBODY);
    assert_int_equal(front.connection.fd, NOBODY);
}

TEST_MAIN(front_test(test_memory_is_handed_over_with_what_may_be_plugged),
          front_test(test_memory_that_cannot_be_shared_is_not),
          front_test(test_rings_that_the_driver_uses_are_handed_over), front_test(test_ring_without_a_bell_says_so),
          front_test(test_refusal_ends_the_connection_for_good),
          front_test(test_ring_is_enabled_and_disabled_now_or_when_there_is_a_back_end),
          front_test(test_rings_that_were_taken_back_go_on_where_the_back_end_said),
          front_test(test_answer_for_another_ring_ends_the_connection),
          front_test(test_rings_of_a_back_end_that_gives_none_back_are_found_where_they_are),
          front_test(test_rings_that_start_anew_know_nothing_of_those_before),
          front_test(test_requests_that_came_after_the_back_end_went_are_the_next_ones),
          front_test(test_requests_in_hand_that_nobody_counted_fail_the_device_until_it_starts_anew),
          front_test(test_memory_for_requests_in_flight_goes_from_one_back_end_to_the_next),
          front_test(test_back_end_that_needs_no_memory_to_count_gets_none),
          front_test(test_back_end_that_gives_no_memory_to_count_in_is_of_no_use),
          front_test(test_stop_half_way_to_the_rings_begins_from_the_beginning),
          front_test(test_connection_that_ends_leaves_no_descriptor))
