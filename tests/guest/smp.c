/* Starts the other processors= (default 2 in all) by INIT and SIPI; each adds one to a word of low memory and rests. */
#include "tests/guest/lib/guest.h"

enum { VECTOR = 0x08, TRAMPOLINE = VECTOR << 12, FLAG = 0x8800, ICR_LOW = 0x300, ICR_HIGH = 0x310, SPURIOUS = 0xf0 };

static const uint64_t lapic_gpa = 0xfee00000;
/* cli; lock incw cs:0x800; hlt; jmp to the hlt. Real mode, CS = TRAMPOLINE >> 4. */
static const uint8_t trampoline[] = {0xfa, 0x2e, 0xf0, 0xff, 0x06, 0x00, 0x08, 0xf4, 0xeb, 0xfd};

void guest_main(void)
{
    volatile uint16_t *flag = (volatile uint16_t *)FLAG;
    uint64_t count = cmdline_number("processors", 2);

    memcpy((void *)TRAMPOLINE, trampoline, sizeof(trampoline));
    *flag = 0;
    mmio_write32(lapic_gpa + SPURIOUS, 0x1ff); /* software-enabled */
    for (uint64_t id = 1; id < count; id++) {
        mmio_write32(lapic_gpa + ICR_HIGH, (uint32_t)id << 24);
        mmio_write32(lapic_gpa + ICR_LOW, 0x4500); /* INIT, assert */
        mmio_write32(lapic_gpa + ICR_HIGH, (uint32_t)id << 24);
        mmio_write32(lapic_gpa + ICR_LOW, 0x4600 | VECTOR); /* SIPI */
    }
    serial_puts("started\n");
    while (*flag != count - 1)
        __asm__ volatile("pause");
    serial_puts(count == 2 ? "second processor runs\n" : "all processors run\n");
}
