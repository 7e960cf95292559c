/* Starts the interval timer's third channel and waits until it has counted. */
#include "tests/guest/lib/guest.h"

enum { COUNTER = 0x42, COMMAND = 0x43, GATE = 0x61, CHANNEL_2_WORD_MODE_0 = 0xb0, ATTEMPTS = 10000 };

static unsigned counter(void)
{
    unsigned low = port_read8(COUNTER);

    return low | (unsigned)port_read8(COUNTER) << 8;
}

void guest_main(void)
{
    port_write8(GATE, (uint8_t)((port_read8(GATE) & ~2u) | 1));
    port_write8(COMMAND, CHANNEL_2_WORD_MODE_0);
    port_write8(COUNTER, 0xff);
    port_write8(COUNTER, 0xff);

    unsigned first = counter();
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        if (counter() < first) {
            serial_puts("the timer counts\n");
            return;
        }
    }
    serial_puts("the timer stands still\n");
}
