/*
 * What a machine is made of, for machine*.c alone. The configuration is plain data; the VM (descriptors, memory,
 * vCPUs) is built from it ahead of the start, thrown away and built again when the configuration outgrows it. What
 * every process touches stands first: a page never touched costs nothing.
 */
#pragma once

#include "vmm/acpi_sleep.h"
#include "vmm/arch/arch.h"
#include "vmm/base/event_loop.h"
#include "vmm/boot_timer.h"
#include "vmm/bus.h"
#include "vmm/config.h"
#include "vmm/guest_memory.h"
#include "vmm/hotplug_memory.h"
#include "vmm/i8042.h"
#include "vmm/machine.h"
#include "vmm/pit.h"
#include "vmm/serial.h"
#include "vmm/vcpu.h"
#include "vmm/virtio/mmio.h"

struct machine {
    struct event_loop *loop;
    struct machine_options options;
    enum machine_state state;

    /* The VM, as far as it is prepared. */
    int kvm_fd;
    int vm_fd;
    int serial_irq_fd;
    int keyboard_irq_fd;
    int power_button_irq_fd;
    int kernel_fd; /* the boot source: open since it was put */
    int initrd_fd;
    struct arch_cpuid *cpuid;                     /* the host's, as the template has it: survives the VM */
    const struct arch_cpu_template *cpu_template; /* NULL: none */
    struct guest_memory memory;                   /* count > 0: the memslots are set */

    struct event_task prepare_task;
    struct event_timer prepare_timer;
    bool size_settled; /* a machine-config was put, or is not expected any more */
    struct event_timer metrics_timer;
    int metrics_fd;
    struct event_source termination; /* signalfd for SIGTERM, SIGINT and SIGQUIT */

    /* Legacy devices and what finds them; of `vcpus` and a bus the head. */
    struct serial serial;
    struct i8042 i8042;
    struct pit pit;
    struct acpi_sleep acpi_sleep;
    struct boot_timer boot_timer;
    struct custom_cpu *custom_cpu; /* what cpu_template is when it was put to /cpu-config */
    struct vcpus vcpus;
    struct bus ports;
    struct vm_config config; /* of a machine without devices the head; up to there it is one page, see machine_new */
    struct bus mmio;

    /* What is loaded of the boot source, ahead of the start. */
    bool boot_loaded;
    bool memory_dirty; /* something was loaded that is no longer wanted */
    struct arch_kernel kernel;
    uint64_t initrd_gpa;
    uint64_t initrd_size;

    /* virtio devices, each within its transport; drives and interfaces stand as in the configuration. */
    struct virtio_mmio *drives[VIRTIO_DEVICES_MAX];
    struct virtio_mmio *network_interfaces[VIRTIO_DEVICES_MAX];
    struct virtio_mmio *pmem[VIRTIO_DEVICES_MAX];
    struct virtio_mmio *entropy;
    struct virtio_mmio *console;
    struct virtio_mmio *vsock;
    struct virtio_mmio *file_systems[VIRTIO_DEVICES_MAX];
    struct mmds *mmds; /* NULL: never asked for */
    struct virtio_mmio *balloon;
    struct virtio_mmio *memory_hotplug;
    struct hotplug_memory hotplug;
    struct virtio_mmio *connected[VIRTIO_DEVICES_MAX]; /* whose eventfds the VM has, by slot */
    size_t connected_count;
    uint8_t *registers; /* a page a slot; NULL: there was no VM yet */

    uint8_t serial_ring[SERIAL_RING_SIZE];
};

/* machine_prepare.c */

/* The virtio transports in the order in which the guest finds them: slot n is list[n]. Returns how many. */
size_t machine_transports(const struct machine *machine, struct virtio_mmio *list[VIRTIO_DEVICES_MAX]);

/* The configuration changed: throws away what no longer fits, and prepares anew when the loop is idle. */
void machine_prepare_later(struct machine *machine);

/* Does all that is left to prepare. After an error, what was half done is gone. */
struct error *machine_prepare(struct machine *machine);

/* Throws the VM away: vCPUs, memory, descriptors. */
void machine_vm_discard(struct machine *machine);

/* Forgets what was loaded into guest memory; it is cleared before something else is. */
void machine_boot_discard(struct machine *machine);

/* machine_devices.c: each makes the device of `config` within a transport, connected to no VM. */
struct error *machine_drive_new(struct machine *machine, const struct drive_config *config,
                                struct virtio_mmio **transport);
struct error *machine_network_interface_new(struct machine *machine, const struct network_interface_config *config,
                                            struct virtio_mmio **transport);
struct error *machine_entropy_new(struct machine *machine, const struct entropy_config *config,
                                  struct virtio_mmio **transport);
