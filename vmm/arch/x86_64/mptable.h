/* The Intel MultiProcessor table (specification 1.4), for kernels without ACPI. */
#pragma once

#include "vmm/arch/arch.h"

/* Writes floating pointer and table at LAYOUT_MP_TABLE. ERROR_INTERNAL when they do not fit. */
struct error *mptable_write(const struct guest_memory *memory, const struct arch_boot *boot);
