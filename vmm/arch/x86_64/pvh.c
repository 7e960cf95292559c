/* Xen public/arch-x86/hvm/start_info.h, version 1. */
#include "vmm/arch/x86_64/boot_info.h"

#include "vmm/arch/x86_64/e820.h"
#include "vmm/arch/x86_64/layout.h"

#include <string.h>

#define START_INFO_MAGIC 0x336ec578u

struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules_gpa;
    uint64_t cmdline_gpa;
    uint64_t rsdp_gpa;
    uint64_t memory_map_gpa;
    uint32_t memory_map_entries;
    uint32_t reserved;
};

struct module {
    uint64_t gpa;
    uint64_t size;
    uint64_t cmdline_gpa;
    uint64_t reserved;
};

struct memory_map_entry {
    uint64_t gpa;
    uint64_t size;
    uint32_t type; /* as in e820 */
    uint32_t reserved;
};

struct boot_page {
    struct start_info start_info;
    struct module initrd;
    struct memory_map_entry memory_map[E820_ENTRIES_MAX];
};

struct error *pvh_start_info_write(const struct guest_memory *memory, const struct arch_boot *boot, uint64_t rsdp)
{
    struct boot_page *page = guest_memory_at(memory, LAYOUT_BOOT_INFO, sizeof(*page));
    struct boot_e820_entry entries[E820_ENTRIES_MAX];
    size_t count = e820_build(memory, entries);

    if (page == NULL)
        return error_new(ERROR_INTERNAL, "no guest memory for the PVH start info");

    memset(page, 0, sizeof(*page));
    page->start_info = (struct start_info){
        .magic = START_INFO_MAGIC,
        .version = 1,
        .cmdline_gpa = LAYOUT_CMDLINE,
        .rsdp_gpa = rsdp,
        .memory_map_gpa = LAYOUT_BOOT_INFO + offsetof(struct boot_page, memory_map),
        .memory_map_entries = (uint32_t)count,
    };
    for (size_t i = 0; i < count; i++)
        page->memory_map[i] = (struct memory_map_entry){entries[i].addr, entries[i].size, entries[i].type, 0};
    if (boot->initrd_size > 0) {
        page->start_info.module_count = 1;
        page->start_info.modules_gpa = LAYOUT_BOOT_INFO + offsetof(struct boot_page, initrd);
        page->initrd = (struct module){.gpa = boot->initrd_gpa, .size = boot->initrd_size};
    }
    return NULL;
}
