#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

/* Two pairs of queues and the control queue, driven as a guest would, on sockets in place of a tap's queues. */

enum { PAIRS = 2, CONTROL = 4, HEADER = 12, FRAME = HEADER + 60, ANSWER = 0xee, HOUR_MS = 3600 * 1000 };

#define FEATURE(bit) (1ULL << (bit))
#define QUEUES (FEATURE(VIRTIO_NET_F_MQ) | FEATURE(VIRTIO_NET_F_CTRL_VQ))
#define RX_GPA 0x200000ULL
#define TX_GPA 0x400000ULL
#define COMMAND_GPA 0x600000ULL
#define ANSWER_GPA 0x610000ULL

static struct guest_driver driver;
static struct network_interface_config config;
static int host[PAIRS], wires[PAIRS];
static bool attached[PAIRS];
static struct net_backend_ops ops;

static bool attach(struct net_backend *backend, bool now)
{
    attached[backend->fd == wires[1]] = now;
    return true;
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    config = (struct network_interface_config){.iface_id = (char *)"eth0"};
    guest_driver_setup(&driver);
    attached[0] = true;
    attached[1] = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    for (unsigned i = 0; i < PAIRS; i++)
        fd_close(&host[i]);
    return 0;
}

static void start(uint64_t features)
{
    struct net_backend *backends[PAIRS];
    struct virtio_device *device = NULL;

    for (unsigned i = 0; i < PAIRS; i++) {
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
        wires[i] = ends[0];
        host[i] = ends[1];
        backends[i] = net_tap_new(ends[0]);
        ops = *backends[i]->ops;
        ops.attach = attach;
        backends[i]->ops = &ops;
    }
    assert_no_error(virtio_net_new_on_queues(&config, backends, PAIRS, driver.loop, &device));
    assert_int_equal(device->queue_count, 2 * PAIRS + 1);
    guest_driver_start(&driver, device, features);
    guest_driver_settle(&driver);
}

/* Sends a command of `length` bytes; returns the answer, ANSWER when there was none. */
static uint8_t command_of(unsigned queue, const void *bytes, uint32_t length, uint32_t room)
{
    const struct guest_buffer buffers[] = {{COMMAND_GPA, length, false}, {ANSWER_GPA, room, true}};
    uint8_t *answer = guest_at(&driver.memory, ANSWER_GPA, 16);

    memcpy(guest_at(&driver.memory, COMMAND_GPA, length), bytes, length);
    *answer = ANSWER;
    guest_ring_add(&driver.rings[queue], length == 0 ? buffers + 1 : buffers,
                   (length > 0 ? 1u : 0u) + (room > 0 ? 1u : 0u));
    guest_driver_notify(&driver, queue);
    assert_int_equal(guest_driver_wait_used(&driver, queue, NULL), room > 0);
    return *answer;
}

static uint8_t use_pairs(uint16_t pairs)
{
    const uint8_t command[] = {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, (uint8_t)pairs,
                               (uint8_t)(pairs >> 8)};

    return command_of(CONTROL, command, sizeof(command), 1);
}

static bool take_used(unsigned queue)
{
    uint16_t head;
    uint32_t length;

    return guest_ring_take_used(&driver.rings[queue], &head, &length);
}

static void guest_send(unsigned pair)
{
    const struct guest_buffer buffer = {TX_GPA, FRAME, false};

    memset(guest_at(&driver.memory, TX_GPA, FRAME), 0, HEADER);
    guest_ring_add(&driver.rings[2 * pair + TX], &buffer, 1);
    guest_driver_notify(&driver, 2 * pair + TX);
    guest_driver_settle(&driver);
}

static bool host_has(unsigned pair)
{
    uint8_t frame[FRAME];

    return recv(host[pair], frame, sizeof(frame), MSG_DONTWAIT) == FRAME;
}

static bool guest_gets(unsigned pair)
{
    const struct guest_buffer buffer = {RX_GPA + pair * 0x1000, 2048, true};
    const uint8_t frame[FRAME] = {0};

    guest_ring_add(&driver.rings[2 * pair + RX], &buffer, 1);
    guest_driver_notify(&driver, 2 * pair + RX);
    assert_int_equal(send(host[pair], frame, sizeof(frame), 0), FRAME);
    guest_driver_settle(&driver);
    return take_used(2 * pair + RX);
}

