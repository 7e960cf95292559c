/* The memory map that the zero page and the PVH start info carry. */
#pragma once

#include "vmm/guest_memory.h"

#include <asm/bootparam.h>
#include <stddef.h>

enum { E820_ENTRIES_MAX = 3 + GUEST_REGIONS_MAX, E820_RAM = 1, E820_RESERVED = 2 };

/* Fills `entries` (room for E820_ENTRIES_MAX) by ascending address; returns how many. */
size_t e820_build(const struct guest_memory *memory, struct boot_e820_entry *entries);