struct error *machine_console_new(struct machine *machine, const struct console_config *config,
                                  struct virtio_mmio **transport);

/* machine_vsock.c; `seqpacket` may be !present. */
struct error *machine_vsock_new(struct machine *machine, const struct vsock_config *config,
                                const struct vsock_seqpacket_config *seqpacket, struct virtio_mmio **transport);

/* machine_vhost_user.c */
struct error *machine_file_system_new(struct machine *machine, const struct file_system_config *config,
                                      struct virtio_mmio **transport);
/* Whether another process is to see guest memory. */
bool machine_shares_memory(const struct machine *machine);

/* machine_mmds.c */

/* Leads the interface to the metadata service, if the configuration says so, or no longer. */
struct error *machine_mmds_connect(struct machine *machine, const struct network_interface_config *interface,
                                   struct virtio_device *device);
/* After the devices. */
void machine_mmds_free(struct machine *machine);

/* machine_balloon.c */
struct error *machine_balloon_new(struct machine *machine, const struct balloon_config *config,
                                  struct virtio_mmio **transport);
/* Tells the log what a balloon that is to be had cannot do. */
void machine_balloon_note(const struct machine *machine);
/* Refuses a balloon larger than the guest's memory. */
struct error *machine_check_balloon(uint64_t amount_mib, uint64_t memory_mib);

/* machine_memory_hotplug.c */
struct error *machine_memory_hotplug_new(struct machine *machine, const struct memory_hotplug_config *config,
                                         struct virtio_mmio **transport);
/* Reserves room above the guest's memory, which is laid out. discard gives it back. */
struct error *machine_memory_hotplug_reserve(struct machine *machine);
void machine_memory_hotplug_discard(struct machine *machine);

/* Puts `device` into a transport, or destroys it. */
struct error *machine_device_attach(struct machine *machine, struct virtio_device *device,
                                    struct virtio_mmio **transport);

/* machine_cpu.c */

/* Has the guest find what the template `name` says (NONE: what the host has) from now on. */
void machine_cpu_template_set(struct machine *machine, enum cpu_template name);
/* Forgets what was put to /cpu-config. */
void machine_custom_cpu_free(struct machine *machine);
/* Asks the host for the capabilities that were put to /cpu-config. Once /dev/kvm is open. */
struct error *machine_custom_cpu_check(const struct machine *machine);

/* machine_pmem.c */
struct error *machine_pmem_new(struct machine *machine, const struct pmem_config *config,
                               struct virtio_mmio **transport);
/* Gives each pmem device its place and its memslot: all of them are made, and no irqchip is yet. */
struct error *machine_pmem_connect(struct machine *machine);

/* machine_registers.c */
/* Makes the memslot of the devices' registers: no irqchip is yet. The pages are those of the VM before. */
struct error *machine_registers_map(struct machine *machine);
/* After the devices are gone. */
void machine_registers_unmap(struct machine *machine);
/* From now on the guest finds the devices there. */
void machine_registers_show(struct machine *machine);

/* Makes the devices that the configuration has and the machine lost (see machine_put.c). */
struct error *machine_devices_complete(struct machine *machine);

/* Destroys *transport and makes it NULL. */
void machine_device_free(struct machine *machine, struct virtio_mmio **transport);

/* machine_patch.c: what changing any device has in common. */

/* Refuses to patch `what` before the microVM has started. */
struct error *machine_check_started(const struct machine *machine, const char *what);
/* What GET /vm/config shows after an update: a bucket with a zero in it no longer limits. */
void machine_rate_limiter_config_update(struct rate_limiter_config *limiter, const struct rate_limiter_config *update);

/* machine_put.c: what putting any device has in common. */

/* Moves *config into *place and empties it: the machine owns its strings now. */
#define take_config(place, config)                                                                                     \
    do {                                                                                                               \
        *(place) = *(config);                                                                                          \
        memset(config, 0, sizeof(*(config)));                                                                          \
    } while (0)

/* Refuses to put `what` once the microVM has started. */
struct error *machine_check_not_started(const struct machine *machine, const char *what);
/* Refuses more memory than a host can have to do with. */
struct error *machine_check_host_memory(const char *field, uint64_t size_mib);
/* Refuses an id that is not 1 to ID_LENGTH_MAX letters, digits, '_', '-', '.' and '/'; `field` is its name in the API. */
struct error *machine_check_id(const char *field, const char *id);
/* Refuses one device more than fit. */
struct error *machine_check_room(const struct machine *machine, const char *what);
/* A device that lost its place to a successor which then failed comes back; if it cannot, the start will tell. */
void machine_devices_bring_back(struct machine *machine);
