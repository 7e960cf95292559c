#include "vmm/arch/x86_64/cpuid.h"

#include "vmm/arch/arch.h"
#include "vmm/arch/x86_64/kvm_ioctl.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * The leaves that a guest gets. Any other answers zero: among them 5 (MWAIT), 0xa and 0x80000022 (PMU), 0xf and 0x10
 * (cache monitoring and allocation), 0x12 (SGX), 0x14 (processor trace), 0x1c (branch records), 0x1d and 0x1e (AMX),
 * 0x80000009 to 0x8000000a (SVM), 0x8000001b (IBS), 0x8000001f (SEV).
 */
static const struct {
    uint32_t first;
    uint32_t last;
} leaves[] = {
    {0x0, 0x2},               /* vendor, features, cache descriptors */
    {0x4, 0x4},               /* caches */
    {0x6, 0x7},               /* APIC timer that always runs; features */
    {0xb, 0xb},               /* topology */
    {0xd, 0xd},               /* XSAVE */
    {0x15, 0x16},             /* TSC and core frequency, where KVM tells them */
    {0x1f, 0x1f},             /* topology */
    {0x24, 0x24},             /* AVX10 */
    {0x40000000, 0x40000001}, /* KVM */
    {0x80000000, 0x80000008}, /* features, brand, caches, address widths */
    {0x80000019, 0x8000001a}, /* TLBs of 1 GiB pages, performance hints */
    {0x8000001d, 0x8000001e}, /* caches, topology */
    {0x80000021, 0x80000021}, /* features, mitigations */
};
#define LEAF_BASIC_MAX 0x24u
#define LEAF_EXTENDED_MAX 0x80000021u

/*
 * Feature bits that are hidden though KVM may offer them. Bits that let a guest protect itself (speculation control,
 * MD_CLEAR, ARCH_CAPABILITIES) stay as KVM gives them.
 */
static const struct {
    uint32_t function;
    uint32_t index;
    enum cpuid_register where;
    uint32_t bit;
} hidden[] = {
    {0x1, 0, CPUID_ECX, 2},         /* DTES64: debug store, part of the PMU */
    {0x1, 0, CPUID_ECX, 3},         /* MONITOR: a guest that waits would hold the host's processor */
    {0x1, 0, CPUID_ECX, 5},         /* VMX: no nested guests */
    {0x1, 0, CPUID_ECX, 6},         /* SMX */
    {0x1, 0, CPUID_ECX, 7},         /* EIST: frequency is the host's business */
    {0x1, 0, CPUID_ECX, 15},        /* PDCM: PMU */
    {0x1, 0, CPUID_EDX, 21},        /* DS: PMU */
    {0x7, 0, CPUID_EBX, 2},         /* SGX */
    {0x7, 0, CPUID_EBX, 4},         /* HLE: transactions leak across the guest boundary (TAA) */
    {0x7, 0, CPUID_EBX, 11},        /* RTM: the same */
    {0x7, 0, CPUID_EBX, 12},        /* RDT monitoring */
    {0x7, 0, CPUID_EBX, 14},        /* MPX: gone from processors and KVM */
    {0x7, 0, CPUID_EBX, 15},        /* RDT allocation */
    {0x7, 0, CPUID_EBX, 25},        /* processor trace */
    {0x7, 0, CPUID_ECX, 5},         /* WAITPKG: as MONITOR */
    {0x7, 0, CPUID_ECX, 23},        /* key locker */
    {0x7, 0, CPUID_ECX, 29},        /* ENQCMD */
    {0x7, 0, CPUID_ECX, 30},        /* SGX launch control */
    {0x7, 0, CPUID_EDX, 5},         /* user interrupts */
    {0x7, 0, CPUID_EDX, 18},        /* PCONFIG: memory encryption keys */
    {0x7, 0, CPUID_EDX, 19},        /* branch records */
    {0x7, 0, CPUID_EDX, 22},        /* AMX: 8 KiB of XSAVE state, and KVM wants a permission for it */
    {0x7, 0, CPUID_EDX, 24},        /* AMX */
    {0x7, 0, CPUID_EDX, 25},        /* AMX */
    {0x7, 1, CPUID_EAX, 21},        /* AMX */
    {0x7, 1, CPUID_EDX, 8},         /* AMX */
    {0x80000001, 0, CPUID_ECX, 2},  /* SVM: no nested guests */
    {0x80000001, 0, CPUID_ECX, 10}, /* IBS */
    {0x80000001, 0, CPUID_ECX, 12}, /* SKINIT */
    {0x80000001, 0, CPUID_ECX, 15}, /* lightweight profiling */
    {0x80000001, 0, CPUID_ECX, 19}, /* node id MSR: leaf 0x8000001e tells it */
    {0x80000001, 0, CPUID_ECX, 23}, /* PMU */
    {0x80000001, 0, CPUID_ECX, 24}, /* PMU */
    {0x80000001, 0, CPUID_ECX, 28}, /* PMU */
    {0x80000001, 0, CPUID_ECX, 29}, /* MONITORX */
    {0x80000008, 0, CPUID_EBX, 4},  /* RDPRU: the host's frequency */
};

