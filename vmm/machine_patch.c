/* Changing devices while the microVM runs or is paused. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <string.h>

struct error *machine_check_started(const struct machine *machine, const char *what)
{
    if (machine->state != MACHINE_NOT_STARTED)
        return NULL;
    return error_new(ERROR_STATE, "%s: cannot be patched before the microVM has started", what);
}

/* What GET /vm/config shows: a bucket with a zero in it no longer limits. */
static void bucket_update(struct token_bucket_config *bucket, const struct token_bucket_config *update)
{
    if (!update->present)
        return;
    *bucket = *update;
    if (update->size == 0 || update->refill_time == 0)
        *bucket = (struct token_bucket_config){0};
}

void machine_rate_limiter_config_update(struct rate_limiter_config *limiter, const struct rate_limiter_config *update)
{
    if (!update->present)
        return;
    bucket_update(&limiter->bandwidth, &update->bandwidth);
    bucket_update(&limiter->ops, &update->ops);
    limiter->present = limiter->bandwidth.present || limiter->ops.present;
}

/* What a back end has of a drive is asked for again; nothing of it is ours to change. */
static struct error *update_drive(struct virtio_device *device, const struct drive_config *config,
                                  const struct drive_update *update)
{
    if (config->socket == NULL)
        return virtio_block_update(device, update);
    if (update->path_on_host != NULL || update->rate_limiter.present)
        return error_new(ERROR_INPUT, "%s: given, but drive '%s' is a vhost-user back end's, expected drive_id alone",
                         update->path_on_host != NULL ? "path_on_host" : "rate_limiter", config->drive_id);

    struct error *error = virtio_vhost_user_config_read(device);
    return error == NULL ? NULL : error_wrap(error, "socket");
}

struct error *machine_patch_drive(struct machine *machine, struct drive_update *update)
{
    struct vm_config *all = &machine->config;
    struct error *error = machine_check_started(machine, "drives");

    if (error != NULL)
        return error;

    size_t place = drive_find(all, update->drive_id);
    struct drive_config *config = &all->drives[place];
    if (place == all->drive_count)
        return error_new(ERROR_INPUT, "drive_id: '%s', expected the id of a configured drive", update->drive_id);
    error = update_drive(virtio_mmio_device(machine->drives[place]), config, update);
    if (error != NULL)
        return error;
    if (update->path_on_host != NULL) {
        free(config->path_on_host);
        config->path_on_host = take_pointer(&update->path_on_host);
    }
    machine_rate_limiter_config_update(&config->rate_limiter, &update->rate_limiter);
    drive_update_free(update);
    return NULL;
}

struct error *machine_patch_network_interface(struct machine *machine, struct network_interface_update *update)
{
    struct vm_config *all = &machine->config;
    struct error *error = machine_check_started(machine, "network-interfaces");

    if (error != NULL)
        return error;

    size_t place = network_interface_find(all, update->iface_id);
    struct network_interface_config *config = &all->network_interfaces[place];
    if (place == all->network_interface_count)
        return error_new(ERROR_INPUT, "iface_id: '%s', expected the id of a configured interface", update->iface_id);
    if (network_interface_carrier(config) != NULL)
        return error_new(ERROR_INPUT, "rx_rate_limiter: interface '%s' takes no limits, as %s carries its frames",
                         config->iface_id, network_interface_carrier(config));
    error = virtio_net_update(virtio_mmio_device(machine->network_interfaces[place]), update);
    if (error != NULL)
        return error;
    machine_rate_limiter_config_update(&config->rx_rate_limiter, &update->rx_rate_limiter);
    machine_rate_limiter_config_update(&config->tx_rate_limiter, &update->tx_rate_limiter);
    network_interface_update_free(update);
    return NULL;
}
