/*
 * A machine that only remembers: what stands behind vmm/control.h in the API's tests. It defines those functions, so
 * one .c file of a test program includes it, and nothing of the real machine is linked into that program.
 */
#pragma once

#include "api/schema_objects.h"
#include "vmm/control.h"
#include "vmm/metrics.h"

#include <stdlib.h>
#include <string.h>

struct machine {
    enum machine_state state;
    struct vm_config config;
    struct drive_update drive_update;                         /* the last */
    struct network_interface_update network_interface_update; /* the last */
    struct drive_options drive_options;                       /* the last */
    struct network_interface_options network_options;         /* the last */
    struct cpu_config cpu_config;                             /* the last */
    struct pmem_update pmem_update;                           /* the last */
    uint32_t hinting;                                         /* 0: none, 1: to be stopped, 2: stops by itself */
    uint64_t requested_size_mib;                              /* of the last patch */
    unsigned starts, ctrl_alt_dels, power_buttons, flushes;
    struct mmds_value *mmds;
    const char *refusal; /* what the next put, patch or action answers, NULL: success */
};

static struct machine fake_machine;

static inline void fake_machine_reset(void)
{
    schema_free(&drive_update_schema, &fake_machine.drive_update);
    schema_free(&network_interface_update_schema, &fake_machine.network_interface_update);
    pmem_update_free(&fake_machine.pmem_update);
    schema_free(&pmem_update_schema, &fake_machine.pmem_update);
    schema_free(&cpu_config_schema, &fake_machine.cpu_config);
    drive_options_free(&fake_machine.drive_options);
    network_interface_options_free(&fake_machine.network_options);
    mmds_value_free(fake_machine.mmds);
    vm_config_free(&fake_machine.config);
    fake_machine = (struct machine){0};
    machine_config_default(&fake_machine.config.machine);
}

static struct error *fake_refusal(struct machine *machine)
{
    const char *text = machine->refusal;

    machine->refusal = NULL;
    return text == NULL ? NULL : error_new(ERROR_HOST, "%s", text);
}

#define FAKE_TAKE(destination, source, release)                                                                        \
    do {                                                                                                               \
        struct error *error_ = fake_refusal(machine);                                                                  \
        if (error_ != NULL)                                                                                            \
            return error_;                                                                                             \
        release(destination);                                                                                          \
        *(destination) = *(source);                                                                                    \
        memset(source, 0, sizeof(*(source)));                                                                          \
        return NULL;                                                                                                   \
    } while (0)
#define FAKE_OWNS_NOTHING(pointer) (void)(pointer)

struct error *machine_put_machine_config(struct machine *machine, struct machine_config *config)
{
    FAKE_TAKE(&machine->config.machine, config, FAKE_OWNS_NOTHING);
}

struct error *machine_put_drive_options(struct machine *machine, struct drive_options *options)
{
    FAKE_TAKE(&machine->drive_options, options, drive_options_free);
}

struct error *machine_put_network_options(struct machine *machine, struct network_interface_options *options)
{
    FAKE_TAKE(&machine->network_options, options, network_interface_options_free);
}

struct error *machine_put_cpu_config(struct machine *machine, struct cpu_config *config)
{
    FAKE_TAKE(&machine->cpu_config, config, cpu_config_free);
}

struct error *machine_put_boot_source(struct machine *machine, struct boot_source_config *config)
{
    FAKE_TAKE(&machine->config.boot_source, config, boot_source_config_free);
}

struct error *machine_put_drive(struct machine *machine, struct drive_config *config)
{
    size_t i = 0;

    while (i < machine->config.drive_count && strcmp(machine->config.drives[i].drive_id, config->drive_id) != 0)
        i++;
    if (i == VIRTIO_DEVICES_MAX)
        return error_new(ERROR_INPUT, "too many drives");
    if (machine->refusal == NULL && i == machine->config.drive_count)
        machine->config.drive_count++;
    config->has_is_read_only = config->has_io_engine = config->socket == NULL;
    FAKE_TAKE(&machine->config.drives[i], config, drive_config_free);
}

