#include "tests/unit/harness.h"

#include "vmm/arch/x86_64/cpuid.h"

#include <string.h>

static struct arch_cpuid cpuid;

static void add(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    cpuid.entries[cpuid.count++] =
        (struct kvm_cpuid_entry2){.function = function, .index = index, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
}

static void add_vendor(const char *vendor, uint32_t max)
{
    uint32_t part[3];

    memcpy(part, vendor, sizeof(part));
    add(0, 0, max, part[0], part[2], part[1]);
}

/* A host that has every feature and every leaf there can be. */
static void everything(const char *vendor)
{
    cpuid.count = 0;
    add_vendor(vendor, 0xffff);
    for (uint32_t function = 1; function < 0x28; function++) {
        for (uint32_t index = 0; index < 3; index++)
            add(function, index, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
    }
    add(0x40000000, 0, 0x40000001, 0, 0, 0);
    add(0x40000001, 0, UINT32_MAX, 0, 0, 0);
    for (uint32_t function = 0x80000000; function < 0x80000028; function++)
        add(function, 0, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
}

static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
    const struct kvm_cpuid_entry2 *entry = cpuid_find(&cpuid, function, index);

    if (entry == NULL)
        fail_msg("no leaf 0x%x.%u", function, index);
    return entry;
}

static void test_guest_sees_no_pmu_nested_virtualisation_or_enclaves(void **state)
{
    static const uint32_t gone[] = {
        0x3,  0x5,        0x8,        0x9,        0xa,        0xc,        0xf,        0x10,       0x12,      0x14,
        0x17, 0x18,       0x19,       0x1a,       0x1b,       0x1c,       0x1d,       0x1e,       0x20,      0x23,
        0x25, 0x80000009, 0x8000000a, 0x8000001b, 0x8000001c, 0x8000001f, 0x80000020, 0x80000022, 0x80000026};

    (void)state;
    everything("GenuineIntel");
    cpuid_filter(&cpuid);
    for (size_t i = 0; i < array_length(gone); i++)
        assert_null(cpuid_find(&cpuid, gone[i], 0));
    assert_int_equal(leaf(1, 0)->ecx & (1u << 5 | 1u << 15 | 1u << 3), 0);           /* VMX, PDCM, MONITOR */
    assert_int_equal(leaf(7, 0)->ebx & (1u << 2 | 1u << 4 | 1u << 11), 0);           /* SGX, HLE, RTM */
    assert_int_equal(leaf(7, 0)->edx & (1u << 22 | 1u << 24 | 1u << 25), 0);         /* AMX */
    assert_int_equal(leaf(0x80000001, 0)->ecx & (1u << 2 | 1u << 10 | 1u << 23), 0); /* SVM, IBS, PMU */
    assert_int_equal(leaf(0, 0)->eax, 0x24);
    assert_int_equal(leaf(0x80000000, 0)->eax, 0x80000021);
}

static void test_guest_keeps_what_protects_and_speeds_it(void **state)
{
    (void)state;
    everything("GenuineIntel");
    cpuid_filter(&cpuid);
    assert_int_equal(leaf(7, 0)->edx & (1u << 26 | 1u << 27 | 1u << 29 | 1u << 31 | 1u << 10),
                     1u << 26 | 1u << 27 | 1u << 29 | 1u << 31 | 1u << 10); /* speculation control, MD_CLEAR */
    assert_int_equal(leaf(1, 0)->ecx & (1u << 21 | 1u << 30 | 1u << 31), 1u << 21 | 1u << 30 | 1u << 31);
    assert_int_equal(leaf(0x80000007, 0)->edx & 1u << 8, 1u << 8); /* invariant TSC */
    assert_non_null(leaf(0xd, 1));
}

static void test_hypervisor_bit_is_set_even_when_kvm_leaves_it_out(void **state)
{
    (void)state;
    cpuid.count = 0;
    add_vendor("AuthenticAMD", 1);
    add(1, 0, 1, 0, 0, 0);
    cpuid_filter(&cpuid);
    assert_int_equal(leaf(1, 0)->ecx, 1u << 31);
}

static void test_paravirtual_features_do_not_include_asynchronous_page_faults(void **state)
{
    (void)state;
    everything("GenuineIntel");
    cpuid_filter(&cpuid);
    uint32_t features = leaf(0x40000001, 0)->eax;
    assert_int_equal(features & (1u << 4 | 1u << 10 | 1u << 14), 0);
    assert_int_equal(features & (1u << 3 | 1u << 5 | 1u << 24), 1u << 3 | 1u << 5 | 1u << 24);
    assert_int_equal(features & 0xfe000000, 0);
}

static void test_empty_leaves_are_left_out(void **state)
{
    (void)state;
    cpuid.count = 0;
    add_vendor("AuthenticAMD", 0x10);
    add(2, 0, 0, 0, 0, 0);
    cpuid_filter(&cpuid);
    assert_null(cpuid_find(&cpuid, 2, 0));
}

static void test_brand_tells_the_vendor_only(void **state)
{
    static const struct {
        const char *vendor, *brand;
    } cases[] = {{"GenuineIntel", "Intel(R) Xeon(R) Processor"}, {"AuthenticAMD", "AMD EPYC"}};

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        char brand[48];

        cpuid.count = 0;
        add_vendor(cases[i].vendor, 0x10);
        if (i == 0)
            add(0x80000003, 0, 0x41414141, 0x41414141, 0x41414141, 0x41414141);
        cpuid_filter(&cpuid);
        for (uint32_t part = 0; part < 3; part++)
            memcpy(brand + 16 * part, &leaf(0x80000002 + part, 0)->eax, 16);
        assert_string_equal(brand, cases[i].brand);
    }
}

/* The leaves that tell topology, filled with what a host with other numbers says. */
static void topology_of(const char *vendor, uint32_t index, uint32_t count, bool smt)
{
    cpuid.count = 0;
    add_vendor(vendor, 0x1f);
    add(1, 0, 0, 0x3f400800, 0, 1u << 28);
    add(4, 0, 0xfc07c121, 0, 0, 0); /* level 1 */
    add(4, 3, 0xfc07c163, 0, 0, 0); /* level 3 */
    add(0xb, 0, 9, 9, 9, 99);
    add(0x80000001, 0, 0, 0, 1u << 22 | 1u << 1, 0);
    add(0x80000008, 0, 0x3030, 0x1000, 0x703f, 0);
    add(0x8000001d, 3, 0x3fc163, 0, 0, 0);
    add(0x8000001e, 0, 99, 0x155, 0x733, 0);
    cpuid_set_topology(&cpuid, index, count, smt);
}

static void test_apic_id_is_the_index_in_every_leaf(void **state)
{
    (void)state;
    for (uint32_t index = 0; index < 32; index++) {
        topology_of("AuthenticAMD", index, 32, index % 2 == 0);
        assert_int_equal(leaf(1, 0)->ebx, index << 24 | 32 << 16 | 0x0800);
        assert_int_equal(leaf(0xb, 0)->edx, index);
        assert_int_equal(leaf(0xb, 1)->edx, index);
        assert_int_equal(leaf(0x1f, 1)->edx, index);
        assert_int_equal(leaf(0x8000001e, 0)->eax, index);
    }
}

static void test_levels_say_how_many_bits_and_threads(void **state)
{
    static const struct {
        uint32_t count;
        bool smt;
        uint32_t thread_bits, threads, all_bits;
    } cases[] = {{1, false, 0, 1, 0}, {1, true, 0, 1, 0}, {2, false, 0, 1, 1},  {2, true, 1, 2, 1}, {3, false, 0, 1, 2},
                 {4, true, 1, 2, 2},  {6, true, 1, 2, 3}, {32, false, 0, 1, 5}, {32, true, 1, 2, 5}};
    static const uint32_t functions[] = {0xb, 0x1f};

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        topology_of("GenuineIntel", 0, cases[i].count, cases[i].smt);
        for (size_t f = 0; f < array_length(functions); f++) {
            const struct kvm_cpuid_entry2 *thread = leaf(functions[f], 0), *core = leaf(functions[f], 1);

            assert_int_equal(thread->eax, cases[i].thread_bits);
            assert_int_equal(thread->ebx, cases[i].threads);
            assert_int_equal(thread->ecx, 0x100);
            assert_int_equal(core->eax, cases[i].all_bits);
            assert_int_equal(core->ebx, cases[i].count);
            assert_int_equal(core->ecx, 0x201);
            assert_int_equal(core->flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
        }
        /* Caches: the first for a core, the third for all. Cores a package. */
        assert_int_equal(leaf(4, 0)->eax >> 14 & 0xfff, (1u << cases[i].thread_bits) - 1);
        assert_int_equal(leaf(4, 3)->eax >> 14 & 0xfff, (1u << cases[i].all_bits) - 1);
        assert_int_equal(leaf(4, 3)->eax >> 26, (1u << (cases[i].all_bits - cases[i].thread_bits)) - 1);
        assert_int_equal(leaf(4, 3)->eax & 0x3fff, 0x163);
        assert_int_equal(leaf(1, 0)->edx >> 28 & 1, cases[i].count > 1);
    }
}

static void test_amd_leaves_tell_cores_and_threads(void **state)
{
    (void)state;
    topology_of("AuthenticAMD", 3, 4, true);
    assert_int_equal(leaf(0x80000008, 0)->ecx, 2 << 12 | 3);
    assert_int_equal(leaf(0x80000008, 0)->ebx, 0x1000);
    assert_int_equal(leaf(0x80000001, 0)->ecx, 1u << 22 | 1u << 1);
    assert_int_equal(leaf(0x8000001e, 0)->ebx, 1 << 8 | 1); /* two threads; core 1 */
    assert_int_equal(leaf(0x8000001e, 0)->ecx, 0);
    assert_int_equal(leaf(0x8000001d, 3)->eax, 3 << 14 | 0x163);

    topology_of("AuthenticAMD", 0, 1, false);
    assert_int_equal(leaf(0x80000001, 0)->ecx, 1u << 22);
    assert_int_equal(leaf(0x80000008, 0)->ecx, 0);
    topology_of("GenuineIntel", 0, 4, false);
    assert_int_equal(leaf(0x80000008, 0)->ecx, 0x703f); /* not Intel's */
}

static void test_full_table_is_not_overrun(void **state)
{
    (void)state;
    cpuid.count = 0;
    add_vendor("AuthenticAMD", 0x1f);
    while (cpuid.count < CPUID_ENTRIES_MAX)
        add(0xd, cpuid.count, 1, 1, 1, 1);
    cpuid_filter(&cpuid);
    cpuid_set_topology(&cpuid, 1, 2, true);
    assert_int_equal(cpuid.count, CPUID_ENTRIES_MAX);
}

TEST_MAIN(cmocka_unit_test(test_guest_sees_no_pmu_nested_virtualisation_or_enclaves),
          cmocka_unit_test(test_guest_keeps_what_protects_and_speeds_it),
          cmocka_unit_test(test_hypervisor_bit_is_set_even_when_kvm_leaves_it_out),
          cmocka_unit_test(test_paravirtual_features_do_not_include_asynchronous_page_faults),
          cmocka_unit_test(test_empty_leaves_are_left_out), cmocka_unit_test(test_brand_tells_the_vendor_only),
          cmocka_unit_test(test_apic_id_is_the_index_in_every_leaf),
          cmocka_unit_test(test_levels_say_how_many_bits_and_threads),
          cmocka_unit_test(test_amd_leaves_tell_cores_and_threads), cmocka_unit_test(test_full_table_is_not_overrun))
