#include "vmm/i8042.h"

#include "vmm/base/cleanup.h"
#include "vmm/metrics.h"

#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>

/* Offsets from I8042_PORT. */
enum { OFFSET_DATA = 0, OFFSET_STATUS = 4 };

enum { STATUS_OUTPUT_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_UNLOCKED = 0x10 };
enum { CONTROL_KEYBOARD_INTERRUPT = 0x01, CONTROL_SYSTEM = 0x04, CONTROL_AUX_DISABLED = 0x20 };
enum { OUTPUT_PORT_NOT_RESET = 0x01 };

enum {
    COMMAND_READ_CONTROL = 0x20,
    COMMAND_WRITE_CONTROL = 0x60,
    COMMAND_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_READ_OUTPUT_PORT = 0xd0,
    COMMAND_WRITE_OUTPUT_PORT = 0xd1,
    COMMAND_WRITE_KEYBOARD_BUFFER = 0xd2,
    COMMAND_WRITE_AUX_BUFFER = 0xd3,
    COMMAND_WRITE_AUX = 0xd4,
    COMMAND_RESET_CPU = 0xfe,
};

enum { KEYBOARD_IDENTIFY = 0xf2, KEYBOARD_RESET = 0xff, KEYBOARD_ACKNOWLEDGE = 0xfa };
enum { TEST_PASSED = 0x55, KEYBOARD_TEST_PASSED = 0x00 };

static void push(struct i8042 *i8042, uint8_t byte)
{
    if (i8042->buffer_count == I8042_BUFFER_SIZE) {
        METRIC_INCREMENT(i8042.error_count);
        return;
    }
    i8042->buffer[(i8042->buffer_start + i8042->buffer_count) % I8042_BUFFER_SIZE] = byte;
    i8042->buffer_count++;
    i8042->status |= STATUS_OUTPUT_FULL;
}

static void raise_interrupt(struct i8042 *i8042)
{
    if (i8042->irq_fd < 0 || !(i8042->control & CONTROL_KEYBOARD_INTERRUPT))
        return;
    if (eventfd_write(i8042->irq_fd, 1) < 0)
        METRIC_INCREMENT(i8042.error_count);
}

static void push_and_interrupt(struct i8042 *i8042, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        push(i8042, bytes[i]);
    raise_interrupt(i8042);
}

/* The next byte; the interrupt again as long as there are more. */
static uint8_t pop(struct i8042 *i8042)
{
    if (i8042->buffer_count == 0)
        return 0;

    uint8_t byte = i8042->buffer[i8042->buffer_start];
    i8042->buffer_start = (i8042->buffer_start + 1) % I8042_BUFFER_SIZE;
    i8042->buffer_count--;
    if (i8042->buffer_count == 0)
        i8042->status &= (uint8_t)~STATUS_OUTPUT_FULL;
    else
        raise_interrupt(i8042);
    return byte;
}

static void reset_cpu(struct i8042 *i8042)
{
    METRIC_INCREMENT(i8042.reset_count);
    i8042->reset(i8042->owner);
}

static void handle_command(struct i8042 *i8042, uint8_t command)
{
    i8042->command = 0;
    switch (command) {
    case COMMAND_READ_CONTROL:
        push(i8042, i8042->control);
        break;
    case COMMAND_TEST:
        push(i8042, TEST_PASSED);
        break;
    case COMMAND_TEST_KEYBOARD:
        push(i8042, KEYBOARD_TEST_PASSED);
        break;
    case COMMAND_READ_OUTPUT_PORT:
        push(i8042, i8042->output_port);
        break;
    case COMMAND_WRITE_CONTROL:
    case COMMAND_WRITE_OUTPUT_PORT:
    case COMMAND_WRITE_KEYBOARD_BUFFER:
    case COMMAND_WRITE_AUX_BUFFER:
    case COMMAND_WRITE_AUX:
        i8042->command = command;
        break;
    case COMMAND_RESET_CPU:
        reset_cpu(i8042);
        break;
    default: /* enabling and disabling ports, and what only real hardware has */
        break;
    }
}

