/*
 * virtio-console (virtio 1.2, section 5.3) with multiple ports: named byte streams between the guest and sockets or
 * files of the host.
 *
 * Bytes go straight between guest memory and the host's descriptor. A host side that is slow keeps its port's transmit
 * queue waiting, nothing else; input is read only when the guest has the port open and gave buffers. A terminal never
 * waits: its driver spins with interrupts off until its output is taken, so what cannot be is dropped and counted.
 */
#include "vmm/virtio/console.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

enum {
    /* Linux fills each receive queue with buffers of a page at probe: what is not needed costs memory and boot time. */
    CONTROL_RECEIVE_SIZE = 8,
    CONTROL_TRANSMIT_SIZE = 8,
    SOCKET_RECEIVE_SIZE = 16,
    FILE_RECEIVE_SIZE = 2, /* nothing ever comes */
    TRANSMIT_SIZE = 32,
    TURN_CHAINS = 32,        /* so many a port and direction in one go; then others have their turn */
    OUTPUT_MAX = 256 * 1024, /* bytes in one write, however much a chain claims to hold */
};

#define MULTIPORT (1ULL << VIRTIO_CONSOLE_F_MULTIPORT)

static struct console *console_of(struct virtio_device *device)
{
    return container_of(device, struct console, device);
}

static bool is_running(const struct console *console)
{
    return console->device.active && !console->device.failed && !console->device.paused;
}

/* The number of a port's receive queue; its transmit queue is the next. */
static unsigned port_receive_queue(const struct console_port *port)
{
    size_t index = (size_t)(port - port->console->ports);

    return (unsigned)(index < CONTROL_PAIR ? index : index + 1) * 2;
}

static void console_unwatch(struct console *console)
{
    for (size_t i = 0; i < console->port_count; i++)
        console->ports[i].backend->ops->watch(console->ports[i].backend, false, false);
}

void console_turn_later(struct console *console)
{
    event_timer_set(console->device.loop, &console->turn, 0);
}

void console_fail(struct console *console, const char *reason)
{
    METRIC_INCREMENT(console.event_fails);
    console_unwatch(console);
    virtio_device_fail(&console->device, reason);
}

/* Whether the guest waits for its output actively: Linux does for a terminal, and port 0 is one without multiport. */
static bool port_is_impatient(const struct console_port *port)
{
    return port->is_terminal || !port->console->multiport;
}

/*
 * Passes the rest of a chain on, or a part of it. Returns true when the chain is done with: sent, or dropped because
 * nobody will take it.
 */
static bool port_output_chain(struct console_port *port, const struct virtqueue_chain *chain, bool *must_wait)
{
    struct iovec iov[VIRTQUEUE_IOV_MAX];
    struct port_backend *backend = port->backend;

    /* The guest may have changed the descriptors since the first part was sent. */
    if (port->output_done >= chain->readable_bytes)
        return true;

    size_t count = iovec_slice(iov, chain->iov, chain->readable_count, port->output_done, OUTPUT_MAX);
    ssize_t sent = backend->ops->writev(backend, iov, count);
    if (sent == -EAGAIN && !port_is_impatient(port)) {
        *must_wait = true;
        return false;
    }
    if (sent <= 0) {
        METRIC_ADD(console.dropped_bytes, chain->readable_bytes - port->output_done);
        if (sent != -EPIPE && sent != -EAGAIN)
            log_warning("console port \"%s\": output is lost: %s", port->name, strerror((int)-sent));
        return true;
    }
    METRIC_ADD(console.tx_bytes, sent);
    port->output_done += (uint32_t)sent;
    return port->output_done >= chain->readable_bytes;
}

