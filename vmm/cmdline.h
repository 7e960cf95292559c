/* The guest kernel's command line, but for the virtio-mmio devices, which arch_boot_write adds. */
#pragma once

#include <stddef.h>

#include "vmm/base/error.h"
#include "vmm/config.h"

/*
 * Writes boot_args, or the default when there are none, pci=off unless boot_args speak of pci=, and root= with ro or
 * rw for a root drive or pmem device. What boot_args have after a word "--" belongs to init and stays last. Fails,
 * naming boot_args, when it does not fit `size` bytes.
 */
struct error *cmdline_build(const struct vm_config *config, char *text, size_t size);

/* Whether `boot_args` can be on a command line: printable ASCII, not longer than one. */
struct error *cmdline_check(const char *boot_args);
