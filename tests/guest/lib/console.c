#include "tests/guest/lib/console.h"

enum {
    CONTROL_RX = 2,
    CONTROL_TX = 3,
    CONTROL_BUFFERS = 8,
    CONTROL_SIZE = 128,
    EVENT_DEVICE_READY = 0,
    EVENT_PORT_ADD = 1,
    EVENT_PORT_REMOVE = 2,
    EVENT_PORT_READY = 3,
    EVENT_CONSOLE_PORT = 4,
    EVENT_PORT_OPEN = 6,
    EVENT_PORT_NAME = 7,
};

#define CONSOLE_F_MULTIPORT (1ull << 1)

struct control {
    uint32_t port;
    uint16_t event;
    uint16_t value;
};

static uint8_t control_in[CONTROL_BUFFERS][CONTROL_SIZE] __attribute__((aligned(16)));
static unsigned control_next;
static struct control control_out;
static uint8_t port_in[CONSOLE_PORTS][CONSOLE_BUFFERS][CONSOLE_BUFFER_SIZE] __attribute__((aligned(4096)));

static unsigned receive_queue(uint32_t port)
{
    return port == 0 ? 0 : 2 + 2 * port;
}

static uint32_t port_number(const struct console *console, const struct console_port *port)
{
    return (uint32_t)(port - console->ports);
}

static void control_send(struct console *console, uint32_t port, uint16_t event, uint16_t value)
{
    control_out = (struct control){port, event, value};
    virtio_request(&console->virtio, CONTROL_TX, &(struct buffer){&control_out, sizeof(control_out), false}, 1);
}

static void control_post(struct console *console, unsigned index)
{
    queue_add(&console->virtio.queues[CONTROL_RX], &(struct buffer){control_in[index], CONTROL_SIZE, true}, 1);
}

static void port_post(struct console *console, uint32_t port, unsigned index)
{
    unsigned queue = receive_queue(port);

    queue_add(&console->virtio.queues[queue], &(struct buffer){port_in[port][index], CONSOLE_BUFFER_SIZE, true}, 1);
    virtio_notify(&console->virtio, queue);
}

static void port_add(struct console *console, uint32_t number)
{
    console->ports[number].added = true;
    for (unsigned index = 0; index < CONSOLE_BUFFERS; index++)
        port_post(console, number, index);
    control_send(console, number, EVENT_PORT_READY, 1);
}

static void control_handle(struct console *console, const uint8_t *message, uint32_t length)
{
    struct control control;
    struct console_port *port;

    guest_expect(length >= sizeof(control), "short control message");
    memcpy(&control, message, sizeof(control));
    guest_expect(control.port < console->port_count, "control message for a port beyond max_nr_ports");
    port = &console->ports[control.port];
    switch (control.event) {
    case EVENT_PORT_ADD:
        port_add(console, control.port);
        break;
    case EVENT_PORT_REMOVE:
        port->added = false;
        break;
    case EVENT_CONSOLE_PORT:
        port->terminal = true;
        break;
    case EVENT_PORT_OPEN:
        port->host_open = control.value != 0;
        break;
    case EVENT_PORT_NAME:
        length -= (uint32_t)sizeof(control);
        if (length >= CONSOLE_NAME_SIZE)
            length = CONSOLE_NAME_SIZE - 1;
        memcpy(port->name, message + sizeof(control), length);
        port->name[length] = '\0';
        break;
    default:
        break;
    }
}

void console_poll(struct console *console)
{
    struct queue *queue = &console->virtio.queues[CONTROL_RX];
    bool posted = false;

    while (queue_has_used(queue)) {
        uint32_t length = queue_wait(queue).length;
        unsigned index = control_next++ % CONTROL_BUFFERS;

        control_handle(console, control_in[index], length);
        control_post(console, index);
        posted = true;
    }
    if (posted)
        virtio_notify(&console->virtio, CONTROL_RX);
}

static bool all_named(const struct console *console)
{
    for (uint32_t i = 0; i < console->port_count; i++)
        if (!console->ports[i].added || console->ports[i].name[0] == '\0')
            return false;
    return true;
}

bool console_open(struct console *console)
{
    struct virtio *virtio = &console->virtio;

    memset(console, 0, sizeof(*console));
    if (!virtio_find(virtio, VIRTIO_CONSOLE, 0) || !virtio_negotiate(virtio, FEATURE_VERSION_1 | CONSOLE_F_MULTIPORT))
        return false;
    guest_expect((virtio->features & CONSOLE_F_MULTIPORT) != 0, "console without multiport");
    console->port_count = virtio_read(virtio, REG_CONFIG + 4);
    guest_expect(console->port_count <= CONSOLE_PORTS, "more ports than this driver can take");
    virtio->queue_count = 2 + 2 * console->port_count;
    if (virtio->queue_count < 4)
        virtio->queue_count = 4;
    for (unsigned index = 0; index < virtio->queue_count; index++)
        virtio_queue(virtio, index);
    virtio_driver_ok(virtio);
    control_next = 0;
    for (unsigned index = 0; index < CONTROL_BUFFERS; index++)
        control_post(console, index);
    virtio_notify(virtio, CONTROL_RX);
    control_send(console, 0xffffffff, EVENT_DEVICE_READY, 1);
    while (!all_named(console))
        console_poll(console);
    return true;
}

struct console_port *console_find(struct console *console, const char *name)
{
    for (uint32_t i = 0; i < console->port_count; i++)
        if (text_equal(console->ports[i].name, name))
            return &console->ports[i];
    guest_fail(name);
}

void console_set_open(struct console *console, struct console_port *port, bool open)
{
    control_send(console, port_number(console, port), EVENT_PORT_OPEN, open);
}

uint32_t console_read(struct console *console, struct console_port *port, void *to, uint32_t size)
{
    uint32_t number = port_number(console, port);
    struct queue *queue = &console->virtio.queues[receive_queue(number)];

    if (port->unread_length == 0) {
        if (!queue_has_used(queue))
            return 0;
        port->unread_length = queue_wait(queue).length;
        port->unread = port_in[number][port->next_buffer];
    }
    if (size > port->unread_length)
        size = port->unread_length;
    memcpy(to, port->unread, size);
    port->unread += size;
    port->unread_length -= size;
    if (port->unread_length == 0) {
        port_post(console, number, port->next_buffer);
        port->next_buffer = (port->next_buffer + 1) % CONSOLE_BUFFERS;
    }
    return size;
}

void console_write(struct console *console, struct console_port *port, const void *from, uint32_t size)
{
    unsigned queue = receive_queue(port_number(console, port)) + 1;

    if (size > 0)
        virtio_request(&console->virtio, queue, &(struct buffer){from, size, false}, 1);
}
