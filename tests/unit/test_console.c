#include "tests/unit/harness.h"

#include "tests/unit/console_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* The console device, driven as Linux does, with real sockets, files and FIFOs at its other side. */

enum { PORTS = 3, IN = 0, OUT = 1, TERMINAL = 2 };
#define RX_GPA 0x200000ULL
#define TX_GPA 0x400000ULL
#define PAGE 4096

static struct console_driver console;
static struct guest_driver *const driver = &console.driver;
static struct console_port_config ports[PORTS];
static struct console_config config;
static char folder[] = "/tmp/mayfly-console-XXXXXX";
static char paths[PORTS][100];
static int peers[PORTS];
static uint8_t bytes[1 << 20];

static int setup(void **state)
{
    static const char *const names[PORTS] = {"mayfly.in", "mayfly.out", "mayfly.terminal"};

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    memset(&console, 0, sizeof(console));
    memset(&metrics.console, 0, sizeof(metrics.console));
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < PORTS; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/%zu.sock", folder, i);
        ports[i] = (struct console_port_config){.name = (char *)names[i], .socket_path = paths[i]};
        peers[i] = -1;
    }
    ports[TERMINAL].console = true;
    config = (struct console_config){.ports = ports, .port_count = PORTS};
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256 + i / 65536);
    guest_driver_setup(driver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(driver);
    for (size_t i = 0; i < PORTS; i++) {
        fd_close(&peers[i]);
        unlink(paths[i]);
    }
    assert_int_equal(rmdir(folder), 0); /* the device leaves nothing behind */
    return 0;
}

static int try_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fd_close(&fd);
    return fd;
}

static void come(int port)
{
    peers[port] = try_connect(paths[port]);
    assert_true(peers[port] >= 0);
    console_driver_settle(&console);
}

static void go(int port)
{
    fd_close(&peers[port]);
    console_driver_settle(&console);
}

/* Up to the point where the driver knows all ports. */
static void start(void)
{
    console_driver_start(&console, &config, MULTIPORT);
    console_driver_shake_hands(&console, PORTS);
}

static void guest_opens(int port, bool open)
{
    console_driver_say(&console, (uint32_t)port, VIRTIO_CONSOLE_PORT_OPEN, open);
}

static void give_buffers(int port, unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++) {
        const struct guest_buffer buffer = {RX_GPA + i * PAGE, length, true};

        guest_ring_add(&driver->rings[PORT_RX(port)], &buffer, 1);
    }
    guest_driver_notify(driver, PORT_RX(port));
}

/* Queues `length` bytes of `bytes` from `offset` on as one chain. */
static void guest_writes(int port, size_t offset, uint32_t length)
{
    const struct guest_buffer buffer = {TX_GPA + offset, length, false};

    memcpy(guest_at(&driver->memory, buffer.gpa, length), bytes + offset, length);
    guest_ring_add(&driver->rings[PORT_TX(port)], &buffer, 1);
    guest_driver_notify(driver, PORT_TX(port));
}

static void assert_guest_reads(int port, size_t offset, uint32_t length)
{
    struct guest_ring *ring = &driver->rings[PORT_RX(port)];
    uint16_t head;

    assert_int_equal(guest_driver_wait_used(driver, PORT_RX(port), &head), length);
    assert_memory_equal(guest_at(&driver->memory, ring->descriptors[head].addr, length), bytes + offset, length);
}

static void peer_sends(int port, size_t offset, size_t length)
{
    assert_int_equal(send(peers[port], bytes + offset, length, MSG_NOSIGNAL), (ssize_t)length);
    console_driver_settle(&console);
}

static void assert_peer_reads(int port, size_t offset, size_t length)
{
    static uint8_t received[1 << 20];

    assert_int_equal(recv(peers[port], received, sizeof(received), 0), (ssize_t)length);
    assert_memory_equal(received, bytes + offset, length);
}

