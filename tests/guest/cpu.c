/* Says what the processor says: CPUID leaf= subleaf=, and the model-specific register msr= if that is given. */
#include "tests/guest/lib/guest.h"

static uint64_t msr_read(uint32_t index)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

void guest_main(void)
{
    uint32_t eax = (uint32_t)cmdline_number("leaf", 0), ebx = 0, ecx = (uint32_t)cmdline_number("subleaf", 0), edx = 0;
    uint32_t msr = (uint32_t)cmdline_number("msr", 0);

    __asm__ volatile("cpuid" : "+a"(eax), "+b"(ebx), "+c"(ecx), "+d"(edx));
    serial_result("eax", eax);
    serial_result("ebx", ebx);
    serial_result("ecx", ecx);
    serial_result("edx", edx);
    if (msr != 0)
        serial_result("msr", msr_read(msr));
    serial_puts("done\n");
}
