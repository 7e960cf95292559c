#include "vmm/boot_timer.h"

#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#include <inttypes.h>
#include <string.h>

enum { BOOTED = 123 };

static void boot_timer_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    (void)device;
    (void)offset;
    memset(data, 0, length);
}

/* The line has the form that readers of Firecracker's log look for. */
static void boot_timer_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    const struct boot_timer *timer = device;
    uint64_t wall = clock_monotonic_us() - timer->start_us;
    uint64_t cpu = clock_process_cpu_us() - timer->start_cpu_us;

    if (offset != 0 || length != 1 || data[0] != BOOTED)
        return;
    log_info("Guest-boot-time = %6" PRIu64 " us %" PRIu64 " ms, %6" PRIu64 " CPU us %" PRIu64 " CPU ms", wall,
             wall / 1000, cpu, cpu / 1000);
}

const struct bus_ops boot_timer_bus_ops = {.read = boot_timer_read, .write = boot_timer_write};
