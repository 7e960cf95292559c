/* Counts for ever. 'p' on the serial port prints the count, 'q' resets. */
#include "tests/guest/lib/guest.h"

void guest_main(void)
{
    serial_puts("spinning\n");
    for (uint64_t count = 1;; count++) {
        if (!serial_ready())
            continue;
        switch (serial_get()) {
        case 'p':
            serial_result("count", count);
            break;
        case 'q':
            return;
        default:
            break;
        }
    }
}
