/* Says where it is and resets. */
#include "tests/guest/lib/guest.h"

void guest_main(void)
{
    serial_puts("hello\ncmdline: ");
    serial_puts(cmdline());
    serial_put('\n');
    if (cmdline_has("boot_timer"))
        boot_timer_write();
}
