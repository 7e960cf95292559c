/* What processor the guest finds: CPU templates, named or the caller's own, whose texts are read here. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

struct custom_cpu {
    struct arch_cpu_template contents;
    struct arch_cpuid_modifier *cpuid;
    struct arch_msr_modifier *msrs;
    uint32_t *capabilities; /* that the host must have */
    size_t capability_count;
};

/* --- Reading --- */

static unsigned digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return (unsigned)(digit - '0');
    if (digit >= 'a' && digit <= 'f')
        return (unsigned)(digit - 'a') + 10;
    if (digit >= 'A' && digit <= 'F')
        return (unsigned)(digit - 'A') + 10;
    return 99;
}

/* "0x7", "0b111" or "7". */
static bool read_number(const char *text, uint32_t *number)
{
    unsigned base = 10;
    uint64_t value = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'b')) {
        base = text[1] == 'x' ? 16 : 2;
        text += 2;
    }
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = digit_value(*text);

        if (digit >= base)
            return false;
        value = value * base + digit;
        if (value > UINT32_MAX)
            return false;
    }
    *number = (uint32_t)value;
    return true;
}

/* "0b" and at most `bits` of 0, 1 and x; those that are missing at the front are left as they are. */
static bool read_bitmap(const char *text, unsigned bits, uint64_t *mask, uint64_t *value)
{
    unsigned count = 0;

    if (text[0] != '0' || text[1] != 'b')
        return false;
    *mask = *value = 0;
    for (text += 2; *text != '\0'; text++) {
        if (*text == '_')
            continue;
        if ((*text != '0' && *text != '1' && *text != 'x') || count++ == bits)
            return false;
        *mask = *mask << 1 | (*text != 'x');
        *value = *value << 1 | (*text == '1');
    }
    return count > 0;
}

static struct error *wrong_number(const char *text)
{
    return error_new(ERROR_INPUT, "\"%s\", expected a number of 32 bits: decimal, 0x or 0b", text);
}

static struct error *wrong_bitmap(const char *text, unsigned bits)
{
    return error_new(ERROR_INPUT, "\"%s\", expected 0b and at most %u of 0, 1 and x", text, bits);
}

static struct error *read_register(const struct cpuid_register_modifier *config, struct arch_cpuid_modifier *modifier)
{
    uint64_t mask, value;

    if (!read_bitmap(config->bitmap, 32, &mask, &value))
        return error_wrap(wrong_bitmap(config->bitmap, 32), "bitmap");
    modifier->where = config->where;
    modifier->mask = (uint32_t)mask;
    modifier->value = (uint32_t)value;
    return NULL;
}

/* Fills one modifier for each register of the leaf. */
static struct error *read_leaf(const struct cpuid_modifier *config, struct arch_cpuid_modifier *modifiers)
{
    uint32_t function, index;

    if (!read_number(config->leaf, &function))
        return error_wrap(wrong_number(config->leaf), "leaf");
    if (!read_number(config->subleaf, &index))
        return error_wrap(wrong_number(config->subleaf), "subleaf");
    for (size_t i = 0; i < config->modifier_count; i++) {
        modifiers[i] = (struct arch_cpuid_modifier){
            .function = function,
            .index = index,
            .index_matters = (config->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
        };

        struct error *error = read_register(&config->modifiers[i], &modifiers[i]);
        if (error != NULL)
            return error_wrap(error, "modifiers[%zu]", i);
    }
    return NULL;
}

static struct error *read_leaves(const struct cpu_config *config, struct custom_cpu *cpu)
{
    for (size_t i = 0; i < config->cpuid_modifier_count; i++) {
        const struct cpuid_modifier *leaf = &config->cpuid_modifiers[i];
        struct error *error = read_leaf(leaf, cpu->cpuid + cpu->contents.cpuid_count);

        if (error != NULL)
            return error_wrap(error, "cpuid_modifiers[%zu]", i);
        cpu->contents.cpuid_count += leaf->modifier_count;
    }
    return NULL;
}

static struct error *read_msrs(const struct cpu_config *config, struct custom_cpu *cpu)
{
    for (size_t i = 0; i < config->msr_modifier_count; i++) {
        const struct msr_modifier *msr = &config->msr_modifiers[i];
        struct arch_msr_modifier *modifier = &cpu->msrs[i];
        struct error *error = NULL;

        if (!read_number(msr->addr, &modifier->index))
            error = error_wrap(wrong_number(msr->addr), "addr");
        else if (!read_bitmap(msr->bitmap, 64, &modifier->mask, &modifier->value))
            error = error_wrap(wrong_bitmap(msr->bitmap, 64), "bitmap");
        if (error != NULL)
            return error_wrap(error, "msr_modifiers[%zu]", i);
    }
    cpu->contents.msr_count = config->msr_modifier_count;
    return NULL;
}

/* Those that need not be there are of no interest: what Mayfly itself needs, it asks for where it needs it. */
static struct error *read_capabilities(const struct cpu_config *config, struct custom_cpu *cpu)
{
    for (size_t i = 0; i < config->kvm_capabilities.count; i++) {
        const char *text = config->kvm_capabilities.items[i];
        bool unneeded = text[0] == '!';
        uint32_t number;

        if (!read_number(text + unneeded, &number))
            return error_wrap(wrong_number(text), "kvm_capabilities[%zu]", i);
        if (!unneeded)
            cpu->capabilities[cpu->capability_count++] = number;
    }
    return NULL;
}

static void custom_cpu_free(struct custom_cpu *cpu)
{
    if (cpu == NULL)
        return;
    free(cpu->cpuid);
    free(cpu->msrs);
    free(cpu->capabilities);
    free(cpu);
}

static struct error *custom_cpu_new(const struct cpu_config *config, struct custom_cpu **cpu)
{
    struct custom_cpu *made = calloc(1, sizeof(*made));
    size_t registers = 0;

