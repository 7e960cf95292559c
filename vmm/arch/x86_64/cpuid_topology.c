/*
 * Where a vCPU sits: one package; cores of one thread, or of two with `smt`; a cache per core up to level 2, one for
 * the package from level 3. APIC ids count up from 0 without gaps, so the thread is the id's lowest bit.
 */
#include "vmm/arch/x86_64/cpuid.h"

#include <stddef.h>

#define LEAF1_EDX_HTT (1u << 28)
#define LEAF80000001_ECX_CMP_LEGACY (1u << 1)
#define LEAF80000001_ECX_TOPOEXT (1u << 22)

enum { LEVEL_SMT = 1, LEVEL_CORE = 2, CACHE_LEVEL_SHARED = 3 };

struct topology {
    uint32_t apic_id;
    uint32_t count;       /* vCPUs */
    uint32_t threads;     /* a core */
    uint32_t thread_bits; /* of the APIC id */
    uint32_t all_bits;    /* of the APIC id: thread and core */
    bool amd;
};

/* Bits that tell `count` things apart. */
static uint32_t bits_for(uint32_t count)
{
    return count <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(count - 1);
}

static void set_field(uint32_t *where, uint32_t shift, uint32_t width, uint32_t value)
{
    uint32_t mask = ((1u << width) - 1) << shift;

    *where = (*where & ~mask) | ((value << shift) & mask);
}

static void set_bit(uint32_t *where, uint32_t bit, bool value)
{
    *where = value ? *where | bit : *where & ~bit;
}

static void set_features(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
    set_field(&entry->ebx, 16, 8, topology->count);
    set_field(&entry->ebx, 24, 8, topology->apic_id);
    set_bit(&entry->edx, LEAF1_EDX_HTT, topology->count > 1);
}

/* Leaves 4 (Intel) and 0x8000001d (AMD) share their EAX, but for the cores a package that only Intel has. */
static void set_cache(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
    uint32_t level = (entry->eax >> 5) & 7;
    uint32_t shared_bits = level >= CACHE_LEVEL_SHARED ? topology->all_bits : topology->thread_bits;

    set_field(&entry->eax, 14, 12, (1u << shared_bits) - 1);
    if (entry->function == 4)
        set_field(&entry->eax, 26, 6, (1u << (topology->all_bits - topology->thread_bits)) - 1);
}

/* Leaves 0xb and 0x1f: one subleaf a level. */
static void put_levels(struct arch_cpuid *cpuid, uint32_t function, const struct topology *topology)
{
    for (uint32_t index = 0; index < 2; index++) {
        struct kvm_cpuid_entry2 *entry = cpuid_put(cpuid, function, index, true);

        if (entry == NULL)
            return;
        entry->eax = index == 0 ? topology->thread_bits : topology->all_bits;
        entry->ebx = index == 0 ? topology->threads : topology->count;
        entry->ecx = index | (uint32_t)(index == 0 ? LEVEL_SMT : LEVEL_CORE) << 8;
        entry->edx = topology->apic_id;
    }
}

static void put_amd_topology(struct arch_cpuid *cpuid, const struct topology *topology)
{
    struct kvm_cpuid_entry2 *features = cpuid_find(cpuid, 0x80000001, 0);

    if (features == NULL)
        return;
    set_bit(&features->ecx, LEAF80000001_ECX_CMP_LEGACY, topology->count > 1);
    if ((features->ecx & LEAF80000001_ECX_TOPOEXT) == 0)
        return;

    struct kvm_cpuid_entry2 *ids = cpuid_put(cpuid, 0x8000001e, 0, false);
    if (ids == NULL)
        return;
    ids->eax = topology->apic_id;
    ids->ebx = (topology->threads - 1) << 8 | topology->apic_id / topology->threads;
    ids->ecx = 0; /* node 0 of one */
    ids->edx = 0;
}

void cpuid_set_topology(struct arch_cpuid *cpuid, uint32_t index, uint32_t count, bool smt)
{
    uint32_t threads = smt && count > 1 ? 2 : 1;
    const struct topology topology = {
        .apic_id = index,
        .count = count,
        .threads = threads,
        .thread_bits = bits_for(threads),
        .all_bits = bits_for(count),
        .amd = cpuid_is_amd(cpuid),
    };
    const struct kvm_cpuid_entry2 *vendor = cpuid_find(cpuid, 0, 0);
    uint32_t leaf_max = vendor == NULL ? 0 : vendor->eax;

    for (uint32_t i = 0; i < cpuid->count; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

        switch (entry->function) {
        case 0x1:
            set_features(entry, &topology);
            break;
        case 0x4:
        case 0x8000001d:
            set_cache(entry, &topology);
            break;
        case 0x80000008:
            if (topology.amd)
                entry->ecx = topology.all_bits << 12 | (count - 1);
            break;
        default:
            break;
        }
    }
    if (leaf_max >= 0xb)
        put_levels(cpuid, 0xb, &topology);
    if (leaf_max >= 0x1f)
        put_levels(cpuid, 0x1f, &topology);
    if (topology.amd)
        put_amd_topology(cpuid, &topology);
}