/* From the guest to the host. Returns whether the host must make room before this goes on. */
static bool port_output(struct console_port *port)
{
    struct console *console = port->console;
    struct virtqueue *queue = &console->queues[port_receive_queue(port) + 1];
    struct virtqueue_chain chain;
    bool must_wait = false;

    virtqueue_disarm(queue);
    for (unsigned turns = 0; turns < TURN_CHAINS; turns++) {
        enum virtqueue_result result = virtqueue_pop(queue, &chain);

        if (result == VIRTQUEUE_BROKEN) {
            console_fail(console, "a port's transmit queue is broken");
            return false;
        }
        if (result == VIRTQUEUE_EMPTY) {
            if (virtqueue_arm(queue))
                continue;
            return false;
        }
        if (port_output_chain(port, &chain, &must_wait)) {
            port->output_done = 0;
            virtqueue_push(queue, chain.head, 0);
        } else {
            virtqueue_unpop(queue);
        }
        if (must_wait)
            return true;
    }
    console_turn_later(console);
    return false;
}

/* From the host to the guest. Returns whether the host must send something before this goes on. */
static bool port_input(struct console_port *port)
{
    struct console *console = port->console;
    struct virtqueue *queue = &console->queues[port_receive_queue(port)];
    struct virtqueue_chain chain;

    virtqueue_disarm(queue);
    for (unsigned turns = 0; turns < TURN_CHAINS; turns++) {
        if (!port->host_open || !console_port_takes_input(port))
            return false;

        enum virtqueue_result result = virtqueue_pop(queue, &chain);
        if (result == VIRTQUEUE_EMPTY) {
            if (virtqueue_arm(queue))
                continue;
            return false;
        }
        if (result == VIRTQUEUE_BROKEN || chain.writable_count == 0) {
            console_fail(console, "a port's receive queue is broken");
            return false;
        }

        ssize_t length =
            port->backend->ops->readv(port->backend, chain.iov + chain.readable_count, chain.writable_count);
        if (length <= 0) {
            virtqueue_unpop(queue);
            console_port_note_host(port);
            if (length < 0 && length != -EAGAIN)
                log_warning("console port \"%s\": cannot read input: %s", port->name, strerror((int)-length));
            return length == -EAGAIN;
        }
        METRIC_ADD(console.rx_bytes, length);
        virtqueue_push(queue, chain.head, (uint32_t)length);
    }
    console_turn_later(console);
    return false;
}

/* Does all that can be done for a port now. The end of input follows the last of it, so the control queue comes last.
 */
static void port_serve(struct console_port *port)
{
    struct console *console = port->console;
    bool output_waits = false;
    bool input_waits = false;

    console_port_note_host(port);
    if (is_running(console))
        console_control_send(console);
    if (is_running(console)) {
        output_waits = port_output(port);
        virtio_device_signal(&console->device, port_receive_queue(port) + 1);
    }
    if (is_running(console)) {
        input_waits = port_input(port);
        virtio_device_signal(&console->device, port_receive_queue(port));
    }
    if (is_running(console)) {
        console_port_note_host(port);
        console_control_send(console);
    }

    bool running = is_running(console);
    port->backend->ops->watch(port->backend, running && input_waits, running && output_waits);
}

static void port_changed(void *owner)
{
    port_serve(owner);
}

static void console_serve(struct console *console)
{
    for (size_t i = 0; i < console->port_count; i++)
        port_serve(&console->ports[i]);
}

static void turn_expired(struct event_timer *timer)
{
    struct console *console = container_of(timer, struct console, turn);

    if (is_running(console))
        console_control_receive(console);
    console_serve(console);
}

/* The device's operations. */

static void console_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct console *console = console_of(device);

    virtio_config_copy(&console->config, sizeof(console->config), offset, data, length);
}

static bool console_activate(struct virtio_device *device)
{
    struct console *console = console_of(device);

    console->multiport = (device->driver_features & MULTIPORT) != 0;
    /* Not now: the device is active only after we return. */
    console_turn_later(console);
    return true;
}

static void console_notify(struct virtio_device *device, unsigned index)
{
    struct console *console = console_of(device);
    size_t pair = index / 2;

    if (!is_running(console))
        return;
    if (index == CONTROL_TRANSMIT)
        console_control_receive(console);
    if (pair == CONTROL_PAIR)
        console_serve(console);
    else
        port_serve(&console->ports[pair < CONTROL_PAIR ? pair : pair - 1]);
}

