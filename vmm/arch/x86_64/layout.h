/*
 * Where things are in the guest-physical address space of an x86-64 microVM before its kernel runs. Everything below
 * 1 MiB is ours; kernels and initrds are refused there. e820.c tells the guest the same story.
 *
 *   0x000000  left untouched (real-mode vectors and BIOS data area, to a kernel that looks)
 *   0x007000  zero page (struct boot_params), or the PVH start info with its memory map
 *   0x009000  PML4, then PDPT and page directory: the first GiB identity-mapped (64-bit entry only)
 *   0x09f000  command line
 *   0x09f800  GDT (64-bit entry only)
 *   0x09fc00  reserved from here: MP floating pointer and MP table, in the last KiB of the 640 (MP 1.4, section 4)
 *   0x0e0000  RSDP and the other ACPI tables, where a kernel that is not told finds them (ACPI 6.4, 5.2.5.1)
 *   0x100000  RAM: kernel, initrd at the end
 *   0xc0000000 to 4 GiB: hole; virtio devices, IOAPIC, local APICs, KVM's own pages
 *   4 GiB     the rest of the RAM
 *   above it, at a multiple of 1 GiB: memory that comes and goes (virtio-mem)
 *   256 GiB   or the first GiB above all that: files that the guest has as memory (pmem)
 *
 * Each page that is written here costs a page fault and 4 KiB of every microVM, so what can share a page does.
 */
#pragma once

#include <stdint.h>

#define LAYOUT_BOOT_INFO 0x7000ull
#define LAYOUT_PML4 0x9000ull
#define LAYOUT_PDPT 0xa000ull
#define LAYOUT_PAGE_DIRECTORY 0xb000ull
#define LAYOUT_CMDLINE 0x9f000ull /* ARCH_CMDLINE_MAX bytes */
#define LAYOUT_GDT 0x9f800ull
#define LAYOUT_MP_TABLE 0x9fc00ull /* also the end of what e820 calls usable below 1 MiB */
#define LAYOUT_MP_TABLE_END 0xa0000ull
#define LAYOUT_ACPI 0xe0000ull
#define LAYOUT_KERNEL_MIN 0x100000ull /* also the end of the ACPI tables' room */
#define LAYOUT_IDENTITY_MAPPED (1ull << 30)
#define LAYOUT_HOLE_END (1ull << 32)
#define LAYOUT_PMEM (256ull << 30)
#define LAYOUT_IOAPIC 0xfec00000u
#define LAYOUT_LOCAL_APIC 0xfee00000u
#define LAYOUT_KVM_TSS 0xfffbd000u /* three pages that Intel without unrestricted guest needs */

/* The same for a processor whose physical addresses have `bits` bits. */
struct error *layout_check_reach(uint64_t gpa, uint64_t size, unsigned bits);
