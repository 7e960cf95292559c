/* A front end and its back end: agreeing, losing each other, the config space. */
#include "tests/unit/vhost_user_fixture.h"

static void test_both_agree_on_what_both_know(void **state)
{
    (void)state;
    assert_no_error(open_front());
    run();
    HEARS(VHOST_USER_SET_OWNER, VHOST_USER_GET_FEATURES, VHOST_USER_GET_PROTOCOL_FEATURES,
          VHOST_USER_SET_PROTOCOL_FEATURES, VHOST_USER_GET_QUEUE_NUM, VHOST_USER_SET_BACKEND_REQ_FD,
          VHOST_USER_GET_CONFIG);
    assert_true(front.features == (VERSION_1 | PROTOCOL | BIT(2) | BIT(9)));
    assert_true(heard(VHOST_USER_SET_PROTOCOL_FEATURES)->message.payload.number == USUAL_PROTOCOL);
    assert_int_equal(heard(VHOST_USER_GET_CONFIG)->message.header.size, 12 + CONFIG_SIZE);
    assert_int_equal(heard(VHOST_USER_GET_CONFIG)->message.payload.config.size, CONFIG_SIZE);
    assert_int_equal(heard(VHOST_USER_SET_BACKEND_REQ_FD)->fd_count, 1);
    /* Only what has no answer of its own is to be acknowledged, and once that is agreed. */
    for (unsigned i = 0; i < backend.count; i++)
        assert_int_equal(backend.heard[i].message.header.flags,
                         backend.heard[i].message.header.request == VHOST_USER_SET_BACKEND_REQ_FD ? 9 : 1);
    assert_memory_equal(front.config, backend.config, CONFIG_SIZE);
    assert_true(vhost_user_is_there(&front));
    assert_null(front.patience.loop);
    assert_true(counted.init_time_us > 0);
    assert_int_equal(counted.cfg_fails, 0);
    assert_int_equal(changes, 0);
}

static void test_back_end_without_protocol_features_is_told_nothing_of_them(void **state)
{
    (void)state;
    backend.features &= ~PROTOCOL;
    assert_error(open_front(), ERROR_HOST, "it keeps no config space");
    assert_int_equal(counted.cfg_fails, 1);
    forget_heard();
    needs.config_size = 0;
    assert_no_error(open_front());
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    assert_int_equal(front.state, VHOST_USER_RUNNING);
    HEARS(VHOST_USER_SET_OWNER, VHOST_USER_GET_FEATURES, VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE,
          VHOST_USER_SET_VRING_NUM, VHOST_USER_SET_VRING_BASE, VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_CALL,
          VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_NUM, VHOST_USER_SET_VRING_BASE, VHOST_USER_SET_VRING_ADDR,
          VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_KICK);
    assert_true(heard(VHOST_USER_SET_FEATURES)->message.payload.number == front.features);
    for (unsigned i = 0; i < backend.count; i++)
        assert_int_equal(backend.heard[i].message.header.flags, 1);
}

static void test_device_without_config_space_asks_for_none(void **state)
{
    (void)state;
    needs.config_size = 0;
    needs.resumable = false;
    backend.protocol |= COUNTING;
    assert_no_error(open_front());
    HEARS(VHOST_USER_SET_OWNER, VHOST_USER_GET_FEATURES, VHOST_USER_GET_PROTOCOL_FEATURES,
          VHOST_USER_SET_PROTOCOL_FEATURES, VHOST_USER_GET_QUEUE_NUM);
    assert_true(heard(VHOST_USER_SET_PROTOCOL_FEATURES)->message.payload.number ==
                (BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK)));
}

static void test_back_end_that_does_not_suit_is_refused(void **state)
{
    (void)state;
    backend.queues = RINGS - 1;
    assert_error(open_front(), ERROR_HOST, "it has fewer queues than the device");
    backend.queues = RINGS;
    backend.features &= ~VERSION_1;
    assert_error(open_front(), ERROR_HOST, "it does not know virtio 1");
    backend.features |= VERSION_1;
    backend.config_size = CONFIG_SIZE - 1;
    assert_error(open_front(), ERROR_HOST, "its config space is shorter");
    backend.config_size = CONFIG_SIZE;
    backend.protocol &= ~BIT(VHOST_USER_PROTOCOL_F_CONFIG);
    assert_error(open_front(), ERROR_HOST, "it keeps no config space");
    assert_int_equal(counted.cfg_fails, 4);
    assert_int_equal(front.connection.fd, NOBODY);
    assert_int_equal(failures, 0);
}

