/*
 * Entry states: Linux Documentation/arch/x86/boot.rst "64-bit boot protocol" (long mode, first GiB identity-mapped,
 * RSI = zero page) and Xen docs/misc/pvh.pandoc (32-bit protected mode, paging off, EBX = start info).
 */
#include "vmm/arch/x86_64/registers.h"

#include "vmm/arch/arch.h"
#include "vmm/arch/x86_64/cpuid.h"
#include "vmm/arch/x86_64/kvm_ioctl.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/msrs.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#define CR0_PE 0x1ull
#define CR0_ET 0x10ull
#define CR0_PG 0x80000000ull
#define CR4_PAE 0x20ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define RFLAGS_RESERVED 0x2ull

#define PAGE_PRESENT 0x1ull
#define PAGE_WRITABLE 0x2ull
#define PAGE_LARGE 0x80ull
#define PAGE_LARGE_SIZE (2ull << 20)
enum { PAGE_TABLE_ENTRIES = 512 };

/* boot.rst wants __BOOT_CS 0x10 and __BOOT_DS 0x18. */
enum { SELECTOR_CODE = 0x10, SELECTOR_DATA = 0x18, SELECTOR_TSS = 0x20 };

static const uint64_t gdt[] = {
    [SELECTOR_CODE / 8] = 0x00af9b000000ffff, /* 64-bit code, flat */
    [SELECTOR_DATA / 8] = 0x00cf93000000ffff, /* data, flat */
    [SELECTOR_TSS / 8] = 0x00008b0000000067,  /* 32-bit TSS, busy */
};

/* The stack that a freestanding kernel may use until it has its own: below the zero page. */
#define BOOT_STACK (LAYOUT_BOOT_INFO - 0x10)

struct error *long_mode_tables_write(const struct guest_memory *memory)
{
    const size_t table_size = PAGE_TABLE_ENTRIES * sizeof(uint64_t);
    uint64_t *pml4 = guest_memory_at(memory, LAYOUT_PML4, table_size);
    uint64_t *pdpt = guest_memory_at(memory, LAYOUT_PDPT, table_size);
    uint64_t *directory = guest_memory_at(memory, LAYOUT_PAGE_DIRECTORY, table_size);

    if (pml4 == NULL || pdpt == NULL || directory == NULL || !guest_memory_write(memory, LAYOUT_GDT, gdt, sizeof(gdt)))
        return error_new(ERROR_INTERNAL, "no guest memory for the page tables");

    memset(pml4, 0, table_size);
    memset(pdpt, 0, table_size);
    pml4[0] = LAYOUT_PDPT | PAGE_PRESENT | PAGE_WRITABLE;
    pdpt[0] = LAYOUT_PAGE_DIRECTORY | PAGE_PRESENT | PAGE_WRITABLE;
    for (uint64_t i = 0; i < PAGE_TABLE_ENTRIES; i++)
        directory[i] = i * PAGE_LARGE_SIZE | PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE;
    return NULL;
}

static void set_segments(struct kvm_sregs *sregs, bool long_mode)
{
    const struct kvm_segment code = {
        .limit = 0xffffffff,
        .selector = SELECTOR_CODE,
        .type = 0xb,
        .present = 1,
        .s = 1,
        .g = 1,
        .l = long_mode,
        .db = !long_mode,
    };
    const struct kvm_segment data = {
        .limit = 0xffffffff,
        .selector = SELECTOR_DATA,
        .type = 0x3,
        .present = 1,
        .s = 1,
        .g = 1,
        .db = 1,
    };
    const struct kvm_segment tss = {.limit = 0x67, .selector = SELECTOR_TSS, .type = 0xb, .present = 1};

    sregs->cs = code;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->tr = tss;
    sregs->ldt = (struct kvm_segment){.unusable = 1};
    sregs->idt = (struct kvm_dtable){0};
    sregs->gdt = (struct kvm_dtable){0};
}

static struct kvm_regs linux64_state(struct kvm_sregs *sregs, uint64_t entry)
{
    set_segments(sregs, true);
    sregs->gdt = (struct kvm_dtable){.base = LAYOUT_GDT, .limit = sizeof(gdt) - 1};
    sregs->cr0 = CR0_PG | CR0_ET | CR0_PE;
    sregs->cr3 = LAYOUT_PML4;
    sregs->cr4 = CR4_PAE;
    sregs->efer = EFER_LME | EFER_LMA;
    return (struct kvm_regs){.rip = entry, .rsi = LAYOUT_BOOT_INFO, .rsp = BOOT_STACK, .rflags = RFLAGS_RESERVED};
}

static struct kvm_regs pvh_state(struct kvm_sregs *sregs, uint64_t entry)
{
    set_segments(sregs, false);
    sregs->cr0 = CR0_ET | CR0_PE;
    sregs->cr3 = 0;
    sregs->cr4 = 0;
    sregs->efer = 0;
    return (struct kvm_regs){.rip = entry, .rbx = LAYOUT_BOOT_INFO, .rflags = RFLAGS_RESERVED};
}

struct error *arch_vcpu_setup(int vcpu_fd, const struct arch_cpuid *cpuid, uint32_t index, uint32_t count, bool smt)
{
    struct arch_cpuid own;

    own.count = cpuid->count;
    own.padding = 0;
    memcpy(own.entries, cpuid->entries, cpuid->count * sizeof(own.entries[0]));
    cpuid_set_topology(&own, index, count, smt);
    if (kvm_ioctl(vcpu_fd, KVM_SET_CPUID2, &own) < 0)
        return error_errno(errno, "KVM_SET_CPUID2");

    /* CPUID first: KVM checks MSRs against it. */
    return msrs_set(vcpu_fd);
}

struct error *arch_vcpu_boot(int vcpu_fd, const struct guest_memory *memory, const struct arch_kernel *kernel)
{
    struct kvm_sregs sregs;

    if (guest_memory_at(memory, kernel->entry, 1) == NULL)
        return error_new(ERROR_INTERNAL, "kernel entry 0x%llx is not guest memory", (unsigned long long)kernel->entry);

    /* Read first: it holds the APIC base as well. */
    if (kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return error_errno(errno, "KVM_GET_SREGS");

    struct kvm_regs regs =
        kernel->protocol == ARCH_BOOT_PVH ? pvh_state(&sregs, kernel->entry) : linux64_state(&sregs, kernel->entry);
    if (kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
        return error_errno(errno, "KVM_SET_SREGS");
    if (kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(errno, "KVM_SET_REGS");
    return NULL;
}

bool arch_vcpu_describe(int vcpu_fd, char *text, size_t size)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 || kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return false;
    snprintf(text, size,
             "rip 0x%llx rsp 0x%llx rflags 0x%llx rax 0x%llx cr0 0x%llx cr2 0x%llx cr3 0x%llx cr4 0x%llx efer 0x%llx "
             "cs 0x%x",
             regs.rip, regs.rsp, regs.rflags, regs.rax, sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer,
             (unsigned)sregs.cs.selector);
    return true;
}
