/* A polling virtio-console driver with multiport (virtio 1.2, section 5.3). */
#pragma once

#include "tests/guest/lib/virtio.h"

enum { CONSOLE_PORTS = 5, CONSOLE_BUFFERS = 2, CONSOLE_BUFFER_SIZE = 4096, CONSOLE_NAME_SIZE = 32 };

struct console_port {
    bool added;
    bool host_open;
    bool terminal; /* the device says that it is a console */
    char name[CONSOLE_NAME_SIZE];
    unsigned next_buffer;  /* the receive buffer that is filled next */
    const uint8_t *unread; /* what the last filled buffer still holds */
    uint32_t unread_length;
};

struct console {
    struct virtio virtio;
    uint32_t port_count; /* that the device has, at most CONSOLE_PORTS */
    struct console_port ports[CONSOLE_PORTS];
};

/* Finds the device and brings every port up to PORT_READY, with its name known. */
bool console_open(struct console *console);
/* Handles what the control queue brought. */
void console_poll(struct console *console);
/* The port of that name; fails the guest when there is none. */
struct console_port *console_find(struct console *console, const char *name);
/* Tells the device that the guest opened (closed) the port. */
void console_set_open(struct console *console, struct console_port *port, bool open);
/* Takes up to `size` bytes that have arrived; 0 when there are none. */
uint32_t console_read(struct console *console, struct console_port *port, void *to, uint32_t size);
/* Waits until the device has taken them all. */
void console_write(struct console *console, struct console_port *port, const void *from, uint32_t size);