static void console_pause(struct virtio_device *device)
{
    struct console *console = console_of(device);

    event_timer_cancel(&console->turn);
    console_unwatch(console);
}

static void console_resume(struct virtio_device *device)
{
    console_turn_later(console_of(device));
}

/* Peers stay connected: the next driver finds the ports as they are. */
static void console_reset(struct virtio_device *device)
{
    struct console *console = console_of(device);

    console_pause(device);
    console->driver_ready = false;
    for (size_t i = 0; i < console->port_count; i++)
        console_port_forget(&console->ports[i]);
}

static void console_free(struct console *console)
{
    if (console == NULL)
        return;
    event_timer_cancel(&console->turn);
    for (size_t i = 0; console->ports != NULL && i < console->port_count; i++) {
        struct console_port *port = &console->ports[i];

        if (port->backend != NULL)
            port->backend->ops->destroy(port->backend);
        free(port->name);
    }
    free(console->ports);
    free(console);
}

static void console_cleanup(struct console **console)
{
    console_free(*console);
}

static void console_destroy(struct virtio_device *device)
{
    console_free(console_of(device));
}

static const struct virtio_ops console_ops = {
    .type = VIRTIO_ID_CONSOLE,
    .name = "console",
    .config_read = console_config_read,
    .activate = console_activate,
    .notify = console_notify,
    .reset = console_reset,
    .pause = console_pause,
    .resume = console_resume,
    .destroy = console_destroy,
};

/* Making one. */

static struct error *port_check(const struct console_config *config, size_t index)
{
    const struct console_port_config *port = &config->ports[index];
    size_t length = port->name == NULL ? 0 : strlen(port->name);

    if (length == 0 || length > ID_LENGTH_MAX)
        return error_new(ERROR_INPUT, "ports[%zu].name: \"%s\" has %zu bytes: expected 1 to %d", index,
                         length == 0 ? "" : port->name, length, ID_LENGTH_MAX);
    for (size_t i = 0; i < index; i++)
        if (strcmp(config->ports[i].name, port->name) == 0)
            return error_new(ERROR_INPUT, "ports[%zu].name: ports[%zu] is called \"%s\" already", index, i, port->name);
    if (!port->console && (port->columns != 0 || port->rows != 0))
        return error_new(ERROR_INPUT, "ports[%zu].columns: only a port that is a console has a window", index);
    if ((port->columns == 0) != (port->rows == 0) || port->columns > UINT16_MAX || port->rows > UINT16_MAX)
        return error_new(ERROR_INPUT, "ports[%zu].columns: %u by %u rows, expected 1 to %u of both", index,
                         port->columns, port->rows, UINT16_MAX);
    if ((port->socket_path == NULL) == (port->output_path == NULL))
        return error_new(ERROR_INPUT, "ports[%zu]: expected either socket_path or output_path", index);
    return NULL;
}

static struct error *port_init(struct console_port *port, const struct console_port_config *config, size_t index,
                               struct event_loop *loop)
{
    const uint64_t max = config->output_max_mib != 0 ? config->output_max_mib : CONSOLE_OUTPUT_MIB_DEFAULT;
    struct error *error;

    port->name = strdup(config->name);
    if (port->name == NULL)
        return error_errno(ENOMEM, "cannot make the console");
    port->is_terminal = config->console;
    port->unplugged = config->unplugged;
    port->columns = (uint16_t)config->columns;
    port->rows = (uint16_t)config->rows;
    if (config->socket_path != NULL)
        error = port_socket_new(config->socket_path, loop, &port->backend);
    else
        error = port_file_new(config->output_path, max << 20, loop, &port->backend);
    if (error != NULL)
        return error_wrap(error, "ports[%zu].%s", index, config->socket_path != NULL ? "socket_path" : "output_path");
    port->backend->changed = port_changed;
    port->backend->owner = port;
    return NULL;
}

/* Config space has the window of port 0, for drivers without multiport. */
static void note_size(struct console *console)
{
    console->config.cols = console->ports[0].columns;
    console->config.rows = console->ports[0].rows;
}

