/* What console.c (the device and its data) and console_control.c (the control queues) share; nobody else needs it. */
#pragma once

#include <linux/virtio_console.h>

#include "vmm/backend/port_backend.h"
#include "vmm/base/event_loop.h"
#include "vmm/virtio/device.h"

/* Queue numbers (5.3.2): port 0 has the first two, then come the control queues, then the other ports. */
enum {
    CONTROL_RECEIVE = 2,
    CONTROL_TRANSMIT = 3,
    CONTROL_PAIR = CONTROL_RECEIVE / 2,
};

struct console_port {
    struct console *console;
    struct port_backend *backend;
    char *name;
    bool is_terminal; /* announced as hvcN */
    bool unplugged;   /* the driver is not told of it */
    uint16_t columns; /* of a terminal's window; 0: not known */
    uint16_t rows;
    bool ready;           /* the driver has made the port */
    bool guest_open;      /* somebody in the guest has it open */
    bool host_open;       /* the backend, as last looked at */
    bool told_open;       /* what the driver believes of host_open */
    uint8_t owed;         /* messages to the driver that wait for a buffer: bits of message_table */
    uint32_t output_done; /* bytes of the next transmit chain that the backend has already */
};

struct console {
    struct virtio_device device;
    struct virtio_console_config config;
    bool driver_ready;       /* DEVICE_READY was said: it wants to know of ports */
    bool multiport;          /* VIRTIO_CONSOLE_F_MULTIPORT was negotiated; else port 0 is all there is */
    struct event_timer turn; /* set to the next turn of the loop: looks at every queue */
    size_t port_count;
    struct console_port *ports;
    struct virtqueue queues[];
};

/* Looks at every queue on the loop's next turn: somebody else may be served first. */
void console_turn_later(struct console *console);

/* The guest broke the device. */
void console_fail(struct console *console, const char *reason);

/* Handles what the driver says on the control transmit queue. */
void console_control_receive(struct console *console);

/* Sends what is owed to the driver, as far as it has given buffers. */
void console_control_send(struct console *console);

/* Looks whether the backend is open, and notes what the driver must be told. */
void console_port_note_host(struct console_port *port);

/* Whether the guest would get input now: Linux throws away what comes while nobody has the port open. */
bool console_port_takes_input(const struct console_port *port);

/* Plugs a port in or out. */
void console_port_plug(struct console_port *port, bool unplugged);
/* Lets the driver know of a terminal's new size. */
void console_port_resize(struct console_port *port);

/* The driver is gone: forgets what it said and what it was owed. */
void console_port_forget(struct console_port *port);