/*
 * KVM's paravirtual features. Not given: asynchronous page faults (bits 4, 10, 14: one that is pending when a snapshot
 * is taken never completes in the clone), encrypted memory (16, 17), 15-bit MSI destinations (15: 32 vCPUs need none)
 * and the obsolete MMU operations (2).
 */
static const uint8_t kvm_features[] = {
    0,  /* kvm-clock, old MSRs */
    1,  /* no delay after port I/O */
    3,  /* kvm-clock */
    5,  /* steal time */
    6,  /* end of interrupt without an exit */
    7,  /* halted spinlock waiters are woken */
    9,  /* TLB flush of a preempted vCPU is put off */
    11, /* IPIs by hypercall */
    12, /* the guest may switch off the host's halt polling */
    13, /* yield to a preempted lock holder */
    24, /* kvm-clock is stable across vCPUs */
};

/* What leaves 0x80000002 to 0x80000004 say: a fleet looks alike, and family, model and stepping still tell drivers. */
static const struct {
    const char *vendor; /* as leaf 0 spells it in EBX, EDX, ECX */
    const char *brand;
} brands[] = {
    {"GenuineIntel", "Intel(R) Xeon(R) Processor"},
    {"AuthenticAMD", "AMD EPYC"},
    {"HygonGenuine", "Hygon Processor"},
};

#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR (1u << 31)

uint32_t *cpuid_register_of(struct kvm_cpuid_entry2 *entry, enum cpuid_register which)
{
    uint32_t *const registers[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};

    return registers[which];
}

struct kvm_cpuid_entry2 *cpuid_find(struct arch_cpuid *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->count; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

        if (entry->function == function && entry->index == index)
            return entry;
    }
    return NULL;
}

struct kvm_cpuid_entry2 *cpuid_put(struct arch_cpuid *cpuid, uint32_t function, uint32_t index, bool index_matters)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, function, index);

    if (entry != NULL || cpuid->count == CPUID_ENTRIES_MAX)
        return entry;
    entry = &cpuid->entries[cpuid->count++];
    *entry = (struct kvm_cpuid_entry2){
        .function = function,
        .index = index,
        .flags = index_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    };
    return entry;
}

static void vendor_name(struct arch_cpuid *cpuid, char vendor[13])
{
    const struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0, 0);

    memset(vendor, 0, 13);
    if (entry == NULL)
        return;
    memcpy(vendor, &entry->ebx, 4);
    memcpy(vendor + 4, &entry->edx, 4);
    memcpy(vendor + 8, &entry->ecx, 4);
}

bool cpuid_is_amd(struct arch_cpuid *cpuid)
{
    char vendor[13];

    vendor_name(cpuid, vendor);
    return strcmp(vendor, "AuthenticAMD") == 0 || strcmp(vendor, "HygonGenuine") == 0;
}

