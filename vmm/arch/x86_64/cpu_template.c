/*
 * CPU templates: what a guest finds in CPUID and in model-specific registers, so that it finds the same on unlike
 * hosts. The named ones make hosts look alike as far as these instance types have the features (C3: Ivy Bridge; T2:
 * Haswell to Ice Lake; T2S and T2CL: the same with one answer to which attacks the processor is immune; T2A: AMD hosts
 * with what T2CL has).
 */
#include "vmm/arch/arch.h"

#include "vmm/arch/x86_64/cpuid.h"
#include "vmm/arch/x86_64/kvm_ioctl.h"
#include "vmm/base/cleanup.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>

/* {leaf, subleaf, register, whether the subleaf matters, mask, value} */

/* Family, model and stepping of Haswell; no AVX-512, PKU, MPX, RDT, SHA, XSAVES or anything newer than Haswell. */
#define T2_COMMON                                                                                                      \
    {0x1, 0, CPUID_EAX, false, 0x0fff3fff, 0x000306f2}, {0x1, 0, CPUID_ECX, false, 0x0004cdfc, 0x00000000},            \
        {0x1, 0, CPUID_EDX, false, 0xe8641080, 0x00001080}, {0x7, 0, CPUID_EBX, true, 0xffefda14, 0x00000200},         \
        {0x7, 0, CPUID_ECX, true, 0x40415f5e, 0x00000000}, {0x7, 0, CPUID_EDX, true, 0x0000011c, 0x00000000},          \
        {0xd, 0, CPUID_EAX, true, 0x000002f8, 0x00000000}, {0xd, 1, CPUID_EAX, true, 0x0000000e, 0x00000000},          \
        {0x80000008, 0, CPUID_EBX, false, 0x00000200, 0x00000000}, /* the end */

static const struct arch_cpuid_modifier t2_cpuid[] = {
    T2_COMMON
    /* no PREFETCHW, no 1 GiB pages */
    {0x80000001, 0, CPUID_ECX, false, 0x20000100, 0x00000000},
    {0x80000001, 0, CPUID_EDX, false, 0x04000000, 0x00000000},
};

static const struct arch_cpuid_modifier t2cl_cpuid[] = {
    T2_COMMON
    /* nor what AMD's processors alone have */
    {0x80000001, 0, CPUID_ECX, false, 0x200001c0, 0x00000000},
    {0x80000001, 0, CPUID_EDX, false, 0x07c00000, 0x00000000},
};

static const struct arch_cpuid_modifier t2a_cpuid[] = {
    {0x1, 0, CPUID_EAX, false, 0x0fff3fff, 0x000306f2},
    {0x1, 0, CPUID_ECX, false, 0x0004cdfc, 0x00000000},
    {0x1, 0, CPUID_EDX, false, 0xe8641080, 0x00001080},
    {0x7, 0, CPUID_EBX, true, 0xffefda14, 0x00000200},
    {0x7, 0, CPUID_ECX, true, 0x40415f5e, 0x00000000},
    {0x7, 0, CPUID_EDX, true, 0x0000011c, 0x00000000},
    {0xd, 0, CPUID_EAX, true, 0x000002f8, 0x00000000},
    {0xd, 1, CPUID_EAX, true, 0x0000000e, 0x00000000},
    {0x80000001, 0, CPUID_ECX, false, 0x200001c0, 0x00000000},
    {0x80000001, 0, CPUID_EDX, false, 0x07c00000, 0x00000000},
    {0x80000008, 0, CPUID_EBX, false, 0x000c0205, 0x000c0000},
};

/* Ivy Bridge: no AVX2, BMI, FMA, MOVBE or LZCNT either. */
static const struct arch_cpuid_modifier c3_cpuid[] = {
    {0x1, 0, CPUID_EAX, false, 0x0fff3fff, 0x000306e4},
    {0x1, 0, CPUID_ECX, false, 0x0040dd3c, 0x00000000},
    {0x1, 0, CPUID_EDX, false, 0xa8641080, 0x00001080},
    {0x7, 0, CPUID_EBX, true, 0xffafdd3c, 0x00000000},
    {0x7, 0, CPUID_ECX, true, 0x4041481e, 0x00000000},
    {0x7, 0, CPUID_EDX, true, 0x0000000c, 0x00000000},
    {0xd, 0, CPUID_EAX, true, 0x000002f8, 0x00000000},
    {0xd, 1, CPUID_EAX, true, 0x0000000e, 0x00000000},
    {0x80000001, 0, CPUID_ECX, false, 0x00000120, 0x00000000},
    {0x80000001, 0, CPUID_EDX, false, 0x04000000, 0x00000000},
};

/* IA32_ARCH_CAPABILITIES */
static const struct arch_msr_modifier t2s_msrs[] = {{0x10a, 0xffffffffffffffff, 0xc0a0c4c}};
static const struct arch_msr_modifier t2cl_msrs[] = {{0x10a, 0xffffffffe2f51e00, 0x0}};

#define CPUID(table) .cpuid = (table), .cpuid_count = array_length(table)
#define MSRS(table) .msrs = (table), .msr_count = array_length(table)

/* Which processor leaf 1 tells of. */
struct model {
    uint32_t family, number, stepping;
};

static struct model model_of(uint32_t signature)
{
    struct model model = {.family = signature >> 8 & 0xf, .number = signature >> 4 & 0xf, .stepping = signature & 0xf};

    if (model.family == 0x6 || model.family == 0xf)
        model.number |= signature >> 12 & 0xf0;
    if (model.family == 0xf)
        model.family += signature >> 20 & 0xff;
    return model;
}

