/* Changing the console while the microVM runs or is paused. */
#include "vmm/machine_parts.h"

#include "vmm/virtio/devices.h"

#include <string.h>

/* What the next device of this machine would begin with. */
static void note_update(struct console_config *config, const struct console_update *update)
{
    for (size_t i = 0; i < config->port_count; i++) {
        struct console_port_config *port = &config->ports[i];

        if (strcmp(port->name, update->name) != 0)
            continue;
        if (update->has_unplugged)
            port->unplugged = update->unplugged;
        if (update->columns != 0) {
            port->columns = update->columns;
            port->rows = update->rows;
        }
    }
}

struct error *machine_patch_console(struct machine *machine, struct console_update *update)
{
    struct error *error = machine_check_started(machine, "console");

    if (error == NULL && machine->console == NULL)
        error = error_new(ERROR_STATE, "console: the microVM has none");
    if (error == NULL)
        error = virtio_console_update(virtio_mmio_device(machine->console), update);
    if (error != NULL)
        return error;
    note_update(&machine->config.console, update);
    console_update_free(update);
    return NULL;
}
