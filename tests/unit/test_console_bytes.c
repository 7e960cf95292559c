/* Bytes between the guest and the peers of a console's sockets, and peers that come and go. */
#include "tests/unit/console_fixture.h"

#include <string.h>
#include <sys/socket.h>

#include "vmm/virtio/devices.h"

/* Bytes. */

static void test_bytes_pass_both_ways(void **state)
{
    (void)state;
    start();
    come(IN);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 1);
    guest_opens(IN, true);
    give_buffers(IN, 2, PAGE);
    peer_sends(IN, 0, 100);
    assert_guest_reads(IN, 0, 100);
    peer_sends(IN, 100, 6000);
    assert_guest_reads(IN, 100, PAGE);
    console_driver_settle(&console);
    give_buffers(IN, 1, PAGE);
    assert_guest_reads(IN, 100 + PAGE, 6000 - PAGE);

    guest_writes(IN, 0, 1000);
    guest_writes(IN, 1000, 1);
    console_driver_settle(&console);
    assert_peer_reads(IN, 0, 1001);
    assert_true(is_taken(IN) && is_taken(IN));
    assert_int_equal(metrics.console.rx_bytes, 6100);
    assert_int_equal(metrics.console.tx_bytes, 1001);
}

static void test_input_waits_until_the_guest_opens_the_port(void **state)
{
    (void)state;
    start();
    give_buffers(IN, 4, PAGE);
    come(IN);
    peer_sends(IN, 0, 100);
    assert_int_equal(metrics.console.rx_bytes, 0);
    guest_opens(IN, true);
    assert_guest_reads(IN, 0, 100);
    guest_opens(IN, false);
    peer_sends(IN, 0, 100);
    assert_int_equal(metrics.console.rx_bytes, 100);
}

static void test_input_waits_until_the_driver_knows_that_the_port_is_open(void **state)
{
    (void)state;
    assert_no_error(virtio_console_new(&config, driver->loop, &driver->device));
    guest_driver_start(driver, driver->device, MULTIPORT);
    for (uint32_t i = 0; i < PORTS; i++)
        console_driver_say(&console, i, VIRTIO_CONSOLE_PORT_READY, 1);
    guest_opens(OUT, true);
    give_buffers(OUT, 1, PAGE);
    come(OUT);
    peer_sends(OUT, 0, 100);
    assert_int_equal(metrics.console.rx_bytes, 0);
    console_driver_give_control(&console, 1, 128);
    console_driver_settle(&console);
    assert_guest_reads(OUT, 0, 100);
}

static void test_end_of_input_comes_after_the_last_byte_and_output_goes_on(void **state)
{
    (void)state;
    start();
    come(IN);
    guest_opens(IN, true);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 1);
    peer_sends(IN, 0, 5000);
    assert_int_equal(shutdown(peers[IN], SHUT_WR), 0);
    console_driver_settle(&console);
    give_buffers(IN, 1, PAGE);
    console_driver_settle(&console);
    console_driver_expect_silence(&console);
    assert_guest_reads(IN, 0, PAGE);
    give_buffers(IN, 2, PAGE);
    console_driver_settle(&console);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 0);
    assert_guest_reads(IN, PAGE, 5000 - PAGE);

    guest_writes(IN, 0, 1000);
    console_driver_settle(&console);
    assert_peer_reads(IN, 0, 1000);
    go(IN);
    console_driver_expect_silence(&console);
    come(IN);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void test_what_a_peer_left_behind_is_delivered(void **state)
{
    (void)state;
    start();
    come(IN);
    peer_sends(IN, 0, 100);
    go(IN);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 1);
    console_driver_expect_silence(&console);
    give_buffers(IN, 2, PAGE);
    guest_opens(IN, true);
    assert_guest_reads(IN, 0, 100);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 0);
}

