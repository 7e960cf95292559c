/*
 * The sleep registers of hardware-reduced ACPI (ACPI 6.4, section 4.8.3.7): two ports, control and status. The one
 * sleep state that the tables offer is off.
 */
#pragma once

#include "vmm/bus.h"

enum { ACPI_SLEEP_PORTS = 2 };

struct acpi_sleep {
    void (*power_off)(void *owner); /* with the event loop's lock held */
    void *owner;
};

extern const struct bus_ops acpi_sleep_bus_ops;
