/* The balloon device of a machine. */
#include "vmm/machine_parts.h"

#include "vmm/base/log.h"
#include "vmm/hotplug_memory.h"
#include "vmm/virtio/devices.h"

#include <string.h>

struct error *machine_balloon_new(struct machine *machine, const struct balloon_config *config,
                                  struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_balloon_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

void machine_balloon_note(const struct machine *machine)
{
    if (machine->config.balloon.present && machine->config.machine.huge_pages == HUGE_PAGES_2M)
        log_warning("balloon: what the guest gives up in pages of 4 KiB does not go back to the host with huge_pages "
                    "2M: use /hotplug/memory");
}

struct error *machine_check_balloon(uint64_t amount_mib, uint64_t memory_mib)
{
    if (amount_mib > BALLOON_MIB_MAX)
        return error_new(ERROR_INPUT, "amount_mib: %llu, expected at most %d, all that a balloon can hold",
                         (unsigned long long)amount_mib, BALLOON_MIB_MAX);
    if (amount_mib <= memory_mib)
        return NULL;
    return error_new(ERROR_INPUT, "amount_mib: %llu, expected at most the %llu MiB that the guest has",
                     (unsigned long long)amount_mib, (unsigned long long)memory_mib);
}

/* What the guest has at the moment. */
static uint64_t memory_mib(const struct machine *machine)
{
    return machine->config.machine.mem_size_mib + (machine->hotplug.plugged_size >> 20);
}

struct error *machine_put_balloon(struct machine *machine, struct balloon_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "balloon");

    if (error == NULL)
        error = machine_check_balloon(config->amount_mib, memory_mib(machine));
    if (error == NULL && !machine->config.balloon.present)
        error = machine_check_room(machine, "balloon");
    if (error == NULL)
        error = machine_balloon_new(machine, config, &transport);
    if (error != NULL)
        return error;
    if (machine->balloon != NULL)
        machine_device_free(machine, &machine->balloon);
    machine->balloon = transport;
    take_config(&machine->config.balloon, config);
    machine->config.balloon.present = true;
    machine_prepare_later(machine);
    return NULL;
}

static struct error *check_balloon(const struct machine *machine)
{
    if (machine->balloon != NULL)
        return NULL;
    return error_new(ERROR_STATE, "balloon: there is none, expected one put before the microVM started");
}

static struct error *check_statistics(const struct machine *machine)
{
    struct error *error = check_balloon(machine);

    if (error != NULL || machine->config.balloon.stats_polling_interval_s > 0)
        return error;
    return error_new(ERROR_STATE, "balloon: no statistics, expected one put with a stats_polling_interval_s above 0");
}

static struct error *check_hinting(const struct machine *machine)
{
    struct error *error = check_balloon(machine);

    if (error == NULL)
        error = machine_check_started(machine, "balloon/hinting");
    if (error != NULL || machine->config.balloon.free_page_hinting)
        return error;
    return error_new(ERROR_STATE, "balloon: no free page hinting, expected one put with free_page_hinting");
}

struct error *machine_patch_balloon(struct machine *machine, const struct balloon_update *update)
{
    struct error *error = check_balloon(machine);

    if (error == NULL)
        error = machine_check_balloon(update->amount_mib, memory_mib(machine));
    if (error != NULL)
        return error;
    virtio_balloon_resize(virtio_mmio_device(machine->balloon), update->amount_mib);
    machine->config.balloon.amount_mib = update->amount_mib;
    return NULL;
}

/* The guest learns once whether there are statistics. */
struct error *machine_patch_balloon_statistics(struct machine *machine, const struct balloon_statistics_update *update)
{
    struct error *error = check_balloon(machine);
    uint32_t *interval_s = &machine->config.balloon.stats_polling_interval_s;

    if (error != NULL)
        return error;
    if ((update->stats_polling_interval_s == 0) != (*interval_s == 0))
        return error_new(ERROR_STATE, "stats_polling_interval_s: %u, expected %s: statistics are put on or off once",
                         update->stats_polling_interval_s, *interval_s == 0 ? "0" : "more than 0");
    if (*interval_s > 0)
        virtio_balloon_poll(virtio_mmio_device(machine->balloon), update->stats_polling_interval_s);
    *interval_s = update->stats_polling_interval_s;
    return NULL;
}

struct error *machine_get_balloon(const struct machine *machine, struct balloon_config *config)
{
    struct error *error = check_balloon(machine);

    if (error == NULL)
        *config = machine->config.balloon;
    return error;
}

struct error *machine_get_balloon_statistics(const struct machine *machine, struct balloon_statistics *statistics)
{
    struct error *error = check_statistics(machine);

    if (error == NULL)
        virtio_balloon_statistics(virtio_mmio_device(machine->balloon), statistics);
    return error;
}

struct error *machine_start_balloon_hinting(struct machine *machine, const struct balloon_hinting_start *start)
{
    struct error *error = check_hinting(machine);

    if (error == NULL)
        virtio_balloon_hinting_start(virtio_mmio_device(machine->balloon), start->acknowledge_on_stop);
    return error;
}

struct error *machine_stop_balloon_hinting(struct machine *machine)
{
    struct error *error = check_hinting(machine);

    if (error == NULL)
        virtio_balloon_hinting_stop(virtio_mmio_device(machine->balloon));
    return error;
}

struct error *machine_get_balloon_hinting(const struct machine *machine, struct balloon_hinting_status *status)
{
    struct error *error = check_hinting(machine);

    if (error == NULL)
        virtio_balloon_hinting_status(virtio_mmio_device(machine->balloon), status);
    return error;
}
