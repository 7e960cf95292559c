/*
 * What a guest learns from CPUID: the host's leaves as KVM can give them, less what cpuid.c's tables hide, with the
 * topology of the microVM. Intel SDM volume 2 "CPUID", AMD APM volume 3 appendix E, Linux virt/kvm/x86/cpuid.rst.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/config.h"

enum { CPUID_ENTRIES_MAX = 256 };

/* As struct kvm_cpuid2, whose entries have no room of their own. */
struct arch_cpuid {
    uint32_t count;
    uint32_t padding;
    struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* NULL when there is no such leaf. */
struct kvm_cpuid_entry2 *cpuid_find(struct arch_cpuid *cpuid, uint32_t function, uint32_t index);

/* Finds the leaf or appends an empty one; NULL when the table is full. */
struct kvm_cpuid_entry2 *cpuid_put(struct arch_cpuid *cpuid, uint32_t function, uint32_t index, bool index_matters);

uint32_t *cpuid_register_of(struct kvm_cpuid_entry2 *entry, enum cpuid_register which);

bool cpuid_is_amd(struct arch_cpuid *cpuid);

/* Leaves out what guests are not to see; adds the hypervisor bit and a neutral brand string. */
void cpuid_filter(struct arch_cpuid *cpuid);

/* Whether a template is for processors of this vendor and of the signature that leaf 1 has in EAX (cpu_template.c). */
struct error *cpu_template_fits(enum cpu_template name, const char *vendor, uint32_t signature);

/* Makes the leaves those of vCPU `index` of `count`; `smt` puts two threads on a core. The APIC id is the index. */
void cpuid_set_topology(struct arch_cpuid *cpuid, uint32_t index, uint32_t count, bool smt);
