/* Devices of a machine that another process serves: guest memory is shared with it, for as long as there is one. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <string.h>

bool machine_shares_memory(const struct machine *machine)
{
    const struct vm_config *config = &machine->config;

    for (size_t i = 0; i < config->drive_count; i++)
        if (config->drives[i].socket != NULL)
            return true;
    for (size_t i = 0; i < config->network_interface_count; i++)
        if (network_interface_is_vhost_user(&config->network_interfaces[i]))
            return true;
    return config->file_system_count > 0;
}

struct error *machine_file_system_new(struct machine *machine, const struct file_system_config *config,
                                      struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_file_system_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

static struct error *check_file_system(const struct machine *machine, const struct file_system_config *config,
                                       size_t place)
{
    const struct vm_config *all = &machine->config;

    if (config->tag == NULL || config->socket_path == NULL)
        return error_new(ERROR_INPUT, "%s: missing", config->tag == NULL ? "tag" : "socket_path");
    for (size_t i = 0; i < all->file_system_count; i++)
        if (i != place && strcmp(all->file_systems[i].tag, config->tag) == 0)
            return error_new(ERROR_INPUT, "tag: '%s' is the tag of file system '%s' already", config->tag,
                             all->file_systems[i].fs_id);
    return place < all->file_system_count ? NULL : machine_check_room(machine, "file-systems");
}

struct error *machine_put_file_system(struct machine *machine, struct file_system_config *config)
{
    struct vm_config *all = &machine->config;
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "file-systems");
    size_t place = 0;

    if (error == NULL)
        error = machine_check_id("fs_id", config->fs_id);
    if (error != NULL)
        return error;
    while (place < all->file_system_count && strcmp(all->file_systems[place].fs_id, config->fs_id) != 0)
        place++;
    error = check_file_system(machine, config, place);
    if (error != NULL)
        return error;

    /* A back end has one front end at a time: the one to be replaced lets go first. */
    bool replaces = place < all->file_system_count;
    if (replaces)
        machine_device_free(machine, &machine->file_systems[place]);
    error = machine_file_system_new(machine, config, &transport);
    if (error != NULL) {
        machine_devices_bring_back(machine);
        machine_prepare_later(machine);
        return error;
    }
    if (replaces)
        file_system_config_free(&all->file_systems[place]);
    else
        all->file_system_count++;
    machine->file_systems[place] = transport;
    take_config(&all->file_systems[place], config);
    machine_prepare_later(machine);
    return NULL;
}
