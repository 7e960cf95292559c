#include "vmm/bus.h"

#include "vmm/base/checked.h"

#include <string.h>

/* The first range that ends after `address`; bus->count when there is none. */
static size_t range_after(const struct bus *bus, uint64_t address)
{
    size_t low = 0;
    size_t high = bus->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct bus_range *range = &bus->ranges[middle];

        if (address - range->start < range->length || address < range->start)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct error *bus_add(struct bus *bus, uint64_t start, uint64_t length, const struct bus_ops *ops, void *device)
{
    uint64_t last;

    if (length == 0 || !checked_add(start, length - 1, &last))
        return error_new(ERROR_INTERNAL, "bus range at 0x%llx of 0x%llx bytes is empty or wraps",
                         (unsigned long long)start, (unsigned long long)length);
    if (bus->count == BUS_RANGES_MAX)
        return error_new(ERROR_INTERNAL, "bus is full: no room for the range at 0x%llx", (unsigned long long)start);

    size_t place = range_after(bus, start);
    if (place < bus->count && bus->ranges[place].start <= last)
        return error_new(ERROR_INTERNAL, "bus range at 0x%llx overlaps the one at 0x%llx", (unsigned long long)start,
                         (unsigned long long)bus->ranges[place].start);

    memmove(&bus->ranges[place + 1], &bus->ranges[place], (bus->count - place) * sizeof(bus->ranges[0]));
    bus->ranges[place] = (struct bus_range){.start = start, .length = length, .ops = ops, .device = device};
    bus->count++;
    return NULL;
}

void bus_remove(struct bus *bus, uint64_t start)
{
    for (size_t i = 0; i < bus->count; i++) {
        if (bus->ranges[i].start != start)
            continue;
        bus->count--;
        memmove(&bus->ranges[i], &bus->ranges[i + 1], (bus->count - i) * sizeof(bus->ranges[0]));
        return;
    }
}

const struct bus_range *bus_find(const struct bus *bus, uint64_t address, uint32_t length)
{
    size_t place = range_after(bus, address);

    if (place == bus->count || address < bus->ranges[place].start)
        return NULL;

    const struct bus_range *range = &bus->ranges[place];
    return range_within(address - range->start, length, range->length) ? range : NULL;
}
