/*
 * A bus: which device answers at which address. A machine has two, ports (PIO) and guest-physical memory (MMIO).
 * Ranges are added and removed only while no vCPU runs, so bus_find needs no lock; the devices behind it need the event
 * loop's.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"

enum { BUS_RANGES_MAX = 32 };

/* `offset` is relative to the range's start; `length` is 1 to 8. read fills all of `data`. */
struct bus_ops {
    void (*read)(void *device, uint64_t offset, uint8_t *data, uint32_t length);
    void (*write)(void *device, uint64_t offset, const uint8_t *data, uint32_t length);
};

struct bus_range {
    uint64_t start;
    uint64_t length;
    const struct bus_ops *ops;
    void *device; /* borrowed */
};

struct bus {
    struct bus_range ranges[BUS_RANGES_MAX]; /* by ascending start, disjoint */
    size_t count;
};

/* Fails with ERROR_INTERNAL when the range overlaps another or the bus is full. */
struct error *bus_add(struct bus *bus, uint64_t start, uint64_t length, const struct bus_ops *ops, void *device);
void bus_remove(struct bus *bus, uint64_t start); /* fine when there is no such range */

/* The range that holds the whole access, or NULL. */
const struct bus_range *bus_find(const struct bus *bus, uint64_t address, uint32_t length);