/* --- Lost and found --- */

static void test_back_end_that_went_is_looked_for_only_when_it_is_needed(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    assert_null(front.retry.loop);
    assert_int_equal(front.channel.fd, NOBODY);
    assert_int_equal(failures, 0);
    vhost_user_await(&front);
    assert_false(vhost_user_is_there(&front));
    assert_non_null(front.retry.loop);
    run_until_state(VHOST_USER_READY);
    assert_true(vhost_user_is_there(&front));
    /* Nobody listens: it goes on looking until it shall not any more. */
    fd_close(&backend.listener);
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    event_timer_set(loop, &front.retry, 0);
    run_until_state(VHOST_USER_CLOSED);
    assert_non_null(front.retry.loop);
    vhost_user_stop(&front);
    assert_null(front.retry.loop);
}

static void test_successor_has_to_know_what_was_agreed_on(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    /* One that knows more is asked for no more. */
    backend.features |= BIT(5);
    backend.protocol |= COUNTING;
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    forget_heard();
    run_until_state(VHOST_USER_RUNNING);
    assert_true(heard(VHOST_USER_SET_PROTOCOL_FEATURES)->message.payload.number == USUAL_PROTOCOL);
    assert_true(heard(VHOST_USER_SET_FEATURES)->message.payload.number == (VERSION_1 | PROTOCOL | BIT(2) | BIT(9)));
    assert_int_equal(failures, 0);
    backend.features &= ~BIT(9);
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    forget_heard();
    run_until_failures(1);
    assert_string_equal(failure, "it came back with fewer features");
    assert_null(front.retry.loop);
    /* The guest resets its device, and there is one that has them all. */
    backend.features |= BIT(9);
    vhost_user_stop(&front);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run_until_state(VHOST_USER_RUNNING);
    backend.protocol &= ~BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ);
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    run_until_failures(2);
    assert_string_equal(failure, "it came back with fewer features");
    assert_int_equal(failures, 2);
}

static void test_device_that_cannot_go_on_with_another_back_end_fails_at_once(void **state)
{
    (void)state;
    needs.resumable = false;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    assert_int_equal(failures, 1);
    assert_string_equal(failure, "it closed the connection");
    assert_null(front.retry.loop);
    /* One that is found later does not get the rings that were given up. */
    vhost_user_await(&front);
    run_until_state(VHOST_USER_READY);
    assert_null(heard_nth(VHOST_USER_SET_VRING_KICK, 2));
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    /* So it does when there is none to start with. */
    vhost_user_stop(&front);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    assert_int_equal(failures, 2);
    assert_null(front.retry.loop);
}

static void test_silence_ends_the_connection_once_patience_does(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    backend.silent_at = VHOST_USER_SET_FEATURES;
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    assert_non_null(front.patience.loop);
    event_timer_set(loop, &front.patience, 0);
    run_until_state(VHOST_USER_CLOSED);
    assert_string_equal(front.failure, "it does not answer");
    assert_null(front.patience.loop);
    assert_non_null(front.retry.loop);
    assert_int_equal(failures, 0);
}

static void test_back_end_that_answers_nothing_is_not_told_things_without_end(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    backend.is_silent = true;
    for (unsigned i = 0; i < VHOST_USER_EXPECTED_MAX; i++) {
        vhost_user_enable(&front, 0, i % 2 != 0);
        assert_true(backend_work());
        forget_heard();
    }
    assert_int_equal(front.state, VHOST_USER_RUNNING);
    vhost_user_enable(&front, 0, false);
    assert_int_equal(front.state, VHOST_USER_CLOSED);
    assert_string_equal(front.failure, "it answers nothing");
    assert_non_null(front.retry.loop);
}

static void test_back_end_that_reads_nothing_keeps_nobody_waiting(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL & ~BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK));
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    for (unsigned i = 0; front.state == VHOST_USER_RUNNING; i++)
        vhost_user_enable(&front, 0, i % 2 != 0);
    assert_string_equal(front.failure, "it reads nothing");
    assert_non_null(front.retry.loop);
}

