/* Guest memory and image files for the tests of the boot code. */
#pragma once

#include "tests/unit/harness.h"

#include "vmm/arch/arch.h"

#include <stdbool.h>

/* Guest memory of `mib`, laid out as a machine's; the one before is given back. */
struct guest_memory *boot_memory(uint64_t mib);

/* cmocka teardown: gives the memory back, closes the files. */
int boot_teardown(void **state);

/* A regular file of these bytes, open until the teardown. */
int boot_file(const void *bytes, size_t size);

/* Whether [gpa, gpa + size) of `memory` holds nothing but `value`. */
bool boot_memory_is(const struct guest_memory *memory, uint64_t gpa, uint64_t size, uint8_t value);

/* Whether no page of `memory` above 1 MiB was ever touched. */
bool boot_memory_untouched(const struct guest_memory *memory);

/* Fills `bytes` with a pattern that differs from page to page. */
void boot_pattern(uint8_t *bytes, size_t size);

/* What a table's little-endian field of `size` bytes holds. */
uint64_t boot_number(const uint8_t *at, size_t size);
/* The sum of bytes that is 0 where a table is whole. */
uint8_t boot_sum(const uint8_t *bytes, size_t size);
/* What the tables are made of: slots one after the other, at most 64. */
struct arch_boot boot_with(uint32_t vcpus, size_t slot_count, bool serial);