struct error *machine_put_network_interface(struct machine *machine, struct network_interface_config *config)
{
    struct vm_config *all = &machine->config;
    size_t i = 0;

    while (i < all->network_interface_count && strcmp(all->network_interfaces[i].iface_id, config->iface_id) != 0)
        i++;
    if (i == VIRTIO_DEVICES_MAX)
        return error_new(ERROR_INPUT, "too many interfaces");
    if (machine->refusal == NULL && i == all->network_interface_count)
        all->network_interface_count++;
    FAKE_TAKE(&all->network_interfaces[i], config, network_interface_config_free);
}

struct error *machine_put_pmem(struct machine *machine, struct pmem_config *config)
{
    if (machine->refusal == NULL)
        machine->config.pmem_count = 1;
    FAKE_TAKE(&machine->config.pmem[0], config, pmem_config_free);
}

struct error *machine_patch_pmem(struct machine *machine, struct pmem_update *update)
{
    FAKE_TAKE(&machine->pmem_update, update, pmem_update_free);
}

struct error *machine_put_entropy(struct machine *machine, struct entropy_config *config)
{
    FAKE_TAKE(&machine->config.entropy, config, FAKE_OWNS_NOTHING);
}

struct error *machine_put_balloon(struct machine *machine, struct balloon_config *config)
{
    config->present = true;
    FAKE_TAKE(&machine->config.balloon, config, FAKE_OWNS_NOTHING);
}

struct error *machine_patch_balloon(struct machine *machine, const struct balloon_update *update)
{
    struct error *error = fake_refusal(machine);

    if (error == NULL)
        machine->config.balloon.amount_mib = update->amount_mib;
    return error;
}

struct error *machine_patch_balloon_statistics(struct machine *machine, const struct balloon_statistics_update *update)
{
    struct error *error = fake_refusal(machine);

    if (error == NULL)
        machine->config.balloon.stats_polling_interval_s = update->stats_polling_interval_s;
    return error;
}

struct error *machine_get_balloon(const struct machine *machine, struct balloon_config *config)
{
    *config = machine->config.balloon;
    return NULL;
}

struct error *machine_get_balloon_statistics(const struct machine *machine, struct balloon_statistics *statistics)
{
    (void)machine;
    *statistics = (struct balloon_statistics){
        .target_pages = 256,
        .target_mib = 1,
        .value = {[BALLOON_FREE_MEMORY] = UINT64_MAX, [BALLOON_OOM_KILL] = 0},
        .given = {[BALLOON_FREE_MEMORY] = true, [BALLOON_OOM_KILL] = true},
    };
    return NULL;
}

struct error *machine_start_balloon_hinting(struct machine *machine, const struct balloon_hinting_start *start)
{
    machine->hinting = start->acknowledge_on_stop ? 2 : 1;
    return fake_refusal(machine);
}

struct error *machine_stop_balloon_hinting(struct machine *machine)
{
    machine->hinting = 0;
    return fake_refusal(machine);
}

struct error *machine_get_balloon_hinting(const struct machine *machine, struct balloon_hinting_status *status)
{
    *status = (struct balloon_hinting_status){
        .host_cmd = machine->hinting, .guest_cmd = 5, .has_guest_cmd = machine->hinting == 2};
    return NULL;
}

struct error *machine_put_memory_hotplug(struct machine *machine, struct memory_hotplug_config *config)
{
    config->present = true;
    FAKE_TAKE(&machine->config.memory_hotplug, config, FAKE_OWNS_NOTHING);
}

struct error *machine_patch_memory_hotplug(struct machine *machine, const struct memory_hotplug_update *update)
{
    machine->requested_size_mib = update->requested_size_mib;
    return fake_refusal(machine);
}

struct error *machine_get_memory_hotplug(const struct machine *machine, struct memory_hotplug_status *status)
{
    *status = (struct memory_hotplug_status){
        .total_size_mib = machine->config.memory_hotplug.total_size_mib,
        .slot_size_mib = machine->config.memory_hotplug.slot_size_mib,
        .block_size_mib = machine->config.memory_hotplug.block_size_mib,
        .requested_size_mib = machine->requested_size_mib,
    };
    return NULL;
}