static void test_answers_in_pieces_are_put_together(void **state)
{
    struct {
        struct vhost_user_header header;
        uint64_t number;
    } __attribute__((packed))
    acknowledgement = {{VHOST_USER_SET_VRING_ENABLE, VHOST_USER_VERSION | VHOST_USER_REPLY, sizeof(uint64_t)}, 0};

    (void)state;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    backend.is_silent = true;
    vhost_user_enable(&front, 0, false);
    for (unsigned i = 0; i < sizeof(acknowledgement); i++) {
        assert_int_equal(front.expected_count, 1);
        say(backend.socket, (const char *)&acknowledgement + i, 1, NOBODY);
        run();
    }
    assert_int_equal(front.expected_count, 0);
    assert_null(front.patience.loop);
    /* The beginning of one whose end is not to come has no part in what the next back end says. */
    vhost_user_enable(&front, 0, true);
    say(backend.socket, &acknowledgement, 3, NOBODY);
    run();
    backend.is_silent = false;
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(front.expected_count, 0);
}

static void test_answer_that_was_not_asked_for_ends_the_connection(void **state)
{
    struct vhost_user_header odd[] = {
        {VHOST_USER_GET_FEATURES, VHOST_USER_VERSION | VHOST_USER_REPLY, 0},
        {VHOST_USER_SET_VRING_ENABLE, VHOST_USER_VERSION | VHOST_USER_REPLY, 0},
        {VHOST_USER_SET_VRING_ENABLE, VHOST_USER_VERSION, 0},
        {VHOST_USER_SET_VRING_ENABLE, 2 | VHOST_USER_REPLY, 0},
        {VHOST_USER_SET_VRING_ENABLE, VHOST_USER_VERSION | VHOST_USER_REPLY, sizeof(union vhost_user_payload) + 1},
    };
    static const char *const why[] = {"it answered what it was not asked", "it answered what it was not asked",
                                      "it speaks another protocol", "it speaks another protocol",
                                      "a message of it is longer than any"};

    (void)state;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    for (unsigned i = 0; i < array_length(odd); i++) {
        run_until_state(VHOST_USER_RUNNING);
        backend.is_silent = true;
        vhost_user_enable(&front, 0, !front.rings[0].enabled);
        say(backend.socket, &odd[i], sizeof(odd[i]), NOBODY);
        run_until_state(VHOST_USER_CLOSED);
        assert_string_equal(front.failure, why[i]);
        backend.is_silent = false;
        backend_leave();
    }
    assert_int_equal(failures, 0);
}

/* --- The config space --- */

static int channel;

static unsigned told(uint32_t request, uint32_t flags)
{
    const struct vhost_user_header message = {request, VHOST_USER_VERSION | flags, 0};

    say(channel, &message, sizeof(message), NOBODY);
    run();
    return times_heard(VHOST_USER_GET_CONFIG);
}

static void open_with_channel(void)
{
    assert_no_error(open_front());
    run();
    channel = dup(heard(VHOST_USER_SET_BACKEND_REQ_FD)->fds[0]);
    assert_true(channel >= 0);
    forget_heard();
}

