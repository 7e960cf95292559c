/* Ports of a console device with real sockets, and a guest that drives it as Linux does. */
#pragma once

#include "tests/unit/harness.h"

#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/console_driver.h"
#include "vmm/metrics.h"

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

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline int try_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fd_close(&fd);
    return fd;
}

static inline void come(int port)
{
    peers[port] = try_connect(paths[port]);
    assert_true(peers[port] >= 0);
    console_driver_settle(&console);
}

static inline void go(int port)
{
    fd_close(&peers[port]);
    console_driver_settle(&console);
}

/* Up to the point where the driver knows all ports. */
static inline void start(void)
{
    console_driver_start(&console, &config, MULTIPORT);
    console_driver_shake_hands(&console, PORTS);
}

static inline void guest_opens(int port, bool open)
{
    console_driver_say(&console, (uint32_t)port, VIRTIO_CONSOLE_PORT_OPEN, open);
}

static inline void give_buffers(int port, unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++) {
        const struct guest_buffer buffer = {RX_GPA + i * PAGE, length, true};

        guest_ring_add(&driver->rings[PORT_RX(port)], &buffer, 1);
    }
    guest_driver_notify(driver, PORT_RX(port));
}

/* Queues `length` bytes of `bytes` from `offset` on as one chain. */
static inline void guest_writes(int port, size_t offset, uint32_t length)
{
    const struct guest_buffer buffer = {TX_GPA + offset, length, false};

    memcpy(guest_at(&driver->memory, buffer.gpa, length), bytes + offset, length);
    guest_ring_add(&driver->rings[PORT_TX(port)], &buffer, 1);
    guest_driver_notify(driver, PORT_TX(port));
}

static inline void assert_guest_reads(int port, size_t offset, uint32_t length)
{
    struct guest_ring *ring = &driver->rings[PORT_RX(port)];
    uint16_t head;

    assert_int_equal(guest_driver_wait_used(driver, PORT_RX(port), &head), length);
    assert_memory_equal(guest_at(&driver->memory, ring->descriptors[head].addr, length), bytes + offset, length);
}

static inline void peer_sends(int port, size_t offset, size_t length)
{
    assert_int_equal(send(peers[port], bytes + offset, length, MSG_NOSIGNAL), (ssize_t)length);
    console_driver_settle(&console);
}

static inline void assert_peer_reads(int port, size_t offset, size_t length)
{
    static uint8_t received[1 << 20];

    assert_int_equal(recv(peers[port], received, sizeof(received), 0), (ssize_t)length);
    assert_memory_equal(received, bytes + offset, length);
}

static inline bool is_taken(int port)
{
    uint16_t head;
    uint32_t length;

    return guest_ring_take_used(&driver->rings[PORT_TX(port)], &head, &length);
}

struct reading {
    size_t done;
};

#define console_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