static bool is_taken(int port)
{
    uint16_t head;
    uint32_t length;

    return guest_ring_take_used(&driver->rings[PORT_TX(port)], &head, &length);
}

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

struct reading {
    size_t done;
};

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

/* Files and FIFOs. */

static void use_file(int port)
{
    ports[port].output_path = paths[port];
    ports[port].socket_path = NULL;
}

static void test_file_gets_what_the_guest_writes_at_its_end(void **state)
{
    uint8_t content[1100];
    struct stat status;
    int fd;

    (void)state;
    use_file(OUT);
    fd = open(paths[OUT], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, bytes, 100), 100);
    fd_close(&fd);
    start();
    assert_int_equal(console.messages[console.message_count - 3].event, VIRTIO_CONSOLE_PORT_OPEN);
    assert_int_equal(console.messages[console.message_count - 3].id, OUT);
    guest_writes(OUT, 100, 400);
    guest_writes(OUT, 500, 500);
    console_driver_settle(&console);
    assert_true(is_taken(OUT) && is_taken(OUT));
    fd = open(paths[OUT], O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, content, sizeof(content)), 1000);
    assert_memory_equal(content, bytes, 1000);
    assert_int_equal(fstat(fd, &status), 0);
    fd_close(&fd);
}

static void test_full_disk_drops_output_and_counts_it(void **state)
{
    (void)state;
    use_file(OUT);
    ports[OUT].output_path = (char *)"/dev/full";
    start();
    guest_writes(OUT, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 1000);
}

static void test_fifo_drops_while_nobody_reads_and_waits_for_a_slow_reader(void **state)
{
    struct reading reading = {0};

    (void)state;
    use_file(OUT);
    assert_int_equal(mkfifo(paths[OUT], 0600), 0);
    start();
    guest_writes(OUT, 0, 1000);
    console_driver_settle(&console);
    assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.dropped_bytes, 1000);

    cleanup_fd int reader = open(paths[OUT], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    for (size_t i = 0; i < 4; i++)
        guest_writes(OUT, i * sizeof(bytes) / 4, sizeof(bytes) / 4);
    console_driver_settle(&console);
    assert_false(metrics.console.tx_bytes == sizeof(bytes));
    while (reading.done < sizeof(bytes)) {
        static uint8_t part[50000];
        ssize_t length = read(reader, part, sizeof(part));

        assert_true(length > 0);
        assert_memory_equal(part, bytes + reading.done, (size_t)length);
        reading.done += (size_t)length;
        console_driver_settle(&console);
    }
    guest_writes(OUT, 0, sizeof(bytes));
    console_driver_settle(&console);
    fd_close(&reader);
    console_driver_settle(&console); /* not polled, and what was waiting is dropped */
    for (unsigned i = 0; i < 5; i++)
        assert_true(is_taken(OUT));
    assert_int_equal(metrics.console.tx_bytes + metrics.console.dropped_bytes, 2 * sizeof(bytes) + 1000);
}

/* Configuration. */

static void assert_refused(enum error_kind kind, const char *text)
{
    struct virtio_device *device = NULL;

    assert_error(virtio_console_new(&config, driver->loop, &device), kind, text);
    assert_null(device);
    assert_int_equal(access(paths[IN], F_OK), -1); /* nothing is left of the ports before */
}

