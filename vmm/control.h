/*
 * What can be asked of a machine. The API maps requests onto these calls and nothing else. All run on the event
 * loop's thread, and wait for nobody but the host's files, vCPUs that are to leave the guest, and back ends of
 * vhost-user devices, which have their time (vmm/devices.md).
 *
 * Life cycle: not started -> running <-> paused -> gone. The route table of the API refuses requests that are wrong
 * for the state before they come here; the calls check again only where the machine would be harmed.
 *
 * `machine_put_*` checks the struct against the rest of the configuration and the host, and on success takes over
 * what it owns (the caller's copy is zeroed); on failure nothing has changed and the caller still owns it. Putting the
 * same id again replaces. The error's message names the API field, the value and what was expected.
 */
#pragma once

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/config.h"
#include "vmm/mmds/value.h"

enum machine_state { MACHINE_NOT_STARTED, MACHINE_RUNNING, MACHINE_PAUSED };

struct machine;

struct error *machine_put_machine_config(struct machine *machine, struct machine_config *config);
/*
 * Sets the CPU features that the guest finds; takes the place of a cpu_template of the machine configuration, as a
 * later cpu_template does of it.
 */
struct error *machine_put_cpu_config(struct machine *machine, struct cpu_config *config);
struct error *machine_put_boot_source(struct machine *machine, struct boot_source_config *config);
/* Makes a drive that was put before anew, with these options; they stay when it is put again. */
struct error *machine_put_drive_options(struct machine *machine, struct drive_options *options);
struct error *machine_put_network_options(struct machine *machine, struct network_interface_options *options);
struct error *machine_put_drive(struct machine *machine, struct drive_config *config);
struct error *machine_put_network_interface(struct machine *machine, struct network_interface_config *config);
struct error *machine_put_pmem(struct machine *machine, struct pmem_config *config);
struct error *machine_put_entropy(struct machine *machine, struct entropy_config *config);
struct error *machine_put_balloon(struct machine *machine, struct balloon_config *config);
struct error *machine_put_memory_hotplug(struct machine *machine, struct memory_hotplug_config *config);
struct error *machine_put_serial(struct machine *machine, struct serial_config *config);
struct error *machine_put_console(struct machine *machine, struct console_config *config);
struct error *machine_put_file_system(struct machine *machine, struct file_system_config *config);
struct error *machine_put_vsock(struct machine *machine, struct vsock_config *config);
/* Only when there is a vsock device. */
struct error *machine_put_vsock_seqpacket(struct machine *machine, struct vsock_seqpacket_config *config);
struct error *machine_put_mmds_config(struct machine *machine, struct mmds_config *config);

/*
 * The metadata, at any time: an object, which put takes on success. patch merges (RFC 7396). What they return is
 * borrowed until the next of them, NULL before the first.
 */
struct error *machine_put_mmds(struct machine *machine, struct mmds_value *contents);
struct error *machine_patch_mmds(struct machine *machine, const struct mmds_value *patch);
const struct mmds_value *machine_mmds(const struct machine *machine);

/* The logger may be put at any time. The metrics file can be set once. */
struct error *machine_put_logger(struct machine *machine, struct logger_config *config);
struct error *machine_put_metrics(struct machine *machine, struct metrics_config *config);

/* While running or paused; the same ownership rule as put. */
struct error *machine_patch_drive(struct machine *machine, struct drive_update *update);
struct error *machine_patch_console(struct machine *machine, struct console_update *update);
struct error *machine_patch_network_interface(struct machine *machine, struct network_interface_update *update);
struct error *machine_patch_pmem(struct machine *machine, struct pmem_update *update);

/* At any time; without a balloon device, or one without what is asked for, an error. */
struct error *machine_patch_balloon(struct machine *machine, const struct balloon_update *update);
struct error *machine_patch_balloon_statistics(struct machine *machine, const struct balloon_statistics_update *update);
struct error *machine_get_balloon(const struct machine *machine, struct balloon_config *config);
struct error *machine_get_balloon_statistics(const struct machine *machine, struct balloon_statistics *statistics);

/* While running or paused. A run of hints begins with start, and ends when the guest has told all or by stop. */
struct error *machine_start_balloon_hinting(struct machine *machine, const struct balloon_hinting_start *start);
struct error *machine_stop_balloon_hinting(struct machine *machine);
struct error *machine_get_balloon_hinting(const struct machine *machine, struct balloon_hinting_status *status);
struct error *machine_patch_memory_hotplug(struct machine *machine, const struct memory_hotplug_update *update);
struct error *machine_get_memory_hotplug(const struct machine *machine, struct memory_hotplug_status *status);

/* Finishes what preparation left, then lets the vCPUs go. After an error the machine is not started and unchanged. */
struct error *machine_start(struct machine *machine);
/* Returns when every vCPU has left the guest. Pausing a paused machine and resuming a running one succeed. */
struct error *machine_pause(struct machine *machine);
struct error *machine_resume(struct machine *machine);
struct error *machine_send_ctrl_alt_del(struct machine *machine);
/*
 * Presses the power button that ACPI tells the guest of. What it does is the guest's: Mayfly's init and systemd power
 * off in order; a guest without ACPI takes no notice.
 */
struct error *machine_press_power_button(struct machine *machine);
struct error *machine_flush_metrics(struct machine *machine);

enum machine_state machine_state(const struct machine *machine);
const char *machine_id(const struct machine *machine);
/* The configuration as accepted so far; borrowed, valid until the next put or patch. */
const struct vm_config *machine_configuration(const struct machine *machine);
