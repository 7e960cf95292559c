#include "vmm/serial.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/output_write.h"
#include "vmm/metrics.h"
#include "vmm/output.h"
#include "vmm/terminal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* Register offsets. With DLAB set in the line control register, 0 and 1 are the divisor. */
enum {
    DATA = 0,
    INTERRUPT_ENABLE = 1,
    IDENTIFY_OR_FIFO = 2,
    LINE_CONTROL = 3,
    MODEM_CONTROL = 4,
    LINE_STATUS = 5,
    MODEM_STATUS = 6,
    SCRATCH = 7
};

enum { IER_RECEIVED = 0x01, IER_TRANSMITTER = 0x02, IER_MASK = 0x0f };
enum { IIR_NONE = 0x01, IIR_TRANSMITTER = 0x02, IIR_RECEIVED = 0x04, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RECEIVE = 0x02 };
enum { LCR_DLAB = 0x80, LCR_8N1 = 0x03 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum { LSR_DATA_READY = 0x01, LSR_TRANSMITTER_EMPTY = 0x60 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

/* A pipe that polls as writable takes this much without blocking (pipe(7)), whatever its flags. */
enum { WRITE_MAX = PIPE_BUF };
enum { FLUSH_DELAY_US = 1000 };

static void raise_interrupt(struct serial *serial)
{
    if (serial->irq_fd >= 0 && eventfd_write(serial->irq_fd, 1) < 0)
        METRIC_INCREMENT(uart.error_count);
}

static bool received_pending(const struct serial *serial)
{
    return serial->receive_count > 0 && (serial->interrupt_enable & IER_RECEIVED);
}

static bool transmitter_pending(const struct serial *serial)
{
    return serial->transmitter_interrupt && (serial->interrupt_enable & IER_TRANSMITTER);
}

/* --- Guest to host --- */

static unsigned ring_chunk(const struct serial *serial)
{
    unsigned chunk = SERIAL_RING_SIZE - serial->ring_start;

    if (chunk > serial->ring_count)
        chunk = serial->ring_count;
    return chunk < WRITE_MAX ? chunk : WRITE_MAX;
}

static void drop_output(struct serial *serial)
{
    METRIC_ADD(uart.missed_write_count, serial->ring_count);
    serial->ring_start = 0;
    serial->ring_count = 0;
}

/* One write. False when the descriptor takes no more for now or ever. */
static bool write_chunk(struct serial *serial)
{
    unsigned chunk = ring_chunk(serial);

    if (chunk > serial->file_room)
        chunk = (unsigned)serial->file_room;
    if (chunk == 0) {
        drop_output(serial);
        return false;
    }

    ssize_t written = output_write(serial->output.fd, serial->ring + serial->ring_start, chunk);
    if (written < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return false;
        /* No reader, disk full, I/O error: what the guest says is lost, the guest is not. */
        METRIC_INCREMENT(uart.error_count);
        log_warning("serial output failed: %s", strerror(errno));
        drop_output(serial);
        return false;
    }
    METRIC_INCREMENT(uart.flush_count);
    serial->ring_start = (serial->ring_start + (unsigned)written) % SERIAL_RING_SIZE;
    serial->ring_count -= (unsigned)written;
    if (!serial->output_pollable)
        serial->file_room -= (uint64_t)written;
    return serial->ring_count > 0;
}

static void output_ready(struct event_source *source, uint32_t events)
{
    struct serial *serial = container_of(source, struct serial, output);

    serial->last_flush_us = clock_monotonic_us();
    event_timer_cancel(&serial->flush_timer);
    if ((events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLOUT)) {
        /* Nobody reads any more: stop listening, or the loop would spin. */
        event_source_remove(source);
        serial->output_failed = true;
        drop_output(serial);
        return;
    }
    write_chunk(serial);
    event_source_update(source, serial->ring_count > 0 ? EPOLLOUT : 0);
}

static void flush(struct serial *serial)
{
    if (serial->output_pollable) {
        event_source_update(&serial->output, EPOLLOUT);
        return;
    }
    serial->last_flush_us = clock_monotonic_us();
    event_timer_cancel(&serial->flush_timer);
    while (write_chunk(serial))
        ;
}

static void flush_timer_expired(struct event_timer *timer)
{
    flush(container_of(timer, struct serial, flush_timer));
}

/*
 * A burst leaves in one write: at its newline, when half the ring is full, or a millisecond after its first byte.
 * The first byte after a pause leaves at once, so that somebody who waits for it does not wait for the timer.
 */
static void flush_when_due(struct serial *serial, uint8_t byte)
{
    if (serial->output.events != 0 && serial->output_pollable)
        return;

    uint64_t now = clock_monotonic_us();
    if (byte == '\n' || serial->ring_count >= SERIAL_RING_SIZE / 2 || now - serial->last_flush_us > FLUSH_DELAY_US)
        flush(serial);
    else if (serial->flush_timer.loop == NULL)
        event_timer_set(serial->loop, &serial->flush_timer, now + FLUSH_DELAY_US);
}

static void transmit(struct serial *serial, uint8_t byte)
{
    METRIC_INCREMENT(uart.write_count);
    if (serial->bucket.limited && token_bucket_take(&serial->bucket, 1, clock_monotonic_us()) == 0) {
        METRIC_INCREMENT(uart.rate_limiter_dropped_bytes);
        return;
    }
    if (serial->output.fd < 0 || serial->output_failed || serial->ring_count == SERIAL_RING_SIZE) {
        METRIC_INCREMENT(uart.missed_write_count);
        return;
    }
    serial->ring[(serial->ring_start + serial->ring_count) % SERIAL_RING_SIZE] = byte;
    serial->ring_count++;
    flush_when_due(serial, byte);
}

/* --- Host to guest --- */

static void update_input(struct serial *serial)
{
    bool wanted = serial->receive_count < SERIAL_FIFO_SIZE && !(serial->modem_control & MCR_LOOP);

    if (!serial->input_open)
        return;
    /*
     * A source with no events still reports a hang-up, over and over: a full FIFO takes it out of the loop. It was
     * watched before, so watching it again fails only for want of memory; then the guest gets no more input.
     */
    if (wanted && serial->input.loop == NULL)
        error_free(event_source_add(serial->loop, &serial->input, EPOLLIN));
    else if (!wanted)
        event_source_remove(&serial->input);
}

static void receive(struct serial *serial, uint8_t byte)
{
    serial->receive[(serial->receive_start + serial->receive_count) % SERIAL_FIFO_SIZE] = byte;
    serial->receive_count++;
}

static void input_ready(struct event_source *source, uint32_t events)
{
    struct serial *serial = container_of(source, struct serial, input);
    uint8_t bytes[SERIAL_FIFO_SIZE];

    (void)events;
    ssize_t count = read(source->fd, bytes, SERIAL_FIFO_SIZE - serial->receive_count);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        /* End of input, or a terminal that is gone. */
        event_source_remove(source);
        serial->input_open = false;
        return;
    }
    for (ssize_t i = 0; i < count; i++)
        receive(serial, bytes[i]);
    update_input(serial);
    if (received_pending(serial))
        raise_interrupt(serial);
}

/* --- Registers --- */

static uint8_t read_data(struct serial *serial)
{
    if (serial->receive_count == 0)
        return 0;

    uint8_t byte = serial->receive[serial->receive_start];
    serial->receive_start = (serial->receive_start + 1) % SERIAL_FIFO_SIZE;
    serial->receive_count--;
    METRIC_INCREMENT(uart.read_count);
    update_input(serial);
    return byte;
}

/* The receiver's interrupt goes before the transmitter's, which reading it clears. */
static uint8_t read_interrupt_identity(struct serial *serial)
{
    uint8_t fifo = serial->fifo_enabled ? IIR_FIFO : 0;

    if (received_pending(serial))
        return fifo | IIR_RECEIVED;
    if (transmitter_pending(serial)) {
        serial->transmitter_interrupt = false;
        return fifo | IIR_TRANSMITTER;
    }
    return fifo | IIR_NONE;
}

/* In loopback the modem's inputs are our own outputs; else a modem that is there and ready. */
static uint8_t read_modem_status(const struct serial *serial)
{
    static const struct {
        uint8_t output, input;
    } loop[] = {{MCR_RTS, MSR_CTS}, {MCR_DTR, MSR_DSR}, {MCR_OUT1, MSR_RI}, {MCR_OUT2, MSR_DCD}};
    uint8_t status = 0;

    if (!(serial->modem_control & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    for (size_t i = 0; i < array_length(loop); i++)
        if (serial->modem_control & loop[i].output)
            status |= loop[i].input;
    return status;
}

static void write_data(struct serial *serial, uint8_t byte)
{
    if (serial->modem_control & MCR_LOOP) {
        if (serial->receive_count < SERIAL_FIFO_SIZE)
            receive(serial, byte);
    } else {
        transmit(serial, byte);
    }
    /* To the guest the byte is gone at once. */
    serial->transmitter_interrupt = true;
    if (transmitter_pending(serial) || received_pending(serial))
        raise_interrupt(serial);
}

static void write_interrupt_enable(struct serial *serial, uint8_t value)
{
    uint8_t newly = value & (uint8_t)~serial->interrupt_enable;

    serial->interrupt_enable = value & IER_MASK;
    if (newly & IER_TRANSMITTER)
        serial->transmitter_interrupt = true;
    if (((newly & IER_RECEIVED) && received_pending(serial)) || (newly & IER_TRANSMITTER))
        raise_interrupt(serial);
}

static void write_fifo_control(struct serial *serial, uint8_t value)
{
    serial->fifo_enabled = (value & FCR_ENABLE) != 0;
    if (value & FCR_CLEAR_RECEIVE) {
        serial->receive_count = 0;
        update_input(serial);
    }
}

static uint8_t read_register(struct serial *serial, uint64_t offset)
{
    bool divisor = (serial->line_control & LCR_DLAB) != 0;

    switch (offset) {
    case DATA:
        return divisor ? (uint8_t)serial->divisor : read_data(serial);
    case INTERRUPT_ENABLE:
        return divisor ? (uint8_t)(serial->divisor >> 8) : serial->interrupt_enable;
    case IDENTIFY_OR_FIFO:
        return read_interrupt_identity(serial);
    case LINE_CONTROL:
        return serial->line_control;
    case MODEM_CONTROL:
        return serial->modem_control;
    case LINE_STATUS:
        return LSR_TRANSMITTER_EMPTY | (serial->receive_count > 0 ? LSR_DATA_READY : 0);
    case MODEM_STATUS:
        return read_modem_status(serial);
    default:
        return serial->scratch;
    }
}

static void write_register(struct serial *serial, uint64_t offset, uint8_t value)
{
    bool divisor = (serial->line_control & LCR_DLAB) != 0;

    switch (offset) {
    case DATA:
        if (divisor)
            serial->divisor = (uint16_t)((serial->divisor & 0xff00) | value);
        else
            write_data(serial, value);
        break;
    case INTERRUPT_ENABLE:
        if (divisor)
            serial->divisor = (uint16_t)((serial->divisor & 0x00ff) | value << 8);
        else
            write_interrupt_enable(serial, value);
        break;
    case IDENTIFY_OR_FIFO:
        write_fifo_control(serial, value);
        break;
    case LINE_CONTROL:
        serial->line_control = value;
        break;
    case MODEM_CONTROL:
        serial->modem_control = value & MCR_MASK;
        update_input(serial);
        break;
    case SCRATCH:
        serial->scratch = value;
        break;
    default: /* the status registers are read-only */
        METRIC_INCREMENT(uart.error_count);
        break;
    }
}

/* The registers are a byte wide; a wider access is none that a driver makes. */
static void serial_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    memset(data, 0xff, length);
    if (length == 1)
        data[0] = read_register(device, offset);
    else
        METRIC_INCREMENT(uart.missed_read_count);
}

static void serial_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    if (length == 1)
        write_register(device, offset, data[0]);
    else
        METRIC_INCREMENT(uart.missed_write_count);
}

const struct bus_ops serial_bus_ops = {.read = serial_read, .write = serial_write};

/* --- Set-up --- */

void serial_init(struct serial *serial, struct event_loop *loop, uint8_t ring[SERIAL_RING_SIZE])
{
    serial->loop = loop;
    serial->ring = ring;
    serial->irq_fd = -1;
    serial->output.fd = -1;
    serial->output.ready = output_ready;
    serial->input.fd = -1;
    serial->input.ready = input_ready;
    serial->flush_timer.expired = flush_timer_expired;
    serial->line_control = LCR_8N1;
    serial->modem_control = MCR_OUT2;
    serial->divisor = 12; /* 9600 baud */
}

struct error *serial_check(const struct serial_config *config)
{
    cleanup_fd int fd = -1;

