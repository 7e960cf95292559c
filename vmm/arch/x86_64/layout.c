#include "vmm/arch/x86_64/layout.h"

#include "vmm/base/checked.h"

#include <cpuid.h>

#include "vmm/arch/arch.h"
#include "vmm/base/checked.h"
#include "vmm/hotplug_memory.h"

void arch_memory_layout(uint64_t size, struct guest_memory *memory)
{
    uint64_t low = size < ARCH_MMIO_HOLE_START ? size : ARCH_MMIO_HOLE_START;

    memory->regions[0] = (struct guest_region){.gpa = 0, .size = low};
    memory->count = 1;
    if (size > low)
        memory->regions[memory->count++] = (struct guest_region){.gpa = LAYOUT_HOLE_END, .size = size - low};
}

uint64_t arch_hotplug_start(const struct guest_memory *memory)
{
    const struct guest_region *last = &memory->regions[memory->count - 1];
    uint64_t end = last->gpa + last->size;

    return align_up(end < LAYOUT_HOLE_END ? LAYOUT_HOLE_END : end, 1ull << 30);
}

uint64_t arch_pmem_start(const struct guest_memory *memory)
{
    uint64_t end = arch_hotplug_start(memory);

    if (memory->hotplug != NULL)
        end = align_up(memory->hotplug->gpa + memory->hotplug->size, 1ull << 30);

    return end < LAYOUT_PMEM ? LAYOUT_PMEM : end;
}

/* A processor that does not tell has so many bits. */
enum { PHYSICAL_BITS_LEAST = 36 };

struct error *layout_check_reach(uint64_t gpa, uint64_t size, unsigned bits)
{
    uint64_t end;

    if (checked_add(gpa, size, &end) && (bits >= 64 || end <= 1ull << bits))
        return NULL;
    return error_new(ERROR_INPUT,
                     "its %llu bytes from address 0x%llx on end beyond the %u bits that addresses have on this host",
                     (unsigned long long)size, (unsigned long long)gpa, bits);
}

struct error *arch_check_reach(uint64_t gpa, uint64_t size)
{
    uint32_t eax, unused;
    unsigned bits = PHYSICAL_BITS_LEAST;

    if (gpa < 1ull << PHYSICAL_BITS_LEAST && size <= (1ull << PHYSICAL_BITS_LEAST) - gpa)
        return NULL;
    if (__get_cpuid(0x80000008, &eax, &unused, &unused, &unused) && (eax & 0xff) >= PHYSICAL_BITS_LEAST)
        bits = eax & 0xff;
    return layout_check_reach(gpa, size, bits);
}