/* A leaf that says nothing need not be stored: KVM answers zero for what is missing, and searches the rest faster. */
static bool leaf_kept(const struct kvm_cpuid_entry2 *entry)
{
    if ((entry->eax | entry->ebx | entry->ecx | entry->edx) == 0)
        return false;
    for (size_t i = 0; i < array_length(leaves); i++) {
        if (entry->function >= leaves[i].first && entry->function <= leaves[i].last)
            return true;
    }
    return false;
}

static void hide_leaves(struct arch_cpuid *cpuid)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < cpuid->count; i++) {
        if (leaf_kept(&cpuid->entries[i]))
            cpuid->entries[kept++] = cpuid->entries[i];
    }
    cpuid->count = kept;
}

static void hide_features(struct arch_cpuid *cpuid)
{
    for (size_t i = 0; i < array_length(hidden); i++) {
        struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, hidden[i].function, hidden[i].index);

        if (entry != NULL)
            *cpuid_register_of(entry, hidden[i].where) &= ~(1u << hidden[i].bit);
    }

    struct kvm_cpuid_entry2 *kvm = cpuid_find(cpuid, 0x40000001, 0);
    uint32_t given = 0;
    for (size_t i = 0; i < array_length(kvm_features); i++)
        given |= 1u << kvm_features[i];
    if (kvm != NULL)
        kvm->eax &= given;
}

static void limit_leaf_number(struct arch_cpuid *cpuid, uint32_t function, uint32_t max)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, function, 0);

    if (entry != NULL && entry->eax > max)
        entry->eax = max;
}

static void set_brand(struct arch_cpuid *cpuid)
{
    char vendor[13];
    char brand[48] = {0};

    vendor_name(cpuid, vendor);
    for (size_t i = 0; i < array_length(brands); i++) {
        if (strcmp(vendor, brands[i].vendor) == 0)
            snprintf(brand, sizeof(brand), "%s", brands[i].brand);
    }
    if (brand[0] == '\0')
        return;
    for (uint32_t i = 0; i < 3; i++) {
        struct kvm_cpuid_entry2 *entry = cpuid_put(cpuid, 0x80000002 + i, 0, false);
        if (entry == NULL)
            return;
        for (enum cpuid_register where = CPUID_EAX; where <= CPUID_EDX; where++)
            memcpy(cpuid_register_of(entry, where), brand + 16 * i + 4 * where, 4);
    }
}

void cpuid_filter(struct arch_cpuid *cpuid)
{
    hide_leaves(cpuid);
    hide_features(cpuid);
    limit_leaf_number(cpuid, 0, LEAF_BASIC_MAX);
    limit_leaf_number(cpuid, 0x80000000, LEAF_EXTENDED_MAX);
    set_brand(cpuid);

    struct kvm_cpuid_entry2 *features = cpuid_find(cpuid, 1, 0);
    if (features != NULL)
        features->ecx |= LEAF1_ECX_HYPERVISOR;
}

struct error *arch_cpuid_get(int kvm_fd, struct arch_cpuid **cpuid)
{
    cleanup_free struct arch_cpuid *got = calloc(1, sizeof(*got));

    if (got == NULL)
        return error_errno(ENOMEM, "CPUID table");
    got->count = CPUID_ENTRIES_MAX;
    if (kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, got) < 0)
        return error_errno(errno, "KVM_GET_SUPPORTED_CPUID");
    cpuid_filter(got);

    /* KVM reports this one apart because only its in-kernel local APIC has the timer; ours is in the kernel. */
    struct kvm_cpuid_entry2 *features = cpuid_find(got, 1, 0);
    if (features != NULL && ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
        features->ecx |= LEAF1_ECX_TSC_DEADLINE;

    *cpuid = take_pointer(&got);
    return NULL;
}

void arch_cpuid_free(struct arch_cpuid *cpuid)
{
    free(cpuid);
}