static void test_config_space_is_read_when_the_back_end_says_that_it_changed(void **state)
{
    struct {
        struct vhost_user_header header;
        uint64_t number;
    } __attribute__((packed)) reply;

    (void)state;
    open_with_channel();
    assert_int_equal(told(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, 0), 1);
    assert_int_equal(changes, 0);
    backend.config[CONFIG_SIZE - 1] = 'd';
    assert_int_equal(told(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_NEED_REPLY), 2);
    assert_int_equal(changes, 1);
    assert_int_equal(front.config[CONFIG_SIZE - 1], 'd');
    assert_int_equal(recv(channel, &reply, sizeof(reply), MSG_DONTWAIT), sizeof(reply));
    assert_int_equal(reply.header.request, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
    assert_int_equal(reply.header.flags, VHOST_USER_VERSION | VHOST_USER_REPLY);
    assert_int_equal(reply.header.size, 8);
    assert_true(reply.number == 0);
    /* Other things that it may say are refused. */
    assert_int_equal(told(9, VHOST_USER_NEED_REPLY), 2);
    assert_int_equal(recv(channel, &reply, sizeof(reply), MSG_DONTWAIT), sizeof(reply));
    assert_true(reply.number == 1);
    /* One that is on its way is enough. */
    backend.is_silent = true;
    assert_int_equal(told(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, 0), 3);
    assert_non_null(front.patience.loop);
    assert_int_equal(told(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, 0), 3);
    /* The next back end is asked again. */
    vhost_user_await(&front);
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    close(channel);
    forget_heard();
    backend.is_silent = false;
    run_until_state(VHOST_USER_READY);
    channel = dup(heard(VHOST_USER_SET_BACKEND_REQ_FD)->fds[0]);
    assert_int_equal(told(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, 0), 2);
    close(channel);
}

static void test_channel_that_breaks_does_not_break_the_connection(void **state)
{
    const struct vhost_user_header longer = {VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 1 << 20};

    (void)state;
    open_with_channel();
    say(channel, &longer, sizeof(longer), NOBODY);
    run();
    assert_int_equal(front.channel.fd, NOBODY);
    assert_int_equal(front.state, VHOST_USER_READY);
    close(channel);
    BESIDE_BACKEND(assert_no_error(vhost_user_config_read(&front)));
    assert_int_equal(times_heard(VHOST_USER_GET_CONFIG), 1);
    /* Nor does one that the back end closes, as nobody else has its end. */
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    open_with(USUAL_PROTOCOL);
    run();
    assert_int_equal(front.channel.fd, NOBODY);
    assert_int_equal(front.state, VHOST_USER_READY);
}

static void test_config_space_is_read_on_request(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    memset(backend.config, 'e', CONFIG_SIZE);
    BESIDE_BACKEND(assert_no_error(vhost_user_config_read(&front)));
    assert_int_equal(changes, 1);
    assert_memory_equal(front.config, backend.config, CONFIG_SIZE);
    assert_null(front.patience.loop);
    assert_true(counted.config_change_time_us > 0);
    backend.config_size--;
    struct error *error;
    BESIDE_BACKEND(error = vhost_user_config_read(&front));
    assert_error(error, ERROR_HOST, "the back end is lost: its config space is shorter");
    assert_int_equal(front.state, VHOST_USER_CLOSED);
    assert_int_equal(counted.cfg_fails, 1);
    assert_error(vhost_user_config_read(&front), ERROR_HOST, "the back end is not there");
    assert_int_equal(changes, 1);
}

/* What the guest may have read of the first one is no longer so. */
static void test_successor_with_another_config_space_is_a_change(void **state)
{
    (void)state;
    open_with(USUAL_PROTOCOL);
    assert_true(vhost_user_start(&front, &memory, front.features, rings));
    run();
    backend.config[0] = 'f';
    backend_leave();
    run_until_state(VHOST_USER_CLOSED);
    assert_int_equal(changes, 0);
    run_until_state(VHOST_USER_RUNNING);
    assert_int_equal(changes, 1);
    assert_int_equal(front.config[0], 'f');
}

TEST_MAIN(front_test(test_both_agree_on_what_both_know),
          front_test(test_back_end_without_protocol_features_is_told_nothing_of_them),
          front_test(test_device_without_config_space_asks_for_none),
          front_test(test_back_end_that_does_not_suit_is_refused),
          front_test(test_back_end_that_went_is_looked_for_only_when_it_is_needed),
          front_test(test_successor_has_to_know_what_was_agreed_on),
          front_test(test_device_that_cannot_go_on_with_another_back_end_fails_at_once),
          front_test(test_silence_ends_the_connection_once_patience_does),
          front_test(test_back_end_that_answers_nothing_is_not_told_things_without_end),
          front_test(test_back_end_that_reads_nothing_keeps_nobody_waiting),
          front_test(test_answers_in_pieces_are_put_together),
          front_test(test_answer_that_was_not_asked_for_ends_the_connection),
          front_test(test_config_space_is_read_when_the_back_end_says_that_it_changed),
          front_test(test_channel_that_breaks_does_not_break_the_connection),
          front_test(test_config_space_is_read_on_request),
          front_test(test_successor_with_another_config_space_is_a_change))
