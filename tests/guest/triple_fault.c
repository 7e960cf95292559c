/* Dies of an exception that nobody handles. */
#include "tests/guest/lib/guest.h"

void guest_main(void)
{
    serial_puts("falling\n");
    guest_triple_fault();
}
