/* Linux Documentation/arch/x86/boot.rst and zero-page.rst. */
#include "vmm/arch/x86_64/boot_info.h"

#include "vmm/arch/x86_64/e820.h"
#include "vmm/arch/x86_64/layout.h"

#include <asm/bootparam.h>
#include <string.h>

enum { LOADER_UNDEFINED = 0xff, BOOT_FLAG = 0xaa55, MAGIC = 0x53726448 };

struct error *zero_page_write(const struct guest_memory *memory, const struct arch_boot *boot, uint64_t rsdp)
{
    struct boot_params *params = guest_memory_at(memory, LAYOUT_BOOT_INFO, sizeof(*params));

    _Static_assert(sizeof(*params) == 4096, "the zero page is a page");
    _Static_assert(E820_ENTRIES_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "the memory map has its room");
    if (params == NULL)
        return error_new(ERROR_INTERNAL, "no guest memory for the zero page");

    memset(params, 0, sizeof(*params));
    if (boot->kernel->has_setup_header)
        memcpy(&params->hdr, boot->kernel->setup_header, sizeof(params->hdr));
    params->hdr.boot_flag = BOOT_FLAG;
    params->hdr.header = MAGIC;
    params->hdr.type_of_loader = LOADER_UNDEFINED;
    params->hdr.cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
    params->hdr.ramdisk_image = (uint32_t)boot->initrd_gpa;
    params->hdr.ramdisk_size = (uint32_t)boot->initrd_size;
    params->hdr.setup_data = 0;
    params->ext_ramdisk_image = (uint32_t)(boot->initrd_gpa >> 32);
    params->ext_ramdisk_size = (uint32_t)(boot->initrd_size >> 32);
    params->acpi_rsdp_addr = rsdp;
    params->e820_entries = (uint8_t)e820_build(memory, params->e820_table);
    return NULL;
}