/* A byte for the keyboard: it agrees to everything. */
static void handle_keyboard(struct i8042 *i8042, uint8_t byte)
{
    static const uint8_t acknowledged[] = {KEYBOARD_ACKNOWLEDGE};
    static const uint8_t was_reset[] = {KEYBOARD_ACKNOWLEDGE, 0xaa};
    static const uint8_t identity[] = {KEYBOARD_ACKNOWLEDGE, 0xab, 0x83}; /* an MF2 keyboard */

    switch (byte) {
    case KEYBOARD_RESET:
        push_and_interrupt(i8042, was_reset, sizeof(was_reset));
        break;
    case KEYBOARD_IDENTIFY:
        push_and_interrupt(i8042, identity, sizeof(identity));
        break;
    default:
        push_and_interrupt(i8042, acknowledged, sizeof(acknowledged));
        break;
    }
}

static void handle_data(struct i8042 *i8042, uint8_t byte)
{
    uint8_t command = i8042->command;

    i8042->command = 0;
    switch (command) {
    case COMMAND_WRITE_CONTROL:
        i8042->control = byte;
        break;
    case COMMAND_WRITE_OUTPUT_PORT:
        i8042->output_port = byte;
        if (!(byte & OUTPUT_PORT_NOT_RESET))
            reset_cpu(i8042);
        break;
    case COMMAND_WRITE_KEYBOARD_BUFFER:
        push_and_interrupt(i8042, &byte, 1);
        break;
    case COMMAND_WRITE_AUX_BUFFER:
    case COMMAND_WRITE_AUX: /* no mouse answers */
        break;
    default:
        handle_keyboard(i8042, byte);
        break;
    }
}

static void i8042_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    struct i8042 *i8042 = device;

    memset(data, 0, length);
    if (length != 1 || (offset != OFFSET_DATA && offset != OFFSET_STATUS)) {
        METRIC_INCREMENT(i8042.missed_read_count);
        return;
    }
    METRIC_INCREMENT(i8042.read_count);
    data[0] = offset == OFFSET_DATA ? pop(i8042) : i8042->status;
}

static void i8042_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct i8042 *i8042 = device;

    if (length != 1 || (offset != OFFSET_DATA && offset != OFFSET_STATUS)) {
        METRIC_INCREMENT(i8042.missed_write_count);
        return;
    }
    METRIC_INCREMENT(i8042.write_count);
    if (offset == OFFSET_DATA)
        handle_data(i8042, data[0]);
    else
        handle_command(i8042, data[0]);
}

static void i8042_command_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    i8042_read(device, OFFSET_STATUS + offset, data, length);
}

static void i8042_command_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    i8042_write(device, OFFSET_STATUS + offset, data, length);
}

const struct bus_ops i8042_bus_ops = {.read = i8042_read, .write = i8042_write};
const struct bus_ops i8042_command_bus_ops = {.read = i8042_command_read, .write = i8042_command_write};

void i8042_init(struct i8042 *i8042, void (*reset)(void *owner), void *owner)
{
    *i8042 = (struct i8042){
        .irq_fd = -1,
        .status = STATUS_SYSTEM | STATUS_UNLOCKED,
        .control = CONTROL_KEYBOARD_INTERRUPT | CONTROL_SYSTEM | CONTROL_AUX_DISABLED,
        .output_port = OUTPUT_PORT_NOT_RESET,
        .reset = reset,
        .owner = owner,
    };
}

struct error *i8042_send_ctrl_alt_del(struct i8042 *i8042)
{
    /* Make codes of scan code set 2: left Ctrl, left Alt, Delete (extended). */
    static const uint8_t keys[] = {0x14, 0x11, 0xe0, 0x71};

    if (!(i8042->control & CONTROL_KEYBOARD_INTERRUPT))
        return error_new(ERROR_STATE, "SendCtrlAltDel: the guest has disabled the keyboard's interrupt");
    if (I8042_BUFFER_SIZE - i8042->buffer_count < sizeof(keys))
        return error_new(ERROR_STATE, "SendCtrlAltDel: the guest has not read the keys sent before");
    push_and_interrupt(i8042, keys, sizeof(keys));
    return NULL;
}
