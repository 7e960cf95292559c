/*
 * The 8254 interval timer (ports 0x40 to 0x43) and the port that gates its third channel (0x61), until a guest uses
 * them. KVM's own PIT costs a kernel thread a VM, and grace periods when the VM is destroyed (16 ms on a 6.12 host),
 * while a guest with a local APIC timer and kvm-clock never touches it. So it is made when the first count is written
 * or read; from then on these ports are KVM's and do not come here any more.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"

#define PIT_PORT 0x40
#define PIT_GATE_PORT 0x61
enum { PIT_PORTS = 4, PIT_CHANNELS = 3 };

struct pit {
    int vm_fd;                     /* borrowed; -1: no VM yet */
    bool in_kernel;                /* KVM's PIT exists */
    uint8_t command[PIT_CHANNELS]; /* the last command byte of each channel; 0: none yet */
    uint8_t gate;                  /* bits 0 and 1 of port 0x61: gate of channel 2, speaker */
};

extern const struct bus_ops pit_bus_ops;
extern const struct bus_ops pit_gate_bus_ops;

/* For a new VM (or, with -1, none). */
void pit_init(struct pit *pit, int vm_fd);
