/* The state in which vCPU 0 meets the kernel's first instruction, and what of it lies in guest memory. */
#pragma once

#include "vmm/base/error.h"
#include "vmm/guest_memory.h"

/* Writes the GDT and the page tables that the 64-bit entry needs. ERROR_INTERNAL when there is no memory there. */
struct error *long_mode_tables_write(const struct guest_memory *memory);
