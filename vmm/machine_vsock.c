/* The vsock device of a machine. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <string.h>

struct error *machine_vsock_new(struct machine *machine, const struct vsock_config *config,
                                const struct vsock_seqpacket_config *seqpacket, struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_vsock_new(config, seqpacket, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

/* The paths of the device's sockets are taken until it lets go of them: it goes before the next one is made. */
static struct error *replace(struct machine *machine, const struct vsock_config *config,
                             const struct vsock_seqpacket_config *seqpacket)
{
    struct virtio_mmio *transport;
    struct error *error;

    if (machine->vsock != NULL)
        machine_device_free(machine, &machine->vsock);
    error = machine_vsock_new(machine, config, seqpacket, &transport);
    if (error != NULL) {
        machine_devices_bring_back(machine);
        machine_prepare_later(machine);
        return error;
    }
    machine->vsock = transport;
    return NULL;
}

struct error *machine_put_vsock(struct machine *machine, struct vsock_config *config)
{
    struct error *error = machine_check_not_started(machine, "vsock");

    if (error == NULL && config->uds_path == NULL)
        error = error_new(ERROR_INPUT, "uds_path: missing, expected a path");
    if (error == NULL && !machine->config.vsock.present)
        error = machine_check_room(machine, "vsock");
    if (error == NULL)
        error = replace(machine, config, &machine->config.vsock_seqpacket);
    if (error != NULL)
        return error;
    vsock_config_free(&machine->config.vsock);
    take_config(&machine->config.vsock, config);
    machine->config.vsock.present = true;
    machine_prepare_later(machine);
    return NULL;
}

struct error *machine_put_vsock_seqpacket(struct machine *machine, struct vsock_seqpacket_config *config)
{
    struct error *error = machine_check_not_started(machine, "vsock-seqpacket");

    if (error == NULL && !machine->config.vsock.present)
        error = error_new(ERROR_STATE, "vsock-seqpacket: there is no vsock device; put one first");
    if (error == NULL && config->uds_path == NULL)
        error = error_new(ERROR_INPUT, "uds_path: missing, expected a path");
    if (error == NULL) {
        config->present = true;
        error = replace(machine, &machine->config.vsock, config);
    }
    if (error != NULL)
        return error;
    vsock_seqpacket_config_free(&machine->config.vsock_seqpacket);
    take_config(&machine->config.vsock_seqpacket, config);
    machine_prepare_later(machine);
    return NULL;
}
