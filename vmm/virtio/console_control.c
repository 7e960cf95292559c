/*
 * The control queues of virtio-console (virtio 1.2, section 5.3.6.2): how driver and device tell each other about
 * ports. What the driver is owed is kept as bits in each port, not as a queue of messages: whatever the guest does, it
 * cannot grow, and saying a thing twice is saying it once.
 */
#include "vmm/virtio/console.h"

#include "vmm/base/cleanup.h"
#include "vmm/metrics.h"

#include <string.h>

enum { TURN_MESSAGES = 32 }; /* so many in one go; then other devices have their turn */

/* Messages to the driver, in the order in which a port's are sent. */
enum {
    OWED_REMOVE = 1 << 0,
    OWED_ADD = 1 << 1,
    OWED_TERMINAL = 1 << 2,
    OWED_SIZE = 1 << 3,
    OWED_NAME = 1 << 4,
    OWED_CLOSED = 1 << 5,
    OWED_OPEN = 1 << 6,
};

static const struct {
    uint8_t owed;
    uint16_t event;
    uint16_t value;
} message_table[] = {
    {OWED_REMOVE, VIRTIO_CONSOLE_PORT_REMOVE, 1},    {OWED_ADD, VIRTIO_CONSOLE_PORT_ADD, 1},
    {OWED_TERMINAL, VIRTIO_CONSOLE_CONSOLE_PORT, 1}, {OWED_SIZE, VIRTIO_CONSOLE_RESIZE, 0},
    {OWED_NAME, VIRTIO_CONSOLE_PORT_NAME, 1},        {OWED_CLOSED, VIRTIO_CONSOLE_PORT_OPEN, 0},
    {OWED_OPEN, VIRTIO_CONSOLE_PORT_OPEN, 1},
};

/*
 * A peer that came and went before the driver heard of it is not mentioned; one that the driver knows of is said to be
 * gone before the next one is announced.
 */
void console_port_note_host(struct console_port *port)
{
    bool open = port->backend->ops->is_open(port->backend);

    if (open == port->host_open)
        return;
    port->host_open = open;
    if (!port->ready)
        return;
    if (open)
        port->owed |= OWED_OPEN;
    else if ((port->owed & OWED_OPEN) != 0)
        port->owed &= (uint8_t)~OWED_OPEN;
    else
        port->owed |= OWED_CLOSED;
}

bool console_port_takes_input(const struct console_port *port)
{
    if (!port->console->multiport)
        return true;
    return port->guest_open && port->told_open && (port->owed & OWED_CLOSED) == 0;
}

/* A change that the driver has not heard of yet and its reverse are no change. */
void console_port_plug(struct console_port *port, bool unplugged)
{
    uint8_t reverse = unplugged ? OWED_ADD : OWED_REMOVE;

    if (port->unplugged == unplugged)
        return;
    port->unplugged = unplugged;
    if (!port->console->driver_ready)
        return;
    if ((port->owed & reverse) != 0)
        port->owed &= (uint8_t)~reverse;
    else
        port->owed = unplugged ? OWED_REMOVE : OWED_ADD;
    port->ready = port->guest_open = port->told_open = false;
}

static bool size_can_be_told(const struct console_port *port)
{
    return port->is_terminal && port->columns != 0 &&
           (port->console->device.driver_features & 1ULL << VIRTIO_CONSOLE_F_SIZE) != 0;
}

void console_port_resize(struct console_port *port)
{
    if (port->ready && size_can_be_told(port))
        port->owed |= OWED_SIZE;
}

void console_port_forget(struct console_port *port)
{
    port->ready = port->guest_open = port->told_open = false;
    port->owed = 0;
    port->output_done = 0;
}

/* To the driver. */