static void test_socket_is_its_owners_alone_and_gone_at_the_end(void **state)
{
    struct stat status;

    (void)state;
    start();
    assert_int_equal(lstat(paths[IN], &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 07777, 0600);
    driver->device->ops->destroy(driver->device);
    driver->device = NULL;
    assert_int_equal(access(paths[IN], F_OK), -1);
}

static void test_file_that_is_not_ours_any_more_stays(void **state)
{
    int fd;

    (void)state;
    start();
    assert_int_equal(unlink(paths[IN]), 0);
    fd = open(paths[IN], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    fd_close(&fd);
    driver->device->ops->destroy(driver->device);
    driver->device = NULL;
    assert_int_equal(access(paths[IN], F_OK), 0);
}

static int bound_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void test_socket_left_by_the_dead_is_replaced(void **state)
{
    int fd = bound_socket(paths[OUT]);

    (void)state;
    fd_close(&fd);
    start();
    come(OUT);
}

static void test_socket_of_the_living_is_refused_and_they_notice_nothing(void **state)
{
    int fd = bound_socket(paths[OUT]);

    (void)state;
    assert_refused(ERROR_INPUT, "another process listens there");
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(accept4(fd, NULL, NULL, SOCK_CLOEXEC), -1);
    assert_int_equal(errno, EAGAIN);
    fd_close(&fd);
}

static void test_path_that_cannot_be_used_is_named(void **state)
{
    char longest[109];
    int fd = open(paths[OUT], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    fd_close(&fd);
    assert_refused(ERROR_INPUT, "ports[1].socket_path: \"");
    assert_refused(ERROR_INPUT, "exists and is not a socket");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[108] = '\0';
    ports[OUT].socket_path = longest;
    assert_refused(ERROR_INPUT, "has 108 bytes: the path of a Unix socket has 1 to 107");
    ports[OUT].socket_path = (char *)"";
    assert_refused(ERROR_INPUT, "ports[1].socket_path: \"\" has 0 bytes");
    ports[OUT].socket_path = (char *)"/no/such/folder/s";
    assert_refused(ERROR_HOST, "ports[1].socket_path: \"/no/such/folder/s\": cannot make a socket there: No such file");
    use_file(OUT);
    ports[OUT].output_path = (char *)"/no/such/folder/f";
    assert_refused(ERROR_HOST, "ports[1].output_path: \"/no/such/folder/f\": cannot open for appending: No such file");
    ports[OUT].output_path = folder;
    assert_refused(ERROR_HOST, "ports[1].output_path: \"");
}

static void test_wrong_ports_are_refused(void **state)
{
    char longest[ID_LENGTH_MAX + 2];

    (void)state;
    config.port_count = 0;
    assert_refused(ERROR_INPUT, "ports: 0 are given: expected 1 to 16");
    config.port_count = CONSOLE_PORTS_MAX + 1;
    assert_refused(ERROR_INPUT, "ports: 17 are given");
    config.port_count = PORTS;
    ports[OUT].output_path = paths[OUT];
    assert_refused(ERROR_INPUT, "ports[1]: expected either socket_path or output_path");
    ports[OUT].output_path = ports[OUT].socket_path = NULL;
    assert_refused(ERROR_INPUT, "ports[1]: expected either socket_path or output_path");
    ports[OUT].socket_path = paths[OUT];
    ports[OUT].name = ports[IN].name;
    assert_refused(ERROR_INPUT, "ports[1].name: ports[0] is called \"mayfly.in\" already");
    ports[OUT].name = (char *)"";
    assert_refused(ERROR_INPUT, "ports[1].name: \"\" has 0 bytes: expected 1 to 64");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ports[OUT].name = longest;
    assert_refused(ERROR_INPUT, "has 65 bytes: expected 1 to 64");
}

TEST_MAIN(
    cmocka_unit_test_setup_teardown(test_driver_is_told_of_every_port_in_order, setup, teardown),
    cmocka_unit_test_setup_teardown(test_config_space_has_the_number_of_ports, setup, teardown),
    cmocka_unit_test_setup_teardown(test_port_that_the_driver_could_not_make_is_left_alone, setup, teardown),
    cmocka_unit_test_setup_teardown(test_messages_wait_for_buffers, setup, teardown),
    cmocka_unit_test_setup_teardown(test_hostile_messages_are_ignored_and_owe_nothing, setup, teardown),
    cmocka_unit_test_setup_teardown(test_flood_of_messages_does_not_pile_up, setup, teardown),
    cmocka_unit_test_setup_teardown(test_control_buffer_without_room_for_a_message_stops_the_device, setup, teardown),
    cmocka_unit_test_setup_teardown(test_bytes_pass_both_ways, setup, teardown),
    cmocka_unit_test_setup_teardown(test_input_waits_until_the_guest_opens_the_port, setup, teardown),
    cmocka_unit_test_setup_teardown(test_input_waits_until_the_driver_knows_that_the_port_is_open, setup, teardown),
    cmocka_unit_test_setup_teardown(test_end_of_input_comes_after_the_last_byte_and_output_goes_on, setup, teardown),
    cmocka_unit_test_setup_teardown(test_what_a_peer_left_behind_is_delivered, setup, teardown),
    cmocka_unit_test_setup_teardown(test_peer_that_goes_without_reading_loses_none_of_its_bytes, setup, teardown),
    cmocka_unit_test_setup_teardown(test_input_waits_for_buffers_without_being_polled, setup, teardown),
    cmocka_unit_test_setup_teardown(test_output_before_the_first_peer_is_kept, setup, teardown),
    cmocka_unit_test_setup_teardown(test_output_after_the_peer_went_is_dropped_and_counted, setup, teardown),
    cmocka_unit_test_setup_teardown(test_slow_reader_holds_its_own_port_back_and_no_byte_comes_twice, setup, teardown),
    cmocka_unit_test_setup_teardown(test_chain_of_many_buffers_goes_on_where_it_stopped, setup, teardown),
    cmocka_unit_test_setup_teardown(test_chain_that_shrinks_under_way_is_done_with, setup, teardown),
    cmocka_unit_test_setup_teardown(test_terminal_never_waits, setup, teardown),
    cmocka_unit_test_setup_teardown(test_second_peer_has_its_turn_when_the_first_is_gone, setup, teardown),
    cmocka_unit_test_setup_teardown(test_dead_peer_that_nobody_listens_to_makes_room, setup, teardown),
    cmocka_unit_test_setup_teardown(test_peer_that_takes_no_more_output_may_still_send, setup, teardown),
    cmocka_unit_test_setup_teardown(test_paused_device_touches_nothing_and_loses_nothing, setup, teardown),
    cmocka_unit_test_setup_teardown(test_next_driver_finds_the_peers_of_the_last, setup, teardown),
    cmocka_unit_test_setup_teardown(test_driver_without_multiport_has_the_first_port, setup, teardown),
    cmocka_unit_test_setup_teardown(test_notifications_are_asked_for_only_when_the_queue_is_empty, setup, teardown),
    cmocka_unit_test_setup_teardown(test_broken_queue_stops_the_device_until_reset, setup, teardown),
    cmocka_unit_test_setup_teardown(test_receive_buffer_that_cannot_be_written_stops_the_device, setup, teardown),
    cmocka_unit_test_setup_teardown(test_file_gets_what_the_guest_writes_at_its_end, setup, teardown),
    cmocka_unit_test_setup_teardown(test_full_disk_drops_output_and_counts_it, setup, teardown),
    cmocka_unit_test_setup_teardown(test_fifo_drops_while_nobody_reads_and_waits_for_a_slow_reader, setup, teardown),
    cmocka_unit_test_setup_teardown(test_socket_is_its_owners_alone_and_gone_at_the_end, setup, teardown),
    cmocka_unit_test_setup_teardown(test_file_that_is_not_ours_any_more_stays, setup, teardown),
    cmocka_unit_test_setup_teardown(test_socket_left_by_the_dead_is_replaced, setup, teardown),
    cmocka_unit_test_setup_teardown(test_socket_of_the_living_is_refused_and_they_notice_nothing, setup, teardown),
    cmocka_unit_test_setup_teardown(test_path_that_cannot_be_used_is_named, setup, teardown),
    cmocka_unit_test_setup_teardown(test_wrong_ports_are_refused, setup, teardown))
