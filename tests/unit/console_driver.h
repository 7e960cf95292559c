/* A console driver for tests: what Linux's does, in small, on top of a guest_driver. */
#pragma once

#include <linux/virtio_console.h>

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/config.h"

/* Queue numbers: ports 1 and up come after the control queues. */
enum { CONTROL_RX = 2, CONTROL_TX = 3 };
#define PORT_RX(port) ((port) == 0 ? 0u : 2u * (unsigned)(port) + 2)
#define PORT_TX(port) (PORT_RX(port) + 1)
#define MULTIPORT (1ULL << VIRTIO_CONSOLE_F_MULTIPORT)

enum { MESSAGES_MAX = 200 };

struct console_message {
    uint32_t id;
    uint16_t event;
    uint16_t value;
    char text[80];
};

struct console_driver {
    struct guest_driver driver;
    struct console_message messages[MESSAGES_MAX]; /* heard so far, oldest first */
    size_t message_count;
    size_t messages_checked; /* by console_driver_expect */
};

/* Makes the device and activates it; control buffers are given when MULTIPORT is among `features`. */
void console_driver_start(struct console_driver *console, const struct console_config *config, uint64_t features);
/* Gives `count` buffers of `length` bytes for messages. */
void console_driver_give_control(struct console_driver *console, unsigned count, uint32_t length);
/* Lets the device run until nothing is left to do, takes its messages and gives their buffers back. */
void console_driver_settle(struct console_driver *console);
/* Says something on the control queue, and settles. */
void console_driver_say(struct console_driver *console, uint32_t id, uint16_t event, uint16_t value);
/* DEVICE_READY, and PORT_READY for each of `port_count` ports. Forgets the messages that answer it. */
void console_driver_shake_hands(struct console_driver *console, size_t port_count);
/* The next message must be this one; expect_silence: there must be no other. */
void console_driver_expect(struct console_driver *console, uint32_t id, uint16_t event, uint16_t value);
void console_driver_expect_silence(struct console_driver *console);
