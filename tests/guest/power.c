/*
 * Ends by ACPI's registers: off or reset says how. With neither it waits for the power button: its interrupt, as the
 * local APIC requests it (it is never taken), then ends.
 */
#include "tests/guest/lib/guest.h"

enum { SLEEP_CONTROL = 0x600, SLEEP_ENABLE = 0x20, S5 = 5 << 2, RESET_REGISTER = 0x602, BUTTON_GSI = 3, VECTOR = 0x41 };

static const uint64_t ioapic = 0xfec00000, local_apic = 0xfee00000;

static void ioapic_write(uint32_t index, uint32_t value)
{
    mmio_write32(ioapic, index);
    mmio_write32(ioapic + 0x10, value);
}

static bool button_is_requested(void)
{
    return (mmio_read32(local_apic + 0x200 + VECTOR / 32 * 0x10) >> VECTOR % 32 & 1) != 0;
}

void guest_main(void)
{
    if (cmdline_has("off")) {
        port_write8(SLEEP_CONTROL, S5); /* nothing yet */
        serial_puts("going\n");
        port_write8(SLEEP_CONTROL, S5 | SLEEP_ENABLE);
    } else if (cmdline_has("reset")) {
        port_write8(RESET_REGISTER, 0); /* nothing yet */
        serial_puts("going\n");
        port_write8(RESET_REGISTER, 1);
    } else {
        mmio_write32(local_apic + 0xf0, 0x1ff); /* enabled */
        ioapic_write(0x10 + 2 * BUTTON_GSI + 1, 0);
        ioapic_write(0x10 + 2 * BUTTON_GSI, VECTOR);
        serial_puts("waiting\n");
        while (!button_is_requested())
            ;
        serial_puts("pressed\n");
        port_write8(SLEEP_CONTROL, S5 | SLEEP_ENABLE);
    }
    guest_fail("still here");
}