    return config->serial_out_path == NULL ? NULL : output_open("serial_out_path", config->serial_out_path, &fd);
}

static struct error *watch_output(struct serial *serial)
{
    struct stat status;

    serial->file_room = UINT64_MAX;
    serial->output_failed = false;
    serial->output_pollable = true;
    if (fstat(serial->output.fd, &status) < 0)
        return error_errno(errno, "serial_out_path: cannot examine the output");
    if (S_ISREG(status.st_mode))
        serial->file_room = SERIAL_FILE_MAX;

    struct error *error = event_source_add(serial->loop, &serial->output, 0);
    if (error != NULL && error->code == EPERM) {
        /* epoll does not take what is always ready: regular files, /dev/null. */
        serial->output_pollable = false;
        error_free(error);
        error = NULL;
    }
    return error;
}

static void open_input(struct serial *serial)
{
    serial->input.fd = STDIN_FILENO;
    if (!terminal_make_raw(STDIN_FILENO))
        return;

    /* EPERM: a file or /dev/null. Neither types anything. */
    struct error *error = event_source_add(serial->loop, &serial->input, EPOLLIN);
    serial->input_open = error == NULL;
    error_free(error);
}

struct error *serial_open(struct serial *serial, const struct serial_config *config)
{
    serial_close(serial);
    token_bucket_init(&serial->bucket, &config->rate_limiter, clock_monotonic_us());
    if (config->serial_out_path != NULL) {
        struct error *error = output_open("serial_out_path", config->serial_out_path, &serial->output.fd);

        if (error != NULL)
            return error;
        serial->owns_output = true;
        return watch_output(serial);
    }
    serial->output.fd = STDOUT_FILENO;
    open_input(serial);
    return watch_output(serial);
}

/* Whether a write would not block, now. */
static bool output_writable(const struct serial *serial)
{
    struct pollfd poll_fd = {.fd = serial->output.fd, .events = POLLOUT};

    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLOUT);
}

void serial_close(struct serial *serial)
{
    while (serial->output.fd >= 0 && serial->ring_count > 0 && output_writable(serial) && write_chunk(serial))
        ;
    event_timer_cancel(&serial->flush_timer);
    event_source_remove(&serial->output);
    event_source_remove(&serial->input);
    if (serial->owns_output)
        fd_close(&serial->output.fd);
    if (serial->input.fd >= 0)
        terminal_restore();
    serial->owns_output = false;
    serial->output.fd = -1;
    serial->input.fd = -1;
    serial->input_open = false;
}
