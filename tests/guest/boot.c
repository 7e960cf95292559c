/* Prints what the boot protocol says: the initrd, the ACPI tables, the command line's length. */
#include "tests/guest/lib/guest.h"

static uint32_t field32(unsigned offset)
{
    uint32_t value;

    memcpy(&value, zero_page() + offset, sizeof(value));
    return value;
}

void guest_main(void)
{
    enum { LOADER = 0x210, RAMDISK = 0x218, RAMDISK_SIZE = 0x21c, ACPI_RSDP = 0x070, BOOT_FLAG = 0x1fe };
    uint64_t rsdp = field32(ACPI_RSDP) | (uint64_t)field32(ACPI_RSDP + 4) << 32;
    uint32_t initrd = field32(RAMDISK), initrd_size = field32(RAMDISK_SIZE);

    serial_result("loader", zero_page()[LOADER]);
    serial_result("boot flag", field32(BOOT_FLAG) & 0xffff);
    serial_result("cmdline", text_length(cmdline()));
    serial_result("initrd", initrd_size);
    if (initrd_size != 0) {
        const char *bytes = (const char *)(uint64_t)initrd;

        serial_puts(initrd % 4096 == 0 ? "aligned " : "unaligned ");
        serial_put(bytes[0]);
        serial_put(bytes[initrd_size - 1]);
        serial_result(" rest", initrd_size % 4096 == 0 ? 0 : (uint8_t)bytes[initrd_size]);
    }
    if (rsdp != 0)
        serial_puts(memcmp((const void *)rsdp, "RSD PTR ", 8) == 0 ? "rsdp ok\n" : "rsdp BAD\n");
}
