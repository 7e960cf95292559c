/* What the kernel is handed at LAYOUT_BOOT_INFO: Linux's zero page, or the PVH start info. */
#pragma once

#include "vmm/arch/arch.h"

/* `rsdp` 0: no ACPI tables. ERROR_INTERNAL when there is no memory there. */
struct error *zero_page_write(const struct guest_memory *memory, const struct arch_boot *boot, uint64_t rsdp);
struct error *pvh_start_info_write(const struct guest_memory *memory, const struct arch_boot *boot, uint64_t rsdp);