static void test_second_pair_rests_until_the_driver_asks_for_it(void **state)
{
    (void)state;
    start(QUEUES);
    guest_send(0);
    assert_true(host_has(0));
    guest_send(1);
    assert_false(host_has(1));
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    assert_true(attached[1]);
    guest_driver_settle(&driver);
    assert_true(host_has(1)); /* what waited goes */
    guest_send(1);
    assert_true(host_has(1) && !host_has(0));
    assert_true(guest_gets(0));
    assert_true(guest_gets(1));
}

static void test_pair_that_is_given_up_rests_again(void **state)
{
    (void)state;
    start(QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    assert_true(guest_gets(1));
    assert_int_equal(use_pairs(1), VIRTIO_NET_OK);
    assert_false(attached[1]);
    guest_send(1);
    assert_false(host_has(1));
    assert_false(guest_gets(1));
    assert_true(guest_gets(0));
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    guest_driver_settle(&driver);
    assert_true(host_has(1));
    assert_true(take_used(2 + RX));
}

static void test_reset_goes_back_to_one_pair(void **state)
{
    (void)state;
    start(QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    guest_driver_reset(&driver);
    assert_false(attached[1]);
    guest_driver_restart(&driver, QUEUES);
    guest_driver_settle(&driver);
    guest_send(1);
    assert_false(host_has(1));
    guest_send(0);
    assert_true(host_has(0));
}

static void test_commands_that_make_no_sense_are_refused_and_change_nothing(void **state)
{
    static const struct {
        uint8_t bytes[8];
        uint32_t length;
    } commands[] = {
        {{4, 0, 0, 0}, 4},
        {{4, 0, 3, 0}, 4},
        {{4, 0, 0xff, 0xff}, 4},
        {{4, 1, 2, 0}, 4},
        {{0, 0, 1, 0}, 4},
        {{1, 1, 2, 0}, 4},
        {{0xff, 0xff, 0xff, 0xff}, 4},
        {{4, 0, 2}, 3},
        {{4}, 1},
        {{4, 0, 2, 0, 0}, 5},
        {{0}, 0},
        {{4, 0, 1, 0, 0, 0, 0, 0}, 8},
    };

    (void)state;
    start(QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    for (size_t i = 0; i < array_length(commands); i++)
        assert_int_equal(command_of(CONTROL, commands[i].bytes, commands[i].length, 1), VIRTIO_NET_ERR);
    /* Without room for an answer. */
    assert_int_equal(command_of(CONTROL, commands[3].bytes, 4, 0), ANSWER);
    assert_int_equal(command_of(CONTROL, (const uint8_t[]){4, 0, 1, 0}, 4, 0), ANSWER);
    assert_true(attached[1] && !driver.failed);
    guest_send(1);
    assert_true(host_has(1));
}

static bool all_are_answered(void *answered)
{
    while (take_used(CONTROL))
        ++*(unsigned *)answered;
    return *(unsigned *)answered >= 100;
}

static void test_commands_without_end_are_answered_in_turns(void **state)
{
    const struct guest_buffer buffers[] = {{COMMAND_GPA, 4, false}, {ANSWER_GPA, 1, true}};
    unsigned answered = 0;

    (void)state;
    start(QUEUES);
    memcpy(guest_at(&driver.memory, COMMAND_GPA, 4), (const uint8_t[]){4, 0, 2, 0}, 4);
    for (unsigned i = 0; i < 100; i++)
        guest_ring_add(&driver.rings[CONTROL], buffers, 2);
    guest_driver_notify(&driver, CONTROL);
    assert_true(guest_ring_has_used(&driver.rings[CONTROL]));
    while (take_used(CONTROL))
        answered++;
    assert_in_range(answered, 1, 99);
    guest_driver_run_until(&driver, all_are_answered, &answered);
    assert_int_equal(answered, 100);
}

static bool has_failed(void *unused)
{
    (void)unused;
    return driver.failed;
}

static void test_control_queue_that_loops_breaks_the_device_until_reset(void **state)
{
    (void)state;
    start(QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    guest_ring_descriptor(&driver.rings[CONTROL], 0, COMMAND_GPA, 4, VRING_DESC_F_NEXT, 0);
    guest_ring_publish(&driver.rings[CONTROL], 0);
    guest_driver_notify(&driver, CONTROL);
    guest_driver_run_until(&driver, has_failed, NULL);
    guest_driver_settle(&driver);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, QUEUES);
    guest_driver_settle(&driver);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    guest_send(1);
    assert_true(host_has(1));
}

/* Then the control queue is the third (5.1.2). */
static void test_driver_that_knows_one_pair_has_its_control_queue_behind_it(void **state)
{
    (void)state;
    start(FEATURE(VIRTIO_NET_F_CTRL_VQ));
    assert_int_equal(command_of(2, (const uint8_t[]){4, 0, 2, 0}, 4, 1), VIRTIO_NET_ERR);
    assert_false(attached[1]);
    guest_send(0);
    assert_true(host_has(0));
}

static void test_limits_are_of_all_pairs_together(void **state)
{
    (void)state;
    config.tx_rate_limiter =
        (struct rate_limiter_config){.present = true, .ops = {.present = true, .size = 1, .refill_time = HOUR_MS}};
    start(QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    guest_send(0);
    assert_true(host_has(0));
    guest_send(1);
    assert_false(host_has(1));
    assert_no_error(virtio_net_update(
        driver.device,
        &(struct network_interface_update){.tx_rate_limiter = {.present = true, .ops = {.present = true}}}));
    guest_driver_settle(&driver);
    assert_true(host_has(1));
}

/* Each change takes the whole host's networks a moment. */
static void test_driver_that_changes_its_pairs_waits_before_it_does_so_again(void **state)
{
    const uint8_t command[] = {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 1, 0};
    const struct guest_buffer buffers[] = {{COMMAND_GPA, sizeof(command), false}, {ANSWER_GPA, 1, true}};

    (void)state;
    start(QUEUES);
    struct net *net = container_of(driver.device, struct net, device);
    assert_int_equal(use_pairs(1), VIRTIO_NET_OK);
    assert_int_equal(net->control.next_us, 0);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    assert_true(net->control.next_us != 0);

    net->control.next_us += HOUR_MS * 1000ull; /* as if it had been a moment ago for an hour */
    memcpy(guest_at(&driver.memory, COMMAND_GPA, sizeof(command)), command, sizeof(command));
    guest_ring_add(&driver.rings[CONTROL], buffers, array_length(buffers));
    guest_driver_notify(&driver, CONTROL);
    guest_driver_settle(&driver);
    assert_false(guest_ring_has_used(&driver.rings[CONTROL]));
    assert_true(attached[1]);
    assert_non_null(net->control.turn.loop);
    net->control.next_us = 1;
    guest_driver_notify(&driver, CONTROL);
    assert_int_equal(guest_driver_wait_used(&driver, CONTROL, NULL), 1);
    assert_false(attached[1]);

    /* A reset changes them, too, but does not wait. */
    net->control.next_us = 0;
    guest_driver_reset(&driver);
    assert_int_equal(net->control.next_us, 0);
    guest_driver_restart(&driver, QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    net->control.next_us = 1;
    guest_driver_reset(&driver);
    assert_true(net->control.next_us > 1);
    assert_false(attached[1]);
}

#define queues_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(queues_test(test_second_pair_rests_until_the_driver_asks_for_it),
          queues_test(test_pair_that_is_given_up_rests_again), queues_test(test_reset_goes_back_to_one_pair),
          queues_test(test_commands_that_make_no_sense_are_refused_and_change_nothing),
          queues_test(test_commands_without_end_are_answered_in_turns),
          queues_test(test_control_queue_that_loops_breaks_the_device_until_reset),
          queues_test(test_driver_that_knows_one_pair_has_its_control_queue_behind_it),
          queues_test(test_driver_that_changes_its_pairs_waits_before_it_does_so_again),
          queues_test(test_limits_are_of_all_pairs_together))
