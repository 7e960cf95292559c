/* The boot timer (--boot-timer): the guest writes 123 to ARCH_BOOT_TIMER_GPA and the log tells how long it took. */
#pragma once

#include <stdint.h>

#include "vmm/bus.h"

enum { BOOT_TIMER_SIZE = 0x1000 };

struct boot_timer {
    uint64_t start_us;     /* CLOCK_MONOTONIC at InstanceStart */
    uint64_t start_cpu_us; /* this process's CPU time then */
};

extern const struct bus_ops boot_timer_bus_ops;
