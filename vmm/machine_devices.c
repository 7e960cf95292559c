#include "vmm/machine_parts.h"

#include "vmm/virtio/devices.h"

struct error *machine_device_attach(struct machine *machine, struct virtio_device *device,
                                    struct virtio_mmio **transport)
{
    struct error *error = virtio_mmio_new(device, &machine->memory, machine->loop, transport);

    if (error != NULL)
        virtio_device_destroy(device);
    return error;
}

struct error *machine_drive_new(struct machine *machine, const struct drive_config *config,
                                struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = config->socket != NULL ? virtio_vhost_user_block_new(config, machine->loop, &device)
                                                 : virtio_block_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

struct error *machine_network_interface_new(struct machine *machine, const struct network_interface_config *config,
                                            struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = network_interface_is_vhost_user(config)
                              ? virtio_vhost_user_net_new(config, machine->loop, &device)
                          : config->vhost ? virtio_vhost_net_new(config, machine->loop, &device)
                                          : virtio_net_new(config, machine->loop, &device);

    if (error != NULL)
        return error;
    error = machine_mmds_connect(machine, config, device);
    if (error == NULL)
        return machine_device_attach(machine, device, transport);
    virtio_device_destroy(device);
    return error;
}

struct error *machine_entropy_new(struct machine *machine, const struct entropy_config *config,
                                  struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_entropy_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

struct error *machine_console_new(struct machine *machine, const struct console_config *config,
                                  struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_console_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

struct error *machine_devices_complete(struct machine *machine)
{
    const struct vm_config *config = &machine->config;
    struct error *error = NULL;

    for (size_t i = 0; error == NULL && i < config->drive_count; i++)
        if (machine->drives[i] == NULL)
            error = machine_drive_new(machine, &config->drives[i], &machine->drives[i]);
    for (size_t i = 0; error == NULL && i < config->network_interface_count; i++)
        if (machine->network_interfaces[i] == NULL)
            error =
                machine_network_interface_new(machine, &config->network_interfaces[i], &machine->network_interfaces[i]);
    if (error == NULL && config->entropy.present && machine->entropy == NULL)
        error = machine_entropy_new(machine, &config->entropy, &machine->entropy);
    if (error == NULL && config->console.port_count > 0 && machine->console == NULL)
        error = machine_console_new(machine, &config->console, &machine->console);
    for (size_t i = 0; error == NULL && i < config->pmem_count; i++)
        if (machine->pmem[i] == NULL)
            error = machine_pmem_new(machine, &config->pmem[i], &machine->pmem[i]);
    if (error == NULL && config->vsock.present && machine->vsock == NULL)
        error = machine_vsock_new(machine, &config->vsock, &config->vsock_seqpacket, &machine->vsock);
    for (size_t i = 0; error == NULL && i < config->file_system_count; i++)
        if (machine->file_systems[i] == NULL)
            error = machine_file_system_new(machine, &config->file_systems[i], &machine->file_systems[i]);
    if (error == NULL && config->balloon.present && machine->balloon == NULL)
        error = machine_balloon_new(machine, &config->balloon, &machine->balloon);
    if (error == NULL && config->memory_hotplug.present && machine->memory_hotplug == NULL)
        error = machine_memory_hotplug_new(machine, &config->memory_hotplug, &machine->memory_hotplug);
    return error;
}

/* A slot that the VM connected to it stays taken; the next device may get the same address from malloc. */
void machine_device_free(struct machine *machine, struct virtio_mmio **transport)
{
    for (size_t i = 0; i < machine->connected_count; i++)
        if (machine->connected[i] == *transport)
            machine->connected[i] = NULL;
    virtio_mmio_free(*transport);
    *transport = NULL;
}
