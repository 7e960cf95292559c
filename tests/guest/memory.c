/* Writes and reads back the first and last quadword of every usable region, and looks just beyond the last one. */
#include "tests/guest/lib/guest.h"

static bool probe(uint64_t gpa)
{
    volatile uint64_t *at = (volatile uint64_t *)gpa;
    uint64_t before, read_back;

    guest_expect(guest_map(gpa), "out of page tables");
    before = *at;
    *at = ~gpa;
    read_back = *at;
    *at = before;
    return read_back == ~gpa;
}

void guest_main(void)
{
    uint64_t total = 0, end = 0;

    for (unsigned i = 0; i < e820_count(); i++) {
        struct e820_entry entry = e820_at(i);

        if (entry.type != 1)
            continue;
        serial_puts("ram ");
        serial_hex(entry.start);
        serial_put(' ');
        serial_hex(entry.size);
        serial_puts(probe(entry.start) && probe(entry.start + entry.size - 8) ? " ok\n" : " BAD\n");
        total += entry.size;
        end = entry.start + entry.size;
    }
    serial_result("total", total);
    guest_expect(guest_map(end), "out of page tables");
    serial_puts(probe(end) ? "beyond: RAM\n" : "beyond: nothing\n");
}