    if (made == NULL)
        return error_errno(ENOMEM, "cannot take the CPU configuration");
    for (size_t i = 0; i < config->cpuid_modifier_count; i++)
        registers += config->cpuid_modifiers[i].modifier_count;
    made->cpuid = calloc(registers + 1, sizeof(*made->cpuid));
    made->msrs = calloc(config->msr_modifier_count + 1, sizeof(*made->msrs));
    made->capabilities = calloc(config->kvm_capabilities.count + 1, sizeof(*made->capabilities));
    made->contents.cpuid = made->cpuid;
    made->contents.msrs = made->msrs;

    struct error *error = NULL;
    if (made->cpuid == NULL || made->msrs == NULL || made->capabilities == NULL)
        error = error_errno(ENOMEM, "cannot take the CPU configuration");
    if (error == NULL)
        error = read_leaves(config, made);
    if (error == NULL)
        error = read_msrs(config, made);
    if (error == NULL)
        error = read_capabilities(config, made);
    if (error != NULL) {
        custom_cpu_free(made);
        return error;
    }
    *cpu = made;
    return NULL;
}

/* --- Using --- */

/* The leaves are read from the host again, and vCPUs that have the old ones are of no use. */
static void set_template(struct machine *machine, const struct arch_cpu_template *cpu_template)
{
    if (machine->cpu_template == cpu_template)
        return;
    machine->cpu_template = cpu_template;
    arch_cpuid_free(machine->cpuid);
    machine->cpuid = NULL;
    if (machine->vcpus.count > 0)
        machine_vm_discard(machine);
}

void machine_cpu_template_set(struct machine *machine, enum cpu_template name)
{
    set_template(machine, arch_cpu_template(name));
    machine_custom_cpu_free(machine);
}

void machine_custom_cpu_free(struct machine *machine)
{
    custom_cpu_free(machine->custom_cpu);
    machine->custom_cpu = NULL;
}

struct error *machine_custom_cpu_check(const struct machine *machine)
{
    const struct custom_cpu *cpu = machine->custom_cpu;

    for (size_t i = 0; cpu != NULL && i < cpu->capability_count; i++)
        if (ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)cpu->capabilities[i]) <= 0)
            return error_new(ERROR_HOST, "kvm_capabilities: this host's KVM has no capability %u",
                             cpu->capabilities[i]);
    return NULL;
}

struct error *machine_put_cpu_config(struct machine *machine, struct cpu_config *config)
{
    struct custom_cpu *cpu;
    struct error *error = machine_check_not_started(machine, "cpu-config");

    if (error == NULL)
        error = custom_cpu_new(config, &cpu);
    if (error != NULL)
        return error;
    set_template(machine, &cpu->contents);
    machine_custom_cpu_free(machine);
    machine->custom_cpu = cpu;
    machine->config.machine.cpu_template = CPU_TEMPLATE_NONE;
    machine->config.machine.has_cpu_template = false;
    cpu_config_free(config);
    machine_prepare_later(machine);
    return NULL;
}
