#include "tests/unit/harness.h"

#include "tests/unit/console_driver.h"

#include "vmm/virtio/devices.h"

#include <linux/virtio_ring.h>
#include <string.h>

#define CONTROL_RX_GPA 0x100000ULL
#define CONTROL_TX_GPA 0x110000ULL
enum { CONTROL_BUFFER = 128, CONTROL_BUFFERS = 8 };

void console_driver_give_control(struct console_driver *console, unsigned count, uint32_t length)
{
    struct guest_driver *driver = &console->driver;

    for (unsigned i = 0; i < count; i++) {
        const struct guest_buffer buffer = {CONTROL_RX_GPA + i * CONTROL_BUFFER, length, true};

        guest_ring_add(&driver->rings[CONTROL_RX], &buffer, 1);
    }
    guest_driver_notify(driver, CONTROL_RX);
}

void console_driver_start(struct console_driver *console, const struct console_config *config, uint64_t features)
{
    struct virtio_device *device = NULL;

    assert_no_error(virtio_console_new(config, console->driver.loop, &device));
    guest_driver_start(&console->driver, device, features);
    if ((features & MULTIPORT) != 0)
        console_driver_give_control(console, CONTROL_BUFFERS, CONTROL_BUFFER);
    console_driver_settle(console);
}

static void take_messages(struct console_driver *console)
{
    struct guest_ring *ring = &console->driver.rings[CONTROL_RX];
    uint16_t head;
    uint32_t length;

    while (guest_ring_has_used(ring)) {
        struct console_message *message = &console->messages[console->message_count++];
        struct virtio_console_control control;

        assert_true(console->message_count < MESSAGES_MAX);
        assert_true(guest_ring_take_used(ring, &head, &length));
        assert_in_range(length, sizeof(control), sizeof(control) + sizeof(message->text) - 1);

        const struct guest_buffer buffer = {ring->descriptors[head].addr, CONTROL_BUFFER, true};
        const uint8_t *data = guest_at(&console->driver.memory, buffer.gpa, length);
        memcpy(&control, data, sizeof(control));
        *message = (struct console_message){.id = control.id, .event = control.event, .value = control.value};
        memcpy(message->text, data + sizeof(control), length - sizeof(control));
        guest_ring_add(ring, &buffer, 1);
        guest_driver_notify(&console->driver, CONTROL_RX);
    }
}

void console_driver_settle(struct console_driver *console)
{
    size_t before;

    do {
        before = console->message_count;
        guest_driver_settle(&console->driver);
        if (console->driver.device->active)
            take_messages(console);
    } while (console->message_count != before);
}

void console_driver_say(struct console_driver *console, uint32_t id, uint16_t event, uint16_t value)
{
    const struct virtio_console_control message = {.id = id, .event = event, .value = value};
    const struct guest_buffer buffer = {CONTROL_TX_GPA, sizeof(message), false};

    memcpy(guest_at(&console->driver.memory, buffer.gpa, sizeof(message)), &message, sizeof(message));
    guest_ring_add(&console->driver.rings[CONTROL_TX], &buffer, 1);
    guest_driver_notify(&console->driver, CONTROL_TX);
    guest_driver_wait_used(&console->driver, CONTROL_TX, NULL);
    console_driver_settle(console);
}

void console_driver_shake_hands(struct console_driver *console, size_t port_count)
{
    console_driver_say(console, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (uint32_t i = 0; i < port_count; i++)
        console_driver_say(console, i, VIRTIO_CONSOLE_PORT_READY, 1);
    console->messages_checked = console->message_count;
}

void console_driver_expect(struct console_driver *console, uint32_t id, uint16_t event, uint16_t value)
{
    assert_true(console->messages_checked < console->message_count);

    const struct console_message *message = &console->messages[console->messages_checked++];
    assert_int_equal(message->id, id);
    assert_int_equal(message->event, event);
    assert_int_equal(message->value, value);
}

void console_driver_expect_silence(struct console_driver *console)
{
    assert_int_equal(console->messages_checked, console->message_count);
}