static void set_queue_sizes(struct console *console, const struct console_config *config)
{
    console->queues[CONTROL_RECEIVE].size_max = CONTROL_RECEIVE_SIZE;
    console->queues[CONTROL_TRANSMIT].size_max = CONTROL_TRANSMIT_SIZE;
    for (size_t i = 0; i < console->port_count; i++) {
        unsigned queue = port_receive_queue(&console->ports[i]);

        console->queues[queue].size_max =
            config->ports[i].socket_path != NULL ? SOCKET_RECEIVE_SIZE : FILE_RECEIVE_SIZE;
        console->queues[queue + 1].size_max = TRANSMIT_SIZE;
    }
}

struct error *virtio_console_new(const struct console_config *config, struct event_loop *loop,
                                 struct virtio_device **device)
{
    if (config->port_count < 1 || config->port_count > CONSOLE_PORTS_MAX)
        return error_new(ERROR_INPUT, "ports: %zu are given: expected 1 to %d", config->port_count, CONSOLE_PORTS_MAX);
    for (size_t i = 0; i < config->port_count; i++) {
        struct error *error = port_check(config, i);

        if (error != NULL)
            return error;
    }

    size_t queue_count = 2 * (config->port_count + 1);
    __attribute__((cleanup(console_cleanup))) struct console *console =
        calloc(1, sizeof(*console) + queue_count * sizeof(*console->queues));
    if (console == NULL || (console->ports = calloc(config->port_count, sizeof(*console->ports))) == NULL)
        return error_errno(ENOMEM, "cannot make the console");

    console->port_count = config->port_count;
    for (size_t i = 0; i < config->port_count; i++) {
        console->ports[i].console = console;

        struct error *error = port_init(&console->ports[i], &config->ports[i], i, loop);
        if (error != NULL)
            return error;
    }
    console->config.max_nr_ports = (uint32_t)config->port_count;
    console->turn.expired = turn_expired;
    set_queue_sizes(console, config);
    console->device.ops = &console_ops;
    console->device.id = "console";
    console->device.features = MULTIPORT;
    for (size_t i = 0; i < console->port_count; i++)
        if (console->ports[i].is_terminal)
            console->device.features |= 1ULL << VIRTIO_CONSOLE_F_SIZE;
    note_size(console);
    console->device.queues = console->queues;
    console->device.queue_count = (unsigned)queue_count;
    *device = &((struct console *)take_pointer(&console))->device;
    return NULL;
}

static struct error *update_check(const struct console_port *port, const struct console_update *update)
{
    if ((update->columns == 0) != (update->rows == 0) || update->columns > UINT16_MAX || update->rows > UINT16_MAX)
        return error_new(ERROR_INPUT, "columns: %u by %u rows, expected 1 to %u of both", update->columns, update->rows,
                         UINT16_MAX);
    if (update->columns != 0 && !port->is_terminal)
        return error_new(ERROR_INPUT, "columns: port \"%s\" is no console, hence has no window", port->name);
    return NULL;
}

struct error *virtio_console_update(struct virtio_device *device, const struct console_update *update)
{
    struct console *console = console_of(device);
    struct console_port *port = NULL;

    for (size_t i = 0; i < console->port_count; i++)
        if (strcmp(console->ports[i].name, update->name) == 0)
            port = &console->ports[i];
    if (port == NULL)
        return error_new(ERROR_INPUT, "name: no port is called \"%s\"", update->name);

    struct error *error = update_check(port, update);
    if (error != NULL)
        return error;
    if (update->has_unplugged)
        console_port_plug(port, update->unplugged);
    if (update->columns != 0) {
        port->columns = (uint16_t)update->columns;
        port->rows = (uint16_t)update->rows;
        console_port_resize(port);
        note_size(console);
        if (port == console->ports && !console->multiport)
            virtio_device_config_changed(device);
        else
            virtio_device_config_shown(device);
    }
    if (is_running(console))
        console_turn_later(console);
    return NULL;
}