static bool is_any(const struct model *model)
{
    return model->family >= 6;
}

/*
 * By exclusion, for there is no order in the numbers: server processors up to Skylake (which shares its number with
 * Cascade Lake), and what is no server processor but of that time.
 */
static bool is_cascade_lake_or_newer(const struct model *model)
{
    static const uint8_t older[] = {0x57, 0x5c, 0x5e, 0x5f, 0x66, 0x7a, 0x85, 0x8e, 0x9e};

    if (model->family != 6)
        return model->family > 6 && model->family != 0xf;
    if (model->number == 0x55)
        return model->stepping >= 5;
    for (size_t i = 0; i < array_length(older); i++)
        if (model->number == older[i])
            return false;
    return model->number > 0x55;
}

static bool is_milan(const struct model *model)
{
    return model->family == 0x19 && model->number == 0x1;
}

static const struct {
    const char *name;
    struct arch_cpu_template contents;
    const char *vendor;
    bool (*fits)(const struct model *model);
    const char *expected;
} templates[] = {
    [CPU_TEMPLATE_C3] = {"C3", {CPUID(c3_cpuid)}, "GenuineIntel", is_any, "of family 0x6 or newer"},
    [CPU_TEMPLATE_T2] = {"T2", {CPUID(t2_cpuid)}, "GenuineIntel", is_any, "of family 0x6 or newer"},
    [CPU_TEMPLATE_T2S] = {"T2S", {CPUID(t2_cpuid), MSRS(t2s_msrs)}, "GenuineIntel", is_any, "of family 0x6 or newer"},
    [CPU_TEMPLATE_T2CL] = {"T2CL",
                           {CPUID(t2cl_cpuid), MSRS(t2cl_msrs)},
                           "GenuineIntel",
                           is_cascade_lake_or_newer,
                           "from Cascade Lake (family 0x6, model 0x55, stepping 5) on"},
    [CPU_TEMPLATE_T2A] = {"T2A", {CPUID(t2a_cpuid)}, "AuthenticAMD", is_milan, "named Milan (family 0x19, model 0x1)"},
};

const struct arch_cpu_template *arch_cpu_template(enum cpu_template name)
{
    return name == CPU_TEMPLATE_NONE ? NULL : &templates[name].contents;
}

struct error *cpu_template_fits(enum cpu_template name, const char *vendor, uint32_t signature)
{
    const struct model model = model_of(signature);

    if (name == CPU_TEMPLATE_NONE)
        return NULL;
    if (strcmp(vendor, templates[name].vendor) == 0 && templates[name].fits(&model))
        return NULL;
    return error_new(ERROR_INPUT,
                     "cpu_template: %s is for processors of %s %s, this host's is of %s, family 0x%x, model 0x%x, "
                     "stepping %u",
                     templates[name].name, templates[name].vendor, templates[name].expected, vendor, model.family,
                     model.number, model.stepping);
}

struct error *arch_cpu_template_check(enum cpu_template name)
{
    uint32_t eax, unused, part[3], signature = 0;
    char vendor[sizeof(part) + 1] = "";

    if (name == CPU_TEMPLATE_NONE)
        return NULL;
    if (__get_cpuid(0, &eax, &part[0], &part[2], &part[1]))
        memcpy(vendor, part, sizeof(part));
    __get_cpuid(1, &signature, &unused, &unused, &unused);
    return cpu_template_fits(name, vendor, signature);
}

struct error *arch_cpuid_apply(struct arch_cpuid *cpuid, const struct arch_cpu_template *cpu_template)
{
    for (size_t i = 0; i < cpu_template->cpuid_count; i++) {
        const struct arch_cpuid_modifier *modifier = &cpu_template->cpuid[i];
        struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, modifier->function, modifier->index);

        if (entry == NULL && (modifier->value & modifier->mask) == 0)
            continue;
        if (entry == NULL)
            entry = cpuid_put(cpuid, modifier->function, modifier->index, modifier->index_matters);
        if (entry == NULL)
            return error_new(ERROR_INPUT,
                             "cpuid_modifiers: leaf 0x%x.0x%x does not fit, a guest takes %d leaves at most",
                             modifier->function, modifier->index, CPUID_ENTRIES_MAX);

        uint32_t *where = cpuid_register_of(entry, modifier->where);
        *where = (*where & ~modifier->mask) | (modifier->value & modifier->mask);
    }
    return NULL;
}

/* As struct kvm_msrs, whose entries have no room of their own. */
struct one_msr {
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entry;
};

struct error *arch_vcpu_apply(int vcpu_fd, const struct arch_cpu_template *cpu_template)
{
    for (size_t i = 0; i < cpu_template->msr_count; i++) {
        const struct arch_msr_modifier *modifier = &cpu_template->msrs[i];
        struct one_msr msr = {.count = 1, .entry.index = modifier->index};

        /* Both return how many they did. */
        if (modifier->mask != UINT64_MAX && kvm_ioctl(vcpu_fd, KVM_GET_MSRS, &msr) != 1)
            return error_new(ERROR_INPUT, "msr_modifiers: KVM has no MSR 0x%x", modifier->index);
        msr.entry.data = (msr.entry.data & ~modifier->mask) | (modifier->value & modifier->mask);
        if (kvm_ioctl(vcpu_fd, KVM_SET_MSRS, &msr) != 1)
            return error_new(ERROR_INPUT, "msr_modifiers: KVM refuses 0x%llx in MSR 0x%x",
                             (unsigned long long)msr.entry.data, modifier->index);
    }
    return NULL;
}
