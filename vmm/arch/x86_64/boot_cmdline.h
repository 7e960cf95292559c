/* The kernel command line's last part: the virtio-mmio devices, for kernels that do not learn of them from ACPI. */
#pragma once

#include "vmm/arch/arch.h"

/* Whether `cmdline` has the word `word` before "--", where words for init begin. */
bool boot_cmdline_has(const char *cmdline, const char *word);

/*
 * Writes `cmdline` with a virtio_mmio.device= for each slot, before "--" if there is one, as a string of at most
 * `max` bytes with its NUL. Fails, naming boot_args, when it is longer.
 */
struct error *boot_cmdline_write(const char *cmdline, const struct arch_virtio_slot *slots, size_t slot_count, char *to,
                                 size_t max);