struct error *machine_put_serial(struct machine *machine, struct serial_config *config)
{
    FAKE_TAKE(&machine->config.serial, config, serial_config_free);
}

struct error *machine_put_console(struct machine *machine, struct console_config *config)
{
    FAKE_TAKE(&machine->config.console, config, console_config_free);
}

struct error *machine_put_file_system(struct machine *machine, struct file_system_config *config)
{
    machine->config.file_system_count = 1;
    FAKE_TAKE(&machine->config.file_systems[0], config, file_system_config_free);
}

struct error *machine_put_vsock(struct machine *machine, struct vsock_config *config)
{
    if (machine->refusal == NULL)
        config->present = true;
    FAKE_TAKE(&machine->config.vsock, config, vsock_config_free);
}

struct error *machine_put_vsock_seqpacket(struct machine *machine, struct vsock_seqpacket_config *config)
{
    FAKE_TAKE(&machine->config.vsock_seqpacket, config, vsock_seqpacket_config_free);
}

struct error *machine_put_mmds_config(struct machine *machine, struct mmds_config *config)
{
    if (machine->refusal == NULL)
        config->present = true;
    FAKE_TAKE(&machine->config.mmds, config, mmds_config_free);
}

struct error *machine_put_mmds(struct machine *machine, struct mmds_value *contents)
{
    struct error *error = fake_refusal(machine);

    if (error != NULL)
        return error;
    mmds_value_free(machine->mmds);
    machine->mmds = contents;
    return NULL;
}

struct error *machine_patch_mmds(struct machine *machine, const struct mmds_value *patch)
{
    struct error *error = fake_refusal(machine);

    if (error == NULL && machine->mmds == NULL)
        machine->mmds = mmds_value_new(MMDS_OBJECT, NULL, 0);
    if (error == NULL && !mmds_value_merge(machine->mmds, patch))
        error = error_new(ERROR_INTERNAL, "out of memory");
    return error;
}

const struct mmds_value *machine_mmds(const struct machine *machine)
{
    return machine->mmds;
}

struct error *machine_put_logger(struct machine *machine, struct logger_config *config)
{
    FAKE_TAKE(&machine->config.logger, config, logger_config_free);
}

struct error *machine_put_metrics(struct machine *machine, struct metrics_config *config)
{
    FAKE_TAKE(&machine->config.metrics, config, metrics_config_free);
}

struct error *machine_patch_console(struct machine *machine, struct console_update *update)
{
    struct error *error = fake_refusal(machine);

    if (error == NULL)
        console_update_free(update);
    return error;
}

struct error *machine_patch_drive(struct machine *machine, struct drive_update *update)
{
    FAKE_TAKE(&machine->drive_update, update, drive_update_free);
}

struct error *machine_patch_network_interface(struct machine *machine, struct network_interface_update *update)
{
    FAKE_TAKE(&machine->network_interface_update, update, network_interface_update_free);
}

struct error *machine_start(struct machine *machine)
{
    struct error *error = fake_refusal(machine);

    if (error != NULL)
        return error;
    machine->state = MACHINE_RUNNING;
    machine->starts++;
    return NULL;
}

struct error *machine_pause(struct machine *machine)
{
    machine->state = MACHINE_PAUSED;
    return NULL;
}

struct error *machine_resume(struct machine *machine)
{
    machine->state = MACHINE_RUNNING;
    return NULL;
}

struct error *machine_press_power_button(struct machine *machine)
{
    struct error *error = fake_refusal(machine);

    if (error == NULL)
        machine->power_buttons++;
    return error;
}

struct error *machine_send_ctrl_alt_del(struct machine *machine)
{
    machine->ctrl_alt_dels++;
    return NULL;
}

struct error *machine_flush_metrics(struct machine *machine)
{
    machine->flushes++;
    return NULL;
}

enum machine_state machine_state(const struct machine *machine)
{
    return machine->state;
}

const char *machine_id(const struct machine *machine)
{
    (void)machine;
    return "fake-1";
}

const struct vm_config *machine_configuration(const struct machine *machine)
{
    return &machine->config;
}
