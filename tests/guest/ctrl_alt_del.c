/* Prints the keyboard's scan codes until the code of Delete has come. */
#include "tests/guest/lib/guest.h"

enum { DATA = 0x60, STATUS = 0x64, OUTPUT_FULL = 1, DELETE_SET_1 = 0x53, DELETE_SET_2 = 0x71 };

void guest_main(void)
{
    uint8_t code;

    serial_puts("waiting\n");
    do {
        while ((port_read8(STATUS) & OUTPUT_FULL) == 0)
            ;
        code = port_read8(DATA);
        serial_result("key", code);
    } while (code != DELETE_SET_1 && code != DELETE_SET_2);
}
