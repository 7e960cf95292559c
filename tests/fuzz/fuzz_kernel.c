/* Kernels and what is written beside them: the first byte says how, the rest is the file, ELF or bzImage. */
#include "tests/fuzz/fuzz.h"

#include "vmm/arch/arch.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAP = 1, INITRD = 2, MANY = 4, ACPI_OFF = 8, INITRD_SIZE = 0x1800 };

static struct guest_memory memory;

static void memory_prepare(void)
{
    if (memory.count > 0) {
        fuzz_no_error(guest_memory_clear(&memory, HUGE_PAGES_NONE));
        return;
    }
    arch_memory_layout(32 << 20, &memory);
    fuzz_no_error(guest_memory_map(&memory, HUGE_PAGES_NONE));
}

/* A file that was loaded gets all that a start would write. */
static void boot(const struct arch_kernel *kernel, uint8_t how, int initrd_fd)
{
    static const struct arch_virtio_slot slots[] = {{ARCH_VIRTIO_MMIO_GPA, 5}, {ARCH_VIRTIO_MMIO_GPA + 0x1000, 6}};
    struct arch_boot tables = {.kernel = kernel,
                               .cmdline = (how & ACPI_OFF) ? "acpi=off" : "console=ttyS0",
                               .vcpu_count = (how & MANY) ? 32 : 1,
                               .slots = slots,
                               .slot_count = (how & MANY) ? 2 : 0,
                               .has_serial = true};
    struct error *error = NULL;

    if (how & INITRD)
        error =
            arch_initrd_load(&memory, initrd_fd, "initrd", how & MAP, kernel, &tables.initrd_gpa, &tables.initrd_size);
    if (error == NULL)
        error = arch_boot_write(&memory, &tables);
    error_free(error);
}

static int initrd_open(void)
{
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("initrd", MFD_CLOEXEC);
        fuzz_require(fd >= 0 && ftruncate(fd, INITRD_SIZE) == 0);
    }
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arch_kernel kernel = {0};

    if (size == 0)
        return 0;
    log_set_level(LOG_LEVEL_OFF);
    memory_prepare();

    cleanup_fd int fd = memfd_create("kernel", MFD_CLOEXEC);
    fuzz_require(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    struct error *error = arch_kernel_load(&memory, fd, "kernel", data[0] & MAP, &kernel);
    if (error == NULL)
        boot(&kernel, data[0], initrd_open());
    error_free(error);
    return 0;
}
