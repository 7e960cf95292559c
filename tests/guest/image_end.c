/* An image of a MiB; reads its last page once a byte has come over the serial port. */
#include "tests/guest/lib/guest.h"

static volatile uint8_t padding[1 << 20] __attribute__((section(".padding"), aligned(4096))) = {1};

void guest_main(void)
{
    serial_puts("waiting\n");
    serial_get();
    serial_result("last", padding[sizeof(padding) - 1]);
}
