/*
 * A 16550A UART (National Semiconductor PC16550D data sheet) at port 0x3f8: the guest's ttyS0. What the guest sends
 * goes through a ring to a file descriptor, never blocking; what that descriptor does not take in time is dropped and
 * counted. Input is read only while the guest's receive FIFO has room.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/bus.h"
#include "vmm/config.h"
#include "vmm/virtio/rate_limiter.h"

#define SERIAL_PORT 0x3f8
enum {
    SERIAL_PORTS = 8,
    SERIAL_RING_SIZE = 16 * 1024,
    SERIAL_FIFO_SIZE = 64,
    /* How much a guest may append to a regular file in its life, so that it cannot fill the host's disk. */
    SERIAL_FILE_MAX = 64 * 1024 * 1024,
};

struct serial {
    struct event_loop *loop;
    int irq_fd; /* eventfd, borrowed; -1: none yet */

    /* Registers; RBR and THR are the FIFO and the ring. */
    uint8_t interrupt_enable;
    uint8_t line_control;
    uint8_t modem_control;
    uint8_t scratch;
    uint16_t divisor;
    bool fifo_enabled;
    bool transmitter_interrupt; /* THR became empty and IIR was not read since */
    uint8_t receive[SERIAL_FIFO_SIZE];
    unsigned receive_start, receive_count;

    /* Guest to host. */
    struct event_source output;
    bool owns_output;     /* serial_out_path: closed at the end */
    bool output_pollable; /* false: a regular file, always ready */
    bool output_failed;
    uint64_t file_room; /* what may still be written to a regular file */
    struct token_bucket bucket;
    struct event_timer flush_timer;
    uint64_t last_flush_us;
    uint8_t *ring; /* SERIAL_RING_SIZE bytes, borrowed */
    unsigned ring_start, ring_count;

    /* Host to guest. */
    struct event_source input;
    bool input_open;
};

extern const struct bus_ops serial_bus_ops;

/* A zeroed struct becomes a UART in its state after power-on, connected to nothing. `ring` is borrowed. */
void serial_init(struct serial *serial, struct event_loop *loop, uint8_t ring[SERIAL_RING_SIZE]);

/* Whether the output that `config` names can be opened. */
struct error *serial_check(const struct serial_config *config);

/*
 * Connects output and input as `config` says: serial_out_path alone, or stdin and stdout; a terminal on stdin becomes
 * raw until serial_close. Called again it reconnects.
 */
struct error *serial_open(struct serial *serial, const struct serial_config *config);

/* Writes what the ring still holds, as far as the descriptor takes it at once, and restores the terminal. */
void serial_close(struct serial *serial);
