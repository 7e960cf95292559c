/* CPU templates of the caller's own. What the texts say is read in vmm/machine_cpu.c. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

enum {
    NUMBER_TEXT_MAX = 34,  /* "0b" and 32 digits */
    BITMAP_TEXT_MAX = 132, /* "0b", 64 digits and as many underscores */
    CPUID_MODIFIERS_MAX = 256,
    REGISTERS_MAX = 16,
    MSR_MODIFIERS_MAX = 1024,
    KVM_CAPABILITIES_MAX = 256,
};

static const char *const register_names[] = {
    [CPUID_EAX] = "eax", [CPUID_EBX] = "ebx", [CPUID_ECX] = "ecx", [CPUID_EDX] = "edx", NULL};

static const struct field register_fields[] = {
    {"register", FIELD_ENUM, FIELD_REQUIRED, MEMBER(struct cpuid_register_modifier, where), .names = register_names,
     DESCRIPTION("The register.")},
    {"bitmap", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct cpuid_register_modifier, bitmap), .minimum = 3,
     .maximum = BITMAP_TEXT_MAX,
     DESCRIPTION("\"0b\" and for each bit, from the highest, 0, 1 or x (left as it is); _ may stand between.")},
};
static const struct schema register_schema = {"CpuidRegisterModifier",
                                              SCHEMA(register_fields, struct cpuid_register_modifier),
                                              DESCRIPTION("What a register of a CPUID leaf says.")};

static const struct field cpuid_fields[] = {
    {"leaf", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct cpuid_modifier, leaf), .minimum = 1,
     .maximum = NUMBER_TEXT_MAX, DESCRIPTION("The leaf: a decimal, 0x or 0b number.")},
    {"subleaf", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct cpuid_modifier, subleaf), .minimum = 1,
     .maximum = NUMBER_TEXT_MAX, DESCRIPTION("The subleaf, as the leaf.")},
    {"flags", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct cpuid_modifier, flags), .maximum = 7,
     DESCRIPTION("KVM's flags of the leaf; 1: the subleaf matters.")},
    {"modifiers", FIELD_HEAP_ARRAY, FIELD_REQUIRED, MEMBER(struct cpuid_modifier, modifiers),
     .count = offsetof(struct cpuid_modifier, modifier_count), .maximum = REGISTERS_MAX, .object = &register_schema,
     DESCRIPTION("Its registers.")},
};
static const struct schema cpuid_schema = {"CpuidLeafModifier", SCHEMA(cpuid_fields, struct cpuid_modifier),
                                           DESCRIPTION("What a CPUID leaf says.")};

static const struct field msr_fields[] = {
    {"addr", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct msr_modifier, addr), .minimum = 1, .maximum = NUMBER_TEXT_MAX,
     DESCRIPTION("The register's number: decimal, 0x or 0b.")},
    {"bitmap", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct msr_modifier, bitmap), .minimum = 3,
     .maximum = BITMAP_TEXT_MAX, DESCRIPTION("As of a CPUID register, for up to 64 bits.")},
};
static const struct schema msr_schema = {"MsrModifier", SCHEMA(msr_fields, struct msr_modifier),
                                         DESCRIPTION("What a model-specific register holds.")};

#define NOT_HERE .type = FIELD_UNSUPPORTED, .flags = FIELD_LIST, DESCRIPTION("Of another architecture.")

static const struct field cpu_config_fields[] = {
    {"kvm_capabilities", FIELD_STRING_LIST, 0, MEMBER(struct cpu_config, kvm_capabilities),
     .count = offsetof(struct cpu_config, kvm_capabilities.count), .maximum = KVM_CAPABILITIES_MAX,
     DESCRIPTION("Numbers of KVM capabilities that the host must have; one with ! before it need not be there.")},
    {"cpuid_modifiers", FIELD_HEAP_ARRAY, 0, MEMBER(struct cpu_config, cpuid_modifiers),
     .count = offsetof(struct cpu_config, cpuid_modifier_count), .maximum = CPUID_MODIFIERS_MAX,
     .object = &cpuid_schema, DESCRIPTION("Changes to what CPUID says.")},
    {"msr_modifiers", FIELD_HEAP_ARRAY, 0, MEMBER(struct cpu_config, msr_modifiers),
     .count = offsetof(struct cpu_config, msr_modifier_count), .maximum = MSR_MODIFIERS_MAX, .object = &msr_schema,
     DESCRIPTION("Changes to model-specific registers, as they are at the start.")},
    {"reg_modifiers", NOT_HERE},
    {"vcpu_features", NOT_HERE},
};
const struct schema cpu_config_schema = {"CpuConfig", SCHEMA(cpu_config_fields, struct cpu_config),
                                         DESCRIPTION("A set of CPU features of your own.")};