/* False when there is no buffer: the driver's notification brings us back. */
static bool message_send(struct console_port *port, uint16_t event, uint16_t value)
{
    struct console *console = port->console;
    struct virtqueue *queue = &console->queues[CONTROL_RECEIVE];
    struct virtio_console_control message = {
        .id = (uint32_t)(port - console->ports),
        .event = event,
        .value = value,
    };
    const char *text = event == VIRTIO_CONSOLE_PORT_NAME ? port->name : "";
    /* As specified (5.3.6.2), and as our guest kernel has it; some versions of Linux take the rows first. */
    const uint16_t size[] = {port->columns, port->rows};
    struct virtqueue_chain chain;
    enum virtqueue_result result;

    do
        result = virtqueue_pop(queue, &chain);
    while (result == VIRTQUEUE_EMPTY && virtqueue_arm(queue));
    if (result == VIRTQUEUE_EMPTY)
        return false;
    if (result == VIRTQUEUE_BROKEN || chain.writable_bytes < sizeof(message)) {
        console_fail(console, "the control receive queue is broken");
        return false;
    }

    size_t written = virtqueue_chain_write(&chain, 0, &message, sizeof(message));
    written += virtqueue_chain_write(&chain, written, text, strlen(text));
    if (event == VIRTIO_CONSOLE_RESIZE)
        written += virtqueue_chain_write(&chain, written, size, sizeof(size));
    virtqueue_push(queue, chain.head, (uint32_t)written);
    return true;
}

static bool port_send_owed(struct console_port *port)
{
    for (size_t i = 0; i < array_length(message_table) && port->owed != 0; i++) {
        uint8_t bit = message_table[i].owed;

        if ((port->owed & bit) == 0)
            continue;
        if (!message_send(port, message_table[i].event, message_table[i].value))
            return false;
        port->owed &= (uint8_t)~bit;
        if (message_table[i].event == VIRTIO_CONSOLE_PORT_OPEN) {
            port->told_open = message_table[i].value != 0;
            console_turn_later(port->console); /* its input may flow now */
        }
    }
    return true;
}

void console_control_send(struct console *console)
{
    for (size_t i = 0; i < console->port_count; i++)
        if (!port_send_owed(&console->ports[i]))
            break;
    virtio_device_signal(&console->device, CONTROL_RECEIVE);
}

/* From the driver. */

static void handle_port_ready(struct console_port *port, bool ready)
{
    port->ready = ready;
    port->told_open = false;
    port->owed = 0;
    if (!ready)
        return; /* the driver could not make it */
    port->owed = OWED_NAME;
    if (port->is_terminal)
        port->owed |= OWED_TERMINAL;
    if (size_can_be_told(port))
        port->owed |= OWED_SIZE;
    if (port->host_open)
        port->owed |= OWED_OPEN;
}

static void handle_port_open(struct console_port *port, bool open)
{
    port->guest_open = open;
}

static void handle_device_ready(struct console *console, bool ready)
{
    console->driver_ready = ready;
    for (size_t i = 0; i < console->port_count; i++) {
        struct console_port *port = &console->ports[i];

        handle_port_ready(port, false);
        port->guest_open = false;
        port->owed = ready && !port->unplugged ? OWED_ADD : 0;
    }
}

/* Returns false for what no driver should say. */
static bool handle_message(struct console *console, const struct virtio_console_control *message)
{
    bool value = message->value != 0;

    if (message->event == VIRTIO_CONSOLE_DEVICE_READY) {
        handle_device_ready(console, value);
        return true;
    }
    if (message->id >= console->port_count || console->ports[message->id].unplugged)
        return false;
    if (message->event == VIRTIO_CONSOLE_PORT_READY)
        handle_port_ready(&console->ports[message->id], value);
    else if (message->event == VIRTIO_CONSOLE_PORT_OPEN)
        handle_port_open(&console->ports[message->id], value);
    else
        return false;
    return true;
}

void console_control_receive(struct console *console)
{
    struct virtqueue *queue = &console->queues[CONTROL_TRANSMIT];
    struct virtio_console_control message;
    struct virtqueue_chain chain;

    virtqueue_disarm(queue);
    for (unsigned count = 0; count < TURN_MESSAGES; count++) {
        enum virtqueue_result result = virtqueue_pop(queue, &chain);

        if (result == VIRTQUEUE_BROKEN) {
            console_fail(console, "the control transmit queue is broken");
            return;
        }
        if (result == VIRTQUEUE_EMPTY) {
            if (virtqueue_arm(queue))
                continue;
            virtio_device_signal(&console->device, CONTROL_TRANSMIT);
            return;
        }
        if (virtqueue_chain_read(&chain, 0, &message, sizeof(message)) < sizeof(message) ||
            !handle_message(console, &message))
            METRIC_INCREMENT(console.event_fails);
        virtqueue_push(queue, chain.head, 0);
    }
    virtio_device_signal(&console->device, CONTROL_TRANSMIT);
    console_turn_later(console);
}
