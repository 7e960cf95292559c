/* ACPI tables (ACPI 6.4): RSDP, XSDT, FADT of a hardware-reduced machine, MADT, DSDT. */
#pragma once

#include "vmm/arch/arch.h"

/* Writes them from LAYOUT_ACPI on; `*rsdp` is where the RSDP is. ERROR_INTERNAL when they do not fit. */
struct error *acpi_write(const struct guest_memory *memory, const struct arch_boot *boot, uint64_t *rsdp);