static void test_peer_that_goes_without_reading_loses_none_of_its_bytes(void **state)
{
    (void)state;
    start();
    come(IN);
    guest_writes(IN, 0, 1000);
    console_driver_settle(&console);
    peer_sends(IN, 0, 100);
    go(IN); /* ECONNRESET: it had not read the guest's */
    give_buffers(IN, 2, PAGE);
    guest_opens(IN, true);
    assert_guest_reads(IN, 0, 100);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 1);
    console_driver_expect(&console, IN, VIRTIO_CONSOLE_PORT_OPEN, 0);
}

static void test_input_waits_for_buffers_without_being_polled(void **state)
{
    (void)state;
    start();
    come(IN);
    guest_opens(IN, true);
    peer_sends(IN, 0, 100000);
    for (size_t done = 0; done < 100000;) {
        uint32_t part = 100000 - done < PAGE ? (uint32_t)(100000 - done) : PAGE;

        console_driver_settle(&console);
        give_buffers(IN, 1, PAGE);
        assert_guest_reads(IN, done, part);
        done += part;
    }
}

static void test_output_before_the_first_peer_is_kept(void **state)
{
    (void)state;
    start();
    guest_writes(OUT, 0, 1000);
    guest_writes(OUT, 1000, 500);
    console_driver_settle(&console);
    assert_false(is_taken(OUT));
    come(OUT);
    assert_peer_reads(OUT, 0, 1500);
    assert_true(is_taken(OUT) && is_taken(OUT));
}

static void test_output_after_the_peer_went_is_dropped_and_counted(void **state)
{
    (void)state;
    start();
    come(OUT);
    go(OUT);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 0);
    guest_writes(OUT, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 1000);
    come(OUT);
    guest_writes(OUT, 1000, 10);
    console_driver_settle(&console);
    assert_peer_reads(OUT, 1000, 10);
}

static bool has_read_everything(void *argument)
{
    struct reading *reading = argument;
    static uint8_t part[5000];
    ssize_t length;

    while ((length = recv(peers[OUT], part, sizeof(part), 0)) > 0) {
        assert_memory_equal(part, bytes + reading->done, (size_t)length);
        reading->done += (size_t)length;
    }
    return reading->done == sizeof(bytes);
}

static void test_slow_reader_holds_its_own_port_back_and_no_byte_comes_twice(void **state)
{
    const uint32_t part = sizeof(bytes) / 32;
    struct reading reading = {0};

    (void)state;
    start();
    come(IN);
    come(OUT);
    for (size_t i = 0; i < 32; i++)
        guest_writes(OUT, i * part, part);
    console_driver_settle(&console); /* full, and not polled */
    assert_true(metrics.console.tx_bytes < sizeof(bytes));

    guest_opens(IN, true);
    give_buffers(IN, 1, PAGE);
    peer_sends(IN, 0, 100);
    assert_guest_reads(IN, 0, 100);

    guest_driver_run_until(driver, has_read_everything, &reading);
    assert_int_equal(metrics.console.tx_bytes, sizeof(bytes));
    for (unsigned i = 0; i < 32; i++)
        assert_true(is_taken(OUT));
}

static void test_chain_of_many_buffers_goes_on_where_it_stopped(void **state)
{
    struct guest_buffer parts[100];
    const uint32_t odd = 10477; /* 100 of them end before sizeof(bytes) */
    struct reading reading = {0};

    (void)state;
    start();
    driver->device->queues[PORT_TX(OUT)].indirect = true; /* as if VIRTIO_RING_F_INDIRECT_DESC were negotiated */
    come(OUT);
    memcpy(guest_at(&driver->memory, TX_GPA, sizeof(bytes)), bytes, sizeof(bytes));
    for (size_t i = 0; i < 100; i++)
        parts[i] = (struct guest_buffer){TX_GPA + i * odd, odd, false};
    parts[99].length = (uint32_t)(sizeof(bytes) - 99 * (size_t)odd);
    guest_ring_add_indirect(&driver->rings[PORT_TX(OUT)], 0x600000, parts, 100);
    guest_driver_notify(driver, PORT_TX(OUT));
    console_driver_settle(&console);
    assert_false(is_taken(OUT));
    guest_driver_run_until(driver, has_read_everything, &reading);
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
}

