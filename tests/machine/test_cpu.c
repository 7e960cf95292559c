/* CPU templates: the guest finds the processor that was asked for. */
#include "tests/machine/machine.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#define LEAF_2                                                                                                         \
    "{\"cpuid_modifiers\":[{\"leaf\":\"0x2\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":["                            \
    "{\"register\":\"eax\",\"bitmap\":\"0b00010010001101000101011001111000\"},"                                        \
    "{\"register\":\"edx\",\"bitmap\":\"0b0000_0000_0000_0000_0000_0000_0000_0111\"}]}]"

static bool host_is_amd(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_AMD_ebx;
}

/* The one of AMD's that there is a template for. */
static bool host_is_milan(void)
{
    unsigned eax, ebx, ecx, edx;

    return host_is_amd() && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (eax & 0x0fff0ff0) == 0x00a00f10;
}

static void test_guest_finds_the_leaves_of_a_custom_template(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/cpu-config", LEAF_2 "}");
    vm_boot(vm, "cpu", "leaf=2");
    vm_expect(vm, "eax 12345678\n");
    vm_expect(vm, "edx 7\ndone\n");
    vm_expect_exit(vm, 0);
}

/* Entry 7 of IA32_PAT becomes write-combining; the rest stays as KVM has it. */
static void test_guest_finds_the_msrs_of_a_custom_template(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(
        vm, "/cpu-config",
        "{\"msr_modifiers\":[{\"addr\":\"0x277\",\"bitmap\":\"0b0000_0001_%s%s%s\"}],\"kvm_capabilities\":[\"!1000\"]}",
        "xxxxxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxxxxxx", "xxxxxxxxxxxxxxxx");
    vm_boot(vm, "cpu", "msr=631");
    vm_expect(vm, "msr 107040600070406\n");
    vm_expect_exit(vm, 0);
}

/* MTRRs on, all memory write-back: a kernel that finds them off runs uncached. */
static void test_guest_finds_its_memory_cached(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "cpu", "msr=767");
    vm_expect(vm, "msr 806\n");
    vm_expect_exit(vm, 0);
}

/* However far the VM was prepared when it came. */
static void test_last_template_put_counts(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64}");
    vm_boot_source(vm, "cpu", "leaf=2");
    vm_put(vm, "/cpu-config",
           "{\"cpuid_modifiers\":[{\"leaf\":\"2\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":[{\"register\":\"eax\","
           "\"bitmap\":\"0b1\"}]}]}");
    vm_put(vm, "/entropy", "{}");
    vm_put(vm, "/cpu-config", LEAF_2 "}");
    vm_put(vm, "/entropy", "{}");
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "eax 12345678\n");
    vm_expect_exit(vm, 0);
}

static void test_template_none_takes_a_custom_one_back(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/cpu-config", LEAF_2 "}");
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"cpu_template\":\"None\"}");
    vm_boot(vm, "cpu", "leaf=2");
    vm_expect(vm, "edx ");
    char *said = strndup(vm->output, vm->output_length);
    assert_null(strstr(said, "12345678"));
    free(said);
    vm_expect_exit(vm, 0);
}

static void test_named_template_is_the_vendors_and_shows(void **state)
{
    struct vm *vm = vm_start();
    const char *wrong = host_is_amd() ? "T2S" : "T2A";
    const char *right = host_is_amd() ? "T2A" : "T2";
    char json[120];

    (void)state;
    snprintf(json, sizeof(json), "{\"vcpu_count\":1,\"mem_size_mib\":64,\"cpu_template\":\"%s\"}", wrong);
    vm_refuses(vm, "PUT", "/machine-config", json, "is for processors of");
    vm_refuses(vm, "PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"cpu_template\":\"V1N1\"}",
               "cpu_template: ");
    if (host_is_amd() && !host_is_milan()) {
        print_message("skipped: there is no template for this processor of AMD\n");
        skip();
    }
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"cpu_template\":\"%s\"}", right);
    vm_patch(vm, "/machine-config", "{\"mem_size_mib\":65}");
    char *config = vm_get(vm, "/machine-config");
    snprintf(json, sizeof(json), "\"cpu_template\":\"%s\"", right);
    assert_non_null(strstr(config, json));
    free(config);
    /* Both say that they are a Haswell, or what they have in common with one. */
    vm_boot(vm, "cpu", "leaf=1");
    vm_expect(vm, "eax 306f2\n");
    vm_expect_exit(vm, 0);
}

static void test_wrong_templates_are_refused_by_name(void **state)
{
    static const struct {
        const char *json, *fault;
    } wrong[] = {
        {"{\"cpuid_modifiers\":[{\"leaf\":\"0y1\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":[]}]}",
         "cpuid_modifiers[0]: leaf: "},
        {"{\"cpuid_modifiers\":[{\"leaf\":\"1\",\"subleaf\":\"0x100000000\",\"flags\":0,\"modifiers\":[]}]}",
         "subleaf: "},
        {"{\"cpuid_modifiers\":[{\"leaf\":\"1\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":[{\"register\":\"eax\","
         "\"bitmap\":\"0b000000000000000000000000000000000\"}]}]}",
         "modifiers[0]: bitmap: "},
        {"{\"cpuid_modifiers\":[{\"leaf\":\"1\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":[{\"register\":\"eip\","
         "\"bitmap\":\"0b0\"}]}]}",
         "register: "},
        {"{\"msr_modifiers\":[{\"addr\":\"0x10\",\"bitmap\":\"1x0\"}]}", "msr_modifiers[0]: bitmap: "},
        {"{\"kvm_capabilities\":[\"!x\"]}", "kvm_capabilities[0]: "},
        {"{\"reg_modifiers\":[{}]}", "reg_modifiers: "},
        {"{\"cpu\":1}", "unknown field"},
    };
    struct vm *vm = vm_start();

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++)
        vm_refuses(vm, "PUT", "/cpu-config", wrong[i].json, wrong[i].fault);
    vm_boot_source(vm, "cpu", NULL);
    vm_put(vm, "/cpu-config", "{\"kvm_capabilities\":[\"0xffff\"]}");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", "KVM has no capability 65535");
    vm_put(vm, "/cpu-config", "{\"msr_modifiers\":[{\"addr\":\"0xdead\",\"bitmap\":\"0b1\"}]}");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", "MSR 0xdead");
    vm_put(vm, "/cpu-config", "{}");
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_guest_finds_the_leaves_of_a_custom_template),
          machine_test(test_guest_finds_the_msrs_of_a_custom_template), machine_test(test_last_template_put_counts),
          machine_test(test_guest_finds_its_memory_cached), machine_test(test_template_none_takes_a_custom_one_back),
          machine_test(test_named_template_is_the_vendors_and_shows),
          machine_test(test_wrong_templates_are_refused_by_name))
