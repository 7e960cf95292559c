/* The vsock device of a machine. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <string.h>

struct error *machine_vsock_new(struct machine *machine, const struct vsock_config *config,
                                struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_vsock_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

struct error *machine_put_vsock(struct machine *machine, struct vsock_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "vsock");

    if (error == NULL && config->uds_path == NULL)
        error = error_new(ERROR_INPUT, "uds_path: missing, expected a path");
    if (error == NULL && !machine->config.vsock.present)
        error = machine_check_room(machine, "vsock");
    if (error != NULL)
        return error;

    /* Its socket's path is taken until the old device lets go of it. */
    if (machine->vsock != NULL)
        machine_device_free(machine, &machine->vsock);
    error = machine_vsock_new(machine, config, &transport);
    if (error != NULL) {
        machine_devices_bring_back(machine);
        machine_prepare_later(machine);
        return error;
    }
    vsock_config_free(&machine->config.vsock);
    machine->vsock = transport;
    take_config(&machine->config.vsock, config);
    machine->config.vsock.present = true;
    machine_prepare_later(machine);
    return NULL;
}
