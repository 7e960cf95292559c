/*
 * The i8042 keyboard controller (ports 0x60 and 0x64), as much of it as a guest needs to reset the machine, to find a
 * keyboard, and to be told Ctrl-Alt-Del: controller commands, a keyboard that acknowledges everything, scan code
 * set 2. There is no mouse.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/bus.h"

#define I8042_PORT 0x60
#define I8042_COMMAND_PORT 0x64
enum { I8042_GSI = 1, I8042_BUFFER_SIZE = 16 };

struct i8042 {
    int irq_fd; /* eventfd, borrowed; -1: none yet */
    uint8_t status;
    uint8_t control;
    uint8_t output_port;
    uint8_t command; /* the controller command whose data byte is awaited; 0: none, data goes to the keyboard */
    uint8_t buffer[I8042_BUFFER_SIZE]; /* what the guest will read from port 0x60 */
    unsigned buffer_start, buffer_count;
    void (*reset)(void *owner); /* the guest asked for a CPU reset; with the event loop's lock held */
    void *owner;
};

/* The data port at offset 0; the command port at offset 4 of the one, at offset 0 of the other. */
extern const struct bus_ops i8042_bus_ops;
extern const struct bus_ops i8042_command_bus_ops;

void i8042_init(struct i8042 *i8042, void (*reset)(void *owner), void *owner);

/* Presses Ctrl-Alt-Del. ERROR_STATE when the guest has not made room for it or disabled the keyboard's interrupt. */
struct error *i8042_send_ctrl_alt_del(struct i8042 *i8042);
