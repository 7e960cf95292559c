/* The console device: its control queues and its life cycle. */
#include "tests/unit/console_fixture.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <sys/socket.h>

#include "vmm/virtio/devices.h"

/* The control queues. */

static void test_driver_is_told_of_every_port_in_order(void **state)
{
    (void)state;
    console_driver_start(&console, &config, MULTIPORT);
    assert_int_equal(driver->device->ops->type, VIRTIO_ID_CONSOLE);
    come(IN);
    come(TERMINAL);
    console_driver_expect_silence(&console);

    console_driver_say(&console, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (uint32_t i = 0; i < PORTS; i++)
        console_driver_expect(&console, i, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_expect_silence(&console);

    for (uint32_t i = 0; i < PORTS; i++) {
        console_driver_say(&console, i, VIRTIO_CONSOLE_PORT_READY, 1);
        if (i == TERMINAL)
            console_driver_expect(&console, i, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
        console_driver_expect(&console, i, VIRTIO_CONSOLE_PORT_NAME, 1);
        assert_string_equal(console.messages[console.messages_checked - 1].text, ports[i].name);
        if (i != OUT)
            console_driver_expect(&console, i, VIRTIO_CONSOLE_PORT_OPEN, 1);
        console_driver_expect_silence(&console);
    }
}

static void test_config_space_has_the_number_of_ports(void **state)
{
    struct virtio_console_config space;

    (void)state;
    start();
    driver->device->ops->config_read(driver->device, 0, (uint8_t *)&space, sizeof(space));
    assert_int_equal(space.max_nr_ports, PORTS);
    assert_int_equal(driver->device->queue_count, 2 * (PORTS + 1));
}

static void test_port_that_the_driver_could_not_make_is_left_alone(void **state)
{
    (void)state;
    start();
    console_driver_say(&console, OUT, VIRTIO_CONSOLE_PORT_READY, 0);
    come(OUT);
    console_driver_expect_silence(&console);
}

static void test_messages_wait_for_buffers(void **state)
{
    (void)state;
    assert_no_error(virtio_console_new(&config, driver->loop, &driver->device));
    guest_driver_start(driver, driver->device, MULTIPORT);
    console_driver_say(&console, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    console_driver_expect_silence(&console);
    console_driver_give_control(&console, 1, 128);
    console_driver_settle(&console);
    for (uint32_t i = 0; i < PORTS; i++)
        console_driver_expect(&console, i, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_expect_silence(&console);
}

static void test_hostile_messages_are_ignored_and_owe_nothing(void **state)
{
    const struct guest_buffer half = {0x180000, 7, false}, none = {0x180000, 64, true};

    (void)state;
    start();
    console_driver_say(&console, PORTS, VIRTIO_CONSOLE_PORT_READY, 1);
    console_driver_say(&console, UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
    console_driver_say(&console, 0, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_say(&console, 0, 0xffff, 1);
    guest_ring_add(&driver->rings[CONTROL_TX], &half, 1);
    guest_ring_add(&driver->rings[CONTROL_TX], &none, 1);
    guest_driver_notify(driver, CONTROL_TX);
    console_driver_settle(&console);
    assert_int_equal(metrics.console.event_fails, 6);
    assert_false(driver->failed);
    console_driver_expect_silence(&console);
}

static void test_flood_of_messages_does_not_pile_up(void **state)
{
    (void)state;
    assert_no_error(virtio_console_new(&config, driver->loop, &driver->device));
    guest_driver_start(driver, driver->device, MULTIPORT);
    for (unsigned i = 0; i < 1000; i++) {
        console_driver_say(&console, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
        for (uint32_t port = 0; port < PORTS; port++)
            console_driver_say(&console, port, VIRTIO_CONSOLE_PORT_READY, 1);
    }
    console_driver_give_control(&console, 8, 128);
    console_driver_settle(&console);
    assert_int_equal(console.message_count, PORTS + 1); /* a name each, and who is a terminal */
}

static void test_control_buffer_without_room_for_a_message_stops_the_device(void **state)
{
    (void)state;
    assert_no_error(virtio_console_new(&config, driver->loop, &driver->device));
    guest_driver_start(driver, driver->device, MULTIPORT);
    console_driver_give_control(&console, 1, sizeof(struct virtio_console_control) - 1);
    console_driver_say(&console, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_true(driver->failed);
}

/* Life cycle. */

static void set_paused(bool paused)
{
    driver->device->paused = paused;
    (paused ? driver->device->ops->pause : driver->device->ops->resume)(driver->device);
}

static void test_paused_device_touches_nothing_and_loses_nothing(void **state)
{
    (void)state;
    start();
    come(IN);
    guest_opens(IN, true);
    give_buffers(IN, 2, PAGE);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 1);
    set_paused(true);
    peer_sends(IN, 0, 100);
    come(OUT);
    guest_writes(OUT, 0, 100);
    go(IN);
    console_driver_settle(&console);
    assert_int_equal(metrics.console.rx_bytes + metrics.console.tx_bytes, 0);
    console_driver_expect_silence(&console);

    set_paused(false);
    console_driver_settle(&console);
    assert_guest_reads(IN, 0, 100);
    assert_peer_reads(OUT, 0, 100);
    assert_int_equal(console.message_count - console.messages_checked, 2); /* IN is closed, OUT is open */
}

static void test_next_driver_finds_the_peers_of_the_last(void **state)
{
    (void)state;
    start();
    come(IN);
    guest_opens(IN, true);
    come(OUT);
    guest_writes(OUT, 0, sizeof(bytes)); /* goes a part of the way */
    console_driver_settle(&console);
    guest_driver_reset(driver);
    assert_int_equal(send(peers[IN], bytes, 100, 0), 100);
    console_driver_settle(&console);

    guest_driver_restart(driver, MULTIPORT);
    console_driver_give_control(&console, 8, 128);
    console_driver_shake_hands(&console, PORTS);
    assert_int_equal(console.messages[console.message_count - 1].id, TERMINAL);
    give_buffers(IN, 1, PAGE);
    console_driver_settle(&console);
    assert_false(guest_ring_has_used(&driver->rings[PORT_RX(IN)]));
    guest_opens(IN, true);
    assert_guest_reads(IN, 0, 100);
    fd_close(&peers[OUT]);
    come(OUT);
    guest_writes(OUT, 50, 100);
    console_driver_settle(&console);
    assert_peer_reads(OUT, 50, 100);
}

static void test_driver_without_multiport_has_the_first_port(void **state)
{
    (void)state;
    console_driver_start(&console, &config, 0);
    come(0);
    give_buffers(0, 1, PAGE);
    peer_sends(0, 0, 100);
    assert_guest_reads(0, 0, 100);
    guest_writes(0, 0, 100);
    console_driver_settle(&console);
    assert_peer_reads(0, 0, 100);
    go(0);
    guest_writes(0, 0, 100);
    console_driver_settle(&console);
    assert_true(is_taken(0) && is_taken(0));
}

static void test_notifications_are_asked_for_only_when_the_queue_is_empty(void **state)
{
    (void)state;
    console_driver_start(&console, &config, MULTIPORT | 1ULL << VIRTIO_RING_F_EVENT_IDX);
    console_driver_shake_hands(&console, PORTS);
    guest_writes(OUT, 0, 100);
    guest_writes(OUT, 100, 100);
    console_driver_settle(&console);
    assert_int_equal(guest_ring_avail_event(&driver->rings[PORT_TX(OUT)]), 0); /* nobody takes it yet */
    come(OUT);
    assert_int_equal(guest_ring_avail_event(&driver->rings[PORT_TX(OUT)]), 2);
}

static void test_broken_queue_stops_the_device_until_reset(void **state)
{
    static const unsigned queues[] = {PORT_RX(IN), PORT_TX(OUT), CONTROL_RX, CONTROL_TX};

    (void)state;
    start();
    for (size_t i = 0; i < array_length(queues); i++) {
        come(IN);
        guest_opens(IN, true);
        guest_ring_available_index(&driver->rings[queues[i]], 1000);
        guest_driver_notify(driver, queues[i]);
        go(IN); /* makes the control receive queue matter */
        assert_true(driver->failed);
        guest_driver_reset(driver);
        guest_driver_restart(driver, MULTIPORT);
        console_driver_give_control(&console, 8, 128);
        console_driver_shake_hands(&console, PORTS);
    }
}

static void test_receive_buffer_that_cannot_be_written_stops_the_device(void **state)
{
    const struct guest_buffer readable = {RX_GPA, PAGE, false};

    (void)state;
    start();
    come(IN);
    guest_opens(IN, true);
    guest_ring_add(&driver->rings[PORT_RX(IN)], &readable, 1);
    guest_driver_notify(driver, PORT_RX(IN));
    assert_true(driver->failed);
    assert_int_equal(send(peers[IN], bytes, 100, 0), 100);
    console_driver_settle(&console);
}

TEST_MAIN(console_test(test_driver_is_told_of_every_port_in_order),
          console_test(test_config_space_has_the_number_of_ports),
          console_test(test_port_that_the_driver_could_not_make_is_left_alone),
          console_test(test_messages_wait_for_buffers), console_test(test_hostile_messages_are_ignored_and_owe_nothing),
          console_test(test_flood_of_messages_does_not_pile_up),
          console_test(test_control_buffer_without_room_for_a_message_stops_the_device),
          console_test(test_paused_device_touches_nothing_and_loses_nothing),
          console_test(test_next_driver_finds_the_peers_of_the_last),
          console_test(test_driver_without_multiport_has_the_first_port),
          console_test(test_notifications_are_asked_for_only_when_the_queue_is_empty),
          console_test(test_broken_queue_stops_the_device_until_reset),
          console_test(test_receive_buffer_that_cannot_be_written_stops_the_device))
