/*
 * What a VM needs between its memslots and its vCPUs. The order is KVM's: the irqchip must exist before any vCPU;
 * memslots set after it would wait milliseconds for a grace period, so they come first.
 */
#include "vmm/arch/arch.h"
#include "vmm/arch/x86_64/layout.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

struct error *arch_vm_setup(int vm_fd)
{
    /* The guest has no PMU (cpuid.c): without one KVM keeps less state a vCPU. Hosts before 5.18 cannot; no harm. */
    struct kvm_enable_cap no_pmu = {.cap = KVM_CAP_PMU_CAPABILITY, .args = {KVM_PMU_CAP_DISABLE}};
    ioctl(vm_fd, KVM_ENABLE_CAP, &no_pmu);

    /* The identity-map page needs no call: KVM's default, the page before these three, lies in the hole too. */
    if (ioctl(vm_fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
        return error_errno(errno, "KVM_SET_TSS_ADDR");
    if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_errno(errno, "KVM_CREATE_IRQCHIP");
    return NULL;
}