static void test_chain_that_shrinks_under_way_is_done_with(void **state)
{
    (void)state;
    start();
    come(OUT);
    guest_writes(OUT, 0, sizeof(bytes));
    console_driver_settle(&console);
    assert_false(is_taken(OUT));
    driver->rings[PORT_TX(OUT)].descriptors[0].len = 1;
    guest_driver_notify(driver, PORT_TX(OUT));
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 0);
    assert_false(driver->failed);
}

static void test_terminal_never_waits(void **state)
{
    (void)state;
    start();
    guest_writes(TERMINAL, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(TERMINAL));
    assert_int_equal(metrics.console.dropped_bytes, 1000);
    come(TERMINAL);
    guest_writes(TERMINAL, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(TERMINAL));
    assert_peer_reads(TERMINAL, 0, 1000);
    guest_writes(TERMINAL, 0, sizeof(bytes));
    console_driver_settle(&console);
    assert_true(is_taken(TERMINAL));
    assert_int_equal(metrics.console.tx_bytes + metrics.console.dropped_bytes, 2000 + sizeof(bytes));
}

/* Peers. */

static void test_second_peer_has_its_turn_when_the_first_is_gone(void **state)
{
    int second;

    (void)state;
    start();
    come(OUT);
    second = try_connect(paths[OUT]);
    assert_true(second >= 0);
    guest_writes(OUT, 0, 100);
    console_driver_settle(&console);
    assert_peer_reads(OUT, 0, 100);
    assert_int_equal(metrics.console.connections, 1);

    go(OUT);
    peers[OUT] = second;
    guest_writes(OUT, 100, 100);
    console_driver_settle(&console);
    assert_peer_reads(OUT, 100, 100);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 0);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void test_dead_peer_that_nobody_listens_to_makes_room(void **state)
{
    (void)state;
    start();
    come(OUT);
    peer_sends(OUT, 0, 100);
    go(OUT);
    come(OUT);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 0);
    console_driver_expect(&console, OUT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_int_equal(metrics.console.dropped_bytes, 100);
    guest_writes(OUT, 0, 100);
    console_driver_settle(&console);
    assert_peer_reads(OUT, 0, 100);
}

static void test_peer_that_takes_no_more_output_may_still_send(void **state)
{
    (void)state;
    start();
    come(IN);
    guest_opens(IN, true);
    assert_int_equal(shutdown(peers[IN], SHUT_RD), 0);
    guest_writes(IN, 0, 100);
    console_driver_settle(&console);
    assert_true(is_taken(IN));
    assert_int_equal(metrics.console.dropped_bytes, 100);
    give_buffers(IN, 1, PAGE);
    peer_sends(IN, 0, 10);
    assert_guest_reads(IN, 0, 10);
}

TEST_MAIN(console_test(test_bytes_pass_both_ways), console_test(test_input_waits_until_the_guest_opens_the_port),
          console_test(test_input_waits_until_the_driver_knows_that_the_port_is_open),
          console_test(test_end_of_input_comes_after_the_last_byte_and_output_goes_on),
          console_test(test_what_a_peer_left_behind_is_delivered),
          console_test(test_peer_that_goes_without_reading_loses_none_of_its_bytes),
          console_test(test_input_waits_for_buffers_without_being_polled),
          console_test(test_output_before_the_first_peer_is_kept),
          console_test(test_output_after_the_peer_went_is_dropped_and_counted),
          console_test(test_slow_reader_holds_its_own_port_back_and_no_byte_comes_twice),
          console_test(test_chain_of_many_buffers_goes_on_where_it_stopped),
          console_test(test_chain_that_shrinks_under_way_is_done_with), console_test(test_terminal_never_waits),
          console_test(test_second_peer_has_its_turn_when_the_first_is_gone),
          console_test(test_dead_peer_that_nobody_listens_to_makes_room),
          console_test(test_peer_that_takes_no_more_output_may_still_send))
