/* Prints the console's ports, then sends back what arrives on the port "echo" until its peer goes away. */
#include "tests/guest/lib/console.h"

static struct console console;
static uint8_t bytes[4096];

void guest_main(void)
{
    struct console_port *echo;
    uint64_t total = 0;
    uint32_t length;

    guest_expect(console_open(&console), "no console");
    for (uint32_t i = 0; i < console.port_count; i++) {
        serial_puts("port ");
        serial_puts(console.ports[i].name);
        serial_puts(console.ports[i].terminal ? " console\n" : "\n");
    }
    echo = console_find(&console, "echo");
    while (!echo->host_open)
        console_poll(&console);
    serial_puts("peer came\n");
    if (cmdline_has("late"))
        serial_get();
    console_set_open(&console, echo, true);
    for (;;) {
        bool open = echo->host_open;

        length = console_read(&console, echo, bytes, sizeof(bytes));
        if (length == 0 && !open)
            break; /* it was closed before we found nothing */
        console_write(&console, echo, bytes, length);
        total += length;
        console_poll(&console);
    }
    serial_result("peer went after", total);
    if (cmdline_has("log"))
        console_write(&console, console_find(&console, "log"), "to the log\n", 11);
}
