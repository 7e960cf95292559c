/*
 * The sleep registers of hardware-reduced ACPI (ACPI 6.4, section 4.8.3.7), control and status, and the reset register
 * (4.8.3.6): three ports. The one sleep state that the tables offer is off.
 */
#pragma once

#include "vmm/bus.h"

enum { ACPI_SLEEP_PORTS = 3 };

/* Both with the event loop's lock held. */
struct acpi_sleep {
    void (*power_off)(void *owner);
    void (*reset)(void *owner);
    void *owner;
};

extern const struct bus_ops acpi_sleep_bus_ops;
