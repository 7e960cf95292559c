/*
 * What the machine needs of an architecture; arch/x86_64 implements it, aarch64 will. Functions take plain data and
 * KVM descriptors, nothing from above. They run on the event loop's thread before the guest runs.
 *
 * Physical address space (x86-64): RAM from 0; the MMIO hole [ARCH_MMIO_HOLE_START, 4 GiB); RAM again from 4 GiB.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/config.h"
#include "vmm/guest_memory.h"

#define ARCH_MMIO_HOLE_START 0xc0000000ull
#define ARCH_BOOT_TIMER_GPA 0xc0000000ull  /* the guest writes 123 here: "booted" */
#define ARCH_VIRTIO_MMIO_GPA 0xc0001000ull /* slot n at + n * 0x1000, a page of its own */
enum { ARCH_VIRTIO_GSI_FIRST = 5, ARCH_SERIAL_GSI = 4, ARCH_CMDLINE_MAX = 2048 };
enum { ARCH_ACPI_SLEEP_PORT = 0x600 }; /* two ports, as ACPI tells; a byte with ARCH_ACPI_SLEEP_ENABLE: power off */
enum { ARCH_ACPI_SLEEP_ENABLE = 0x20 };
enum { ARCH_ACPI_RESET_PORT = 0x602, ARCH_ACPI_RESET_VALUE = 1 }; /* the value, written there, resets */
enum { ARCH_POWER_BUTTON_GSI = 3 };                               /* an edge: the power button was pressed */

/* Fills the gpa and size of the regions for `size` bytes of RAM (a MiB multiple); sets count. */
void arch_memory_layout(uint64_t size, struct guest_memory *memory);

/* Where memory that comes later may be: right above the RAM, at a multiple of 1 GiB. */
uint64_t arch_hotplug_start(const struct guest_memory *memory);

/* Where files that the guest has as memory may be: above all RAM, present and to come. A multiple of 1 GiB. */
uint64_t arch_pmem_start(const struct guest_memory *memory);

/* Refuses memory, [gpa, gpa + size), that ends where this host's processor has no addresses any more. */
struct error *arch_check_reach(uint64_t gpa, uint64_t size);

/* A virtio-mmio device as the guest must be told of it. */
struct arch_virtio_slot {
    uint64_t gpa;
    uint32_t gsi;
};

/* Everything of a VM that comes before its vCPUs: TSS address, irqchip. After the memslots. */
struct error *arch_vm_setup(int vm_fd);

/* The host's CPUID as KVM can give it, filtered for guests; got once a VM (its ioctl costs 0.4 ms). */
struct arch_cpuid;
struct error *arch_cpuid_get(int kvm_fd, struct arch_cpuid **cpuid);
void arch_cpuid_free(struct arch_cpuid *cpuid);

/* Changes to what a guest finds: of the bits in `mask`, those of `value` are set and the others cleared. */
struct arch_cpuid_modifier {
    uint32_t function;
    uint32_t index;
    enum cpuid_register where;
    bool index_matters;
    uint32_t mask;
    uint32_t value;
};

struct arch_msr_modifier {
    uint32_t index;
    uint64_t mask;
    uint64_t value;
};

struct arch_cpu_template {
    const struct arch_cpuid_modifier *cpuid;
    size_t cpuid_count;
    const struct arch_msr_modifier *msrs;
    size_t msr_count;
};

/* What a name stands for; NULL for none. */
const struct arch_cpu_template *arch_cpu_template(enum cpu_template name);
/* Refuses a name whose processors are another vendor's, or another family's, than this host's. */
struct error *arch_cpu_template_check(enum cpu_template name);

/* Changes `cpuid`; a leaf that a bit is to be set in is added when it is not there. */
struct error *arch_cpuid_apply(struct arch_cpuid *cpuid, const struct arch_cpu_template *cpu_template);
/* Changes the vCPU's MSRs. After arch_vcpu_setup. */
struct error *arch_vcpu_apply(int vcpu_fd, const struct arch_cpu_template *cpu_template);

/* CPUID (topology of vCPU `index` of `count`), MSRs, FPU, LAPIC LVTs: all that does not depend on the kernel. */
struct error *arch_vcpu_setup(int vcpu_fd, const struct arch_cpuid *cpuid, uint32_t index, uint32_t count, bool smt);

/* How a loaded kernel wants to be entered. */
enum arch_boot_protocol { ARCH_BOOT_LINUX64, ARCH_BOOT_PVH };

struct arch_kernel {
    enum arch_boot_protocol protocol;
    uint64_t entry; /* GPA of the first instruction */
    uint64_t end;   /* first GPA after all that was loaded (init_size included) */
    bool has_setup_header;
    uint8_t setup_header[0x200]; /* of a bzImage: bytes 0x1f1.. as in the file */
    size_t mapped_bytes;         /* how much was mapped rather than read */
};

/*
 * Loads an ELF vmlinux or a bzImage from `fd` (its path is for messages only) into guest memory. With `map`,
 * page-aligned segments are mapped MAP_PRIVATE over guest memory, else read. Everything in the file is checked against
 * its size and guest memory before anything is touched; the messages start with the path. Guest memory must still be
 * all zeros: what a segment has beyond its bytes in the file is not written.
 */
struct error *arch_kernel_load(const struct guest_memory *memory, int fd, const char *path, bool map,
                               struct arch_kernel *kernel);

/* Loads the initrd as high as the kernel allows below the MMIO hole, page-aligned, mapped when `map`. */
struct error *arch_initrd_load(const struct guest_memory *memory, int fd, const char *path, bool map,
                               const struct arch_kernel *kernel, uint64_t *gpa, uint64_t *size);

/* All that the guest finds in memory besides kernel and initrd. */
struct arch_boot {
    const struct arch_kernel *kernel;
    const char *cmdline; /* complete, without the virtio_mmio.device= parts */
    uint64_t initrd_gpa; /* size 0: none */
    uint64_t initrd_size;
    uint32_t vcpu_count;
    const struct arch_virtio_slot *slots;
    size_t slot_count;
    bool has_serial; /* 16550 at 0x3f8 */
};

/*
 * Writes command line (virtio_mmio.device= appended; fails when over ARCH_CMDLINE_MAX), zero page or PVH start info,
 * e820, ACPI and MP tables, page tables, GDT. acpi=off and acpi=force on the command line decide how the guest is told
 * of its devices (arch/x86_64/boot.c).
 */
struct error *arch_boot_write(const struct guest_memory *memory, const struct arch_boot *boot);

/* Entry registers of vCPU 0; the others wait for INIT/SIPI and need none. */
struct error *arch_vcpu_boot(int vcpu_fd, const struct guest_memory *memory, const struct arch_kernel *kernel);

/* What helps to find out why a guest died: the vCPU's registers in words, cut to `size`. False when KVM refuses. */
bool arch_vcpu_describe(int vcpu_fd, char *text, size_t size);
