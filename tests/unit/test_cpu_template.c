#include "tests/unit/harness.h"

#include "vmm/arch/arch.h"
#include "vmm/arch/x86_64/cpuid.h"

#include <string.h>

/* CPU templates, on what two processors say of themselves under KVM. */

static struct arch_cpuid cpuid;

static const struct kvm_cpuid_entry2 cascade_lake[] = {
    {.function = 0x0, .eax = 0xd, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
    {.function = 0x1, .eax = 0x50657, .ebx = 0x800, .ecx = 0xf7fa3203, .edx = 0x1f8bfbff},
    {.function = 0x7, .flags = 1, .ebx = 0xd19f27eb, .ecx = 0x81c, .edx = 0xac000400},
    {.function = 0xd, .flags = 1, .eax = 0x2e7, .ebx = 0xa88, .ecx = 0xa88},
    {.function = 0xd, .index = 1, .flags = 1, .eax = 0xf, .ebx = 0xa08},
    {.function = 0x80000001, .ecx = 0x121, .edx = 0x2c100800},
    {.function = 0x80000008, .eax = 0x302e, .ebx = 0x100d000},
};

static const struct kvm_cpuid_entry2 milan[] = {
    {.function = 0x0, .eax = 0x10, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
    {.function = 0x1, .eax = 0xa00f11, .ebx = 0x800, .ecx = 0xf6f83203, .edx = 0x178bfbff},
    {.function = 0x7, .flags = 1, .ebx = 0x219c07a9, .ecx = 0x40060c, .edx = 0xac000010},
    {.function = 0xd, .flags = 1, .eax = 0x207, .ebx = 0x988, .ecx = 0x988},
    {.function = 0xd, .index = 1, .flags = 1, .eax = 0xf, .ebx = 0x348},
    {.function = 0x80000001, .ecx = 0xc003f3, .edx = 0x2fd3fbff},
    {.function = 0x80000008, .eax = 0x3030, .ebx = 0x10cd205},
};

static void record(const struct kvm_cpuid_entry2 *entries, size_t count)
{
    memcpy(cpuid.entries, entries, count * sizeof(entries[0]));
    cpuid.count = (uint32_t)count;
}

static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
    const struct kvm_cpuid_entry2 *entry = cpuid_find(&cpuid, function, index);

    assert_non_null(entry);
    return entry;
}

static void apply(enum cpu_template name)
{
    assert_no_error(arch_cpuid_apply(&cpuid, arch_cpu_template(name)));
}

static void test_t2_makes_a_haswell_of_a_cascade_lake(void **state)
{
    (void)state;
    record(cascade_lake, array_length(cascade_lake));
    apply(CPU_TEMPLATE_T2);
    assert_int_equal(leaf(1, 0)->eax, 0x306f2);
    assert_int_equal(leaf(1, 0)->ecx, 0xf7fa3203);                              /* had none of those that go */
    assert_int_equal(leaf(1, 0)->edx, 0x178bfbff);                              /* no self snoop */
    assert_int_equal(leaf(7, 0)->ebx & (1u << 16 | 1u << 14 | 1u << 31), 0);    /* no AVX-512, MPX */
    assert_int_equal(leaf(7, 0)->ebx & (1u << 5 | 1u << 3), 1u << 5 | 1u << 3); /* AVX2, BMI1 stay */
    assert_int_equal(leaf(7, 0)->ecx & (1u << 3 | 1u << 11), 0);                /* no PKU, VNNI */
    assert_int_equal(leaf(7, 0)->edx, 0xac000400);                              /* speculation control stays */
    assert_int_equal(leaf(0xd, 0)->eax, 0x7);
    assert_int_equal(leaf(0xd, 1)->eax, 0x1);
    assert_int_equal(leaf(0x80000001, 0)->ecx, 0x21);
    assert_int_equal(leaf(0x80000001, 0)->edx, 0x28100800);
    assert_int_equal(cpuid.count, array_length(cascade_lake));
    assert_int_equal(arch_cpu_template(CPU_TEMPLATE_T2)->msr_count, 0);
}

static void test_t2s_and_t2cl_say_what_the_processor_is_immune_to(void **state)
{
    (void)state;
    assert_int_equal(arch_cpu_template(CPU_TEMPLATE_T2S)->msrs[0].index, 0x10a);
    assert_int_equal(arch_cpu_template(CPU_TEMPLATE_T2S)->msrs[0].mask, UINT64_MAX);
    assert_int_equal(arch_cpu_template(CPU_TEMPLATE_T2S)->msrs[0].value, 0xc0a0c4c);
    assert_int_equal(arch_cpu_template(CPU_TEMPLATE_T2CL)->msrs[0].index, 0x10a);
    assert_int_equal(arch_cpu_template(CPU_TEMPLATE_T2CL)->msrs[0].value, 0);
    record(cascade_lake, array_length(cascade_lake));
    apply(CPU_TEMPLATE_T2CL);
    assert_int_equal(leaf(1, 0)->eax, 0x306f2);
    assert_int_equal(leaf(0x80000001, 0)->ecx, 0x21);
}

static void test_c3_has_nothing_newer_than_ivy_bridge(void **state)
{
    (void)state;
    record(cascade_lake, array_length(cascade_lake));
    apply(CPU_TEMPLATE_C3);
    assert_int_equal(leaf(1, 0)->eax, 0x306e4);
    assert_int_equal(leaf(1, 0)->ecx & (1u << 12 | 1u << 22), 0); /* FMA, MOVBE */
    assert_int_equal(leaf(7, 0)->ebx & 0x280d0128, 0);            /* SHA, AVX-512, RDSEED, ADX, BMI, AVX2 */
    assert_int_equal(leaf(0x80000001, 0)->ecx, 0x1);
}

static void test_t2a_gives_amd_what_t2cl_gives_intel(void **state)
{
    uint32_t common;

    (void)state;
    record(cascade_lake, array_length(cascade_lake));
    apply(CPU_TEMPLATE_T2CL);
    common = leaf(7, 0)->ebx;
    record(milan, array_length(milan));
    apply(CPU_TEMPLATE_T2A);
    assert_int_equal(leaf(1, 0)->eax, 0x306f2);
    /* But for TSC_ADJUST and what the FPU leaves undone, which no template touches. */
    assert_int_equal(leaf(7, 0)->ebx, common & ~(1u << 1 | 1u << 6 | 1u << 13));
    assert_int_equal(leaf(7, 0)->ecx, 0);
    assert_int_equal(leaf(7, 0)->edx, 0xac000000); /* no fast short REP MOV */
    assert_int_equal(leaf(0xd, 0)->eax, 0x7);
    assert_int_equal(leaf(0x80000008, 0)->ebx & (1u << 9 | 1u << 18 | 1u << 19), 1u << 18 | 1u << 19);
    assert_int_equal(leaf(0, 0)->ebx, 0x68747541); /* and says whose it is */
}

static void test_leaf_that_is_missing_is_added_for_a_bit_that_is_set(void **state)
{
    const struct arch_cpuid_modifier modifiers[] = {
        {0x24, 0, CPUID_EBX, true, 0xff, 0x80},
        {0x25, 0, CPUID_EBX, true, 0xff, 0},
    };
    const struct arch_cpu_template custom = {.cpuid = modifiers, .cpuid_count = 2};

    (void)state;
    record(milan, array_length(milan));
    assert_no_error(arch_cpuid_apply(&cpuid, &custom));
    assert_int_equal(leaf(0x24, 0)->ebx, 0x80);
    assert_int_equal(leaf(0x24, 0)->flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
    assert_null(cpuid_find(&cpuid, 0x25, 0));
    cpuid.count = CPUID_ENTRIES_MAX;
    memset(&cpuid.entries[array_length(milan)], 0xff,
           (CPUID_ENTRIES_MAX - array_length(milan)) * sizeof(cpuid.entries[0]));
    assert_error(arch_cpuid_apply(&cpuid, &custom), ERROR_INPUT, "leaf 0x24.0x0 does not fit");
}

/* What leaf 1 has in EAX. */
enum {
    IVY_BRIDGE = 0x306e4,
    BROADWELL = 0x406f1,
    SKYLAKE = 0x50654,
    CASCADE_LAKE = 0x50657,
    ICE_LAKE = 0x606a6,
    SAPPHIRE_RAPIDS = 0x806f8,
    COFFEE_LAKE = 0x906ea, /* of desktops */
    NETBURST = 0xf43,
    ROME = 0x830f10,
    MILAN = 0xa00f11,
    MILAN_X = 0xa00f12,
    GENOA = 0xa10f11,
    TURIN = 0xb00f21,
};

static void test_template_is_for_the_models_that_it_was_made_for(void **state)
{
    static const struct {
        const char *vendor;
        uint32_t signature;
        bool fits[CPU_TEMPLATE_T2A + 1]; /* none, C3, T2, T2S, T2CL, T2A */
    } cases[] = {
        {"GenuineIntel", IVY_BRIDGE, {1, 1, 1, 1, 0, 0}},
        {"GenuineIntel", BROADWELL, {1, 1, 1, 1, 0, 0}},
        {"GenuineIntel", SKYLAKE, {1, 1, 1, 1, 0, 0}},
        {"GenuineIntel", CASCADE_LAKE, {1, 1, 1, 1, 1, 0}},
        {"GenuineIntel", ICE_LAKE, {1, 1, 1, 1, 1, 0}},
        {"GenuineIntel", SAPPHIRE_RAPIDS, {1, 1, 1, 1, 1, 0}},
        {"GenuineIntel", COFFEE_LAKE, {1, 1, 1, 1, 0, 0}},
        {"GenuineIntel", NETBURST, {1, 1, 1, 1, 0, 0}},
        {"GenuineIntel", MILAN, {1, 1, 1, 1, 1, 0}},
        {"AuthenticAMD", ROME, {1, 0, 0, 0, 0, 0}},
        {"AuthenticAMD", MILAN, {1, 0, 0, 0, 0, 1}},
        {"AuthenticAMD", MILAN_X, {1, 0, 0, 0, 0, 1}},
        {"AuthenticAMD", GENOA, {1, 0, 0, 0, 0, 0}},
        {"AuthenticAMD", TURIN, {1, 0, 0, 0, 0, 0}},
        {"AuthenticAMD", CASCADE_LAKE, {1, 0, 0, 0, 0, 0}},
        {"HygonGenuine", MILAN, {1, 0, 0, 0, 0, 0}},
        {"", 0, {1, 0, 0, 0, 0, 0}},
    };

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++)
        for (enum cpu_template name = CPU_TEMPLATE_NONE; name <= CPU_TEMPLATE_T2A; name++) {
            struct error *error = cpu_template_fits(name, cases[i].vendor, cases[i].signature);

            if ((error == NULL) != cases[i].fits[name])
                fail_msg("%s 0x%x, template %d", cases[i].vendor, cases[i].signature, (int)name);
            error_free(error);
        }
}

static void test_refusal_names_the_processor_and_what_was_expected(void **state)
{
    (void)state;
    assert_error(cpu_template_fits(CPU_TEMPLATE_T2CL, "GenuineIntel", SKYLAKE), ERROR_INPUT,
                 "cpu_template: T2CL is for processors of GenuineIntel from Cascade Lake (family 0x6, model 0x55, "
                 "stepping 5) on, this host's is of GenuineIntel, family 0x6, model 0x55, stepping 4");
    assert_error(cpu_template_fits(CPU_TEMPLATE_T2A, "AuthenticAMD", GENOA), ERROR_INPUT,
                 "AuthenticAMD named Milan (family 0x19, model 0x1), this host's is of AuthenticAMD, family 0x19, "
                 "model 0x11, stepping 1");
    assert_error(cpu_template_fits(CPU_TEMPLATE_C3, "AuthenticAMD", MILAN), ERROR_INPUT,
                 "C3 is for processors of GenuineIntel of family 0x6 or newer, this host's is of AuthenticAMD");
}

TEST_MAIN(cmocka_unit_test(test_t2_makes_a_haswell_of_a_cascade_lake),
          cmocka_unit_test(test_t2s_and_t2cl_say_what_the_processor_is_immune_to),
          cmocka_unit_test(test_c3_has_nothing_newer_than_ivy_bridge),
          cmocka_unit_test(test_t2a_gives_amd_what_t2cl_gives_intel),
          cmocka_unit_test(test_leaf_that_is_missing_is_added_for_a_bit_that_is_set),
          cmocka_unit_test(test_template_is_for_the_models_that_it_was_made_for),
          cmocka_unit_test(test_refusal_names_the_processor_and_what_was_expected))
