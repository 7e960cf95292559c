#include "vmm/acpi_sleep.h"

#include "vmm/arch/arch.h"

#include <string.h>

static void acpi_sleep_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    (void)device;
    (void)offset;
    memset(data, 0, length);
}

static void acpi_sleep_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    const struct acpi_sleep *sleep = device;

    if (length != 1)
        return;
    if (offset == 0 && (data[0] & ARCH_ACPI_SLEEP_ENABLE))
        sleep->power_off(sleep->owner);
    if (offset == ARCH_ACPI_RESET_PORT - ARCH_ACPI_SLEEP_PORT && data[0] == ARCH_ACPI_RESET_VALUE)
        sleep->reset(sleep->owner);
}

const struct bus_ops acpi_sleep_bus_ops = {.read = acpi_sleep_read, .write = acpi_sleep_write};
