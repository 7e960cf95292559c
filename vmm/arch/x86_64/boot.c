/*
 * How a kernel learns of the machine. It cannot be asked what it was built with, so it is told twice: CPUs and
 * interrupt lines by ACPI and by the MP table (Linux reads the second only without the first), virtio devices by ACPI
 * (Debian's cloud kernel, Firecracker's newer ones) and by virtio_mmio.device= (kernels without ACPI, Firecracker's
 * older ones). A kernel that understands both (our own, some of Firecracker's) keeps the ACPI device and refuses the
 * other: per device two error lines ("can't request region") and about 0.1 M instructions. The command line can say
 * which is meant:
 *   acpi=off    no ACPI tables; devices on the command line. For kernels without ACPI. One that has it boots slower
 *               than with it (by 1.3 M instructions of 40 M): hardware-reduced ACPI also spares it the 8259s and the
 * PIT. acpi=force  devices by ACPI only. For kernels with both.
 */
#include "vmm/arch/arch.h"

#include "vmm/arch/x86_64/acpi.h"
#include "vmm/arch/x86_64/boot_cmdline.h"
#include "vmm/arch/x86_64/boot_info.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/mptable.h"
#include "vmm/arch/x86_64/registers.h"

#include <asm/bootparam.h>
#include <string.h>

/* A bzImage says how much of a command line it reads; the rest would be lost without a word. */
static struct error *check_kernel_limit(const struct arch_kernel *kernel, const char *cmdline)
{
    struct setup_header header;

    if (!kernel->has_setup_header)
        return NULL;
    memcpy(&header, kernel->setup_header, sizeof(header));
    if (strlen(cmdline) > header.cmdline_size)
        return error_new(ERROR_INPUT,
                         "boot_args: the command line is %zu bytes with its devices, expected at most %u, "
                         "what this kernel reads",
                         strlen(cmdline), header.cmdline_size);
    return NULL;
}

static struct error *write_cmdline(const struct guest_memory *memory, const struct arch_boot *boot)
{
    char line[ARCH_CMDLINE_MAX];
    bool slots_by_acpi_only = boot_cmdline_has(boot->cmdline, "acpi=force");

    struct error *error =
        boot_cmdline_write(boot->cmdline, boot->slots, slots_by_acpi_only ? 0 : boot->slot_count, line, sizeof(line));
    if (error == NULL)
        error = check_kernel_limit(boot->kernel, line);
    if (error == NULL && !guest_memory_write(memory, LAYOUT_CMDLINE, line, strlen(line) + 1))
        error = error_new(ERROR_INTERNAL, "no guest memory for the command line");
    return error;
}

struct error *arch_boot_write(const struct guest_memory *memory, const struct arch_boot *boot)
{
    bool pvh = boot->kernel->protocol == ARCH_BOOT_PVH;
    uint64_t rsdp = 0;

    struct error *error = write_cmdline(memory, boot);
    if (error == NULL)
        error = mptable_write(memory, boot);
    if (error == NULL && !boot_cmdline_has(boot->cmdline, "acpi=off"))
        error = acpi_write(memory, boot, &rsdp);
    if (error == NULL)
        error = pvh ? pvh_start_info_write(memory, boot, rsdp) : zero_page_write(memory, boot, rsdp);
    if (error == NULL && !pvh)
        error = long_mode_tables_write(memory);
    return error;
}
