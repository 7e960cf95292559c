#include "vmm/arch/x86_64/msrs.h"

#include "vmm/arch/x86_64/kvm_ioctl.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>

/*
 * Only what differs from KVM's reset state: SYSENTER_*, STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE and the TSC are zero
 * there already, and the local APIC's LINT0 takes ExtINT.
 */
static const struct kvm_msr_entry boot_msrs[] = {
    /* IA32_MTRRdefType: MTRRs on, all memory write-back. A kernel that finds them off warns and runs uncached. */
    {.index = 0x2ff, .data = 1 << 11 | 6},
    /* IA32_MISC_ENABLE: fast strings; branch trace and PEBS unavailable (no PMU). */
    {.index = 0x1a0, .data = 1 << 0 | 1 << 11 | 1 << 12},
};

struct error *msrs_set(int vcpu_fd)
{
    /* As struct kvm_msrs, whose entries have no room of their own. */
    struct {
        uint32_t count;
        uint32_t padding;
        struct kvm_msr_entry entries[array_length(boot_msrs)];
    } msrs = {.count = array_length(boot_msrs)};

    memcpy(msrs.entries, boot_msrs, sizeof(boot_msrs));
    int set = kvm_ioctl(vcpu_fd, KVM_SET_MSRS, &msrs);
    if (set < 0)
        return error_errno(errno, "KVM_SET_MSRS");
    if (set < (int)array_length(boot_msrs))
        return error_new(ERROR_HOST, "KVM_SET_MSRS: the host refuses MSR 0x%x", boot_msrs[set].index);
    return NULL;
}
