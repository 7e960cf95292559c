/*
 * What drives and network interfaces can beyond the reference, set for one that was put before: it is made anew. A tap,
 * or a vhost-user back end, has one owner at a time: the device to be replaced lets go first, and comes back when its
 * successor fails.
 */
#include "vmm/machine_parts.h"

#include "vmm/virtio/devices.h"

#include <string.h>

static struct error *replace_drive(struct machine *machine, size_t place, const struct drive_config *changed)
{
    struct virtio_mmio *transport;

    if (changed->socket != NULL)
        machine_device_free(machine, &machine->drives[place]);

    struct error *error = machine_drive_new(machine, changed, &transport);
    if (error != NULL) {
        machine_devices_bring_back(machine);
        return error;
    }
    if (machine->drives[place] != NULL)
        machine_device_free(machine, &machine->drives[place]);
    machine->drives[place] = transport;
    machine->config.drives[place] = *changed;
    return NULL;
}

struct error *machine_put_drive_options(struct machine *machine, struct drive_options *options)
{
    const struct vm_config *config = &machine->config;
    struct error *error = machine_check_not_started(machine, "drives");
    size_t place;

    if (error == NULL)
        error = machine_check_id("drive_id", options->drive_id);
    if (error != NULL)
        return error;
    place = drive_find(config, options->drive_id);
    if (place == config->drive_count)
        return error_new(ERROR_INPUT, "drive_id: '%s', expected the id of a configured drive", options->drive_id);

    struct drive_config changed = config->drives[place];
    if (changed.socket != NULL && options->direct)
        return error_new(ERROR_INPUT, "direct: true, but drive '%s' is a vhost-user back end's, expected false",
                         options->drive_id);
    changed.direct = options->direct;
    changed.queue_count = options->queue_count;
    error = replace_drive(machine, place, &changed);
    if (error == NULL)
        drive_options_free(options);
    machine_prepare_later(machine);
    return error;
}

/* What the host's kernel moves it can neither limit nor take from anything but a tap. */
static struct error *check_vhost(const struct network_interface_config *config)
{
    if (config->backend.present)
        return error_new(ERROR_INPUT, "vhost: true, but interface '%s' is on a backend, expected a tap",
                         config->iface_id);
    if (config->rx_rate_limiter.present || config->tx_rate_limiter.present)
        return error_new(ERROR_INPUT, "vhost: true, but interface '%s' has %s, expected none", config->iface_id,
                         config->rx_rate_limiter.present ? "rx_rate_limiter" : "tx_rate_limiter");
    return NULL;
}

struct error *machine_put_network_options(struct machine *machine, struct network_interface_options *options)
{
    struct vm_config *config = &machine->config;
    struct error *error = machine_check_not_started(machine, "network-interfaces");
    struct virtio_mmio *transport;
    size_t place;

    if (error == NULL)
        error = machine_check_id("iface_id", options->iface_id);
    if (error != NULL)
        return error;
    place = network_interface_find(config, options->iface_id);
    if (place == config->network_interface_count)
        return error_new(ERROR_INPUT, "iface_id: '%s', expected the id of a configured interface", options->iface_id);

    struct network_interface_config changed = config->network_interfaces[place];
    changed.queue_count = options->queue_count;
    changed.vhost = options->vhost;
    error = changed.vhost ? check_vhost(&changed) : NULL;
    if (error != NULL)
        return error;
    machine_device_free(machine, &machine->network_interfaces[place]);
    error = machine_network_interface_new(machine, &changed, &transport);
    if (error == NULL) {
        machine->network_interfaces[place] = transport;
        config->network_interfaces[place] = changed;
        network_interface_options_free(options);
    } else {
        machine_devices_bring_back(machine);
    }
    machine_prepare_later(machine);
    return error;
}
