#include "vmm/arch/x86_64/e820.h"

#include "vmm/arch/x86_64/layout.h"

size_t e820_build(const struct guest_memory *memory, struct boot_e820_entry *entries)
{
    size_t count = 0;

    entries[count++] = (struct boot_e820_entry){0, LAYOUT_MP_TABLE, E820_RAM};
    entries[count++] = (struct boot_e820_entry){LAYOUT_MP_TABLE, LAYOUT_MP_TABLE_END - LAYOUT_MP_TABLE, E820_RESERVED};
    entries[count++] = (struct boot_e820_entry){LAYOUT_ACPI, LAYOUT_KERNEL_MIN - LAYOUT_ACPI, E820_RESERVED};
    for (size_t i = 0; i < memory->count; i++) {
        uint64_t start = memory->regions[i].gpa;
        uint64_t end = start + memory->regions[i].size;

        if (start < LAYOUT_KERNEL_MIN)
            start = LAYOUT_KERNEL_MIN;
        if (start < end)
            entries[count++] = (struct boot_e820_entry){start, end - start, E820_RAM};
    }
    return count;
}
