/* The metadata service of a machine: its contents, and the interfaces that lead to it. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/mmds/mmds.h"
#include "vmm/virtio/devices.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static const char address_default[] = "169.254.169.254";

/* Nobody pays for what nobody uses. */
static struct error *mmds_ensure(struct machine *machine)
{
    if (machine->mmds != NULL)
        return NULL;
    machine->mmds = calloc(1, sizeof(*machine->mmds));
    if (machine->mmds == NULL)
        return error_errno(ENOMEM, "cannot make the metadata service");
    machine->mmds->limit = machine->options.mmds_size_limit;
    return NULL;
}

struct error *machine_put_mmds(struct machine *machine, struct mmds_value *contents)
{
    struct error *error = mmds_ensure(machine);

    return error != NULL ? error : mmds_put(machine->mmds, contents);
}

struct error *machine_patch_mmds(struct machine *machine, const struct mmds_value *patch)
{
    struct error *error = mmds_ensure(machine);

    return error != NULL ? error : mmds_patch(machine->mmds, patch);
}

const struct mmds_value *machine_mmds(const struct machine *machine)
{
    return machine->mmds != NULL ? machine->mmds->contents : NULL;
}

/* 169.254/16 but for its first and last 256 addresses (RFC 3927). */
static bool address_parse(const char *text, uint32_t *address)
{
    struct in_addr parsed;

    if (inet_pton(AF_INET, text, &parsed) != 1)
        return false;
    *address = ntohl(parsed.s_addr);
    return *address >> 16 == 0xa9fe && (*address >> 8 & 0xff) != 0 && (*address >> 8 & 0xff) != 255;
}

/* Refuses an interface whose frames do not pass through here. */
static struct error *check_carrier(const struct network_interface_config *interface)
{
    const char *carrier = network_interface_carrier(interface);

    if (carrier == NULL)
        return NULL;
    return error_new(ERROR_INPUT, "network_interfaces: '%s', expected an interface whose frames %s does not carry",
                     interface->iface_id, carrier);
}

static struct error *check_mmds_config(const struct machine *machine, const struct mmds_config *config)
{
    uint32_t address;

    if (config->network_interfaces.count == 0)
        return error_new(ERROR_INPUT, "network_interfaces: none, expected the id of one at least");
    for (size_t i = 0; i < config->network_interfaces.count; i++) {
        const char *iface_id = config->network_interfaces.items[i];
        size_t place = network_interface_find(&machine->config, iface_id);

        if (place == machine->config.network_interface_count)
            return error_new(ERROR_INPUT, "network_interfaces[%zu]: '%s', expected the id of a configured interface", i,
                             iface_id);

        struct error *error = check_carrier(&machine->config.network_interfaces[place]);
        if (error != NULL)
            return error;
    }
    if (config->ipv4_address != NULL && !address_parse(config->ipv4_address, &address))
        return error_new(ERROR_INPUT, "ipv4_address: '%s', expected 169.254.1.0 to 169.254.254.255",
                         config->ipv4_address);
    return NULL;
}

static bool leads_to_mmds(const struct mmds_config *config, const char *iface_id)
{
    for (size_t i = 0; config->present && i < config->network_interfaces.count; i++)
        if (strcmp(config->network_interfaces.items[i], iface_id) == 0)
            return true;
    return false;
}

struct error *machine_mmds_connect(struct machine *machine, const struct network_interface_config *interface,
                                   struct virtio_device *device)
{
    const struct mmds_config *config = &machine->config.mmds;
    struct mmds *mmds = leads_to_mmds(config, interface->iface_id) ? machine->mmds : NULL;
    uint32_t address = 0;

    if (network_interface_carrier(interface) != NULL)
        return mmds == NULL ? NULL : check_carrier(interface);
    if (mmds != NULL && !address_parse(config->ipv4_address, &address))
        return error_new(ERROR_INTERNAL, "ipv4_address: '%s' was checked", config->ipv4_address);
    if (virtio_net_set_mmds(device, mmds, address))
        return NULL;
    return error_errno(ENOMEM, "network_interfaces: '%s': cannot lead it to the metadata service", interface->iface_id);
}

static struct error *connect_all(struct machine *machine)
{
    struct error *error = NULL;

    for (size_t i = 0; error == NULL && i < machine->config.network_interface_count; i++)
        if (machine->network_interfaces[i] != NULL)
            error = machine_mmds_connect(machine, &machine->config.network_interfaces[i],
                                         virtio_mmio_device(machine->network_interfaces[i]));
    return error;
}

struct error *machine_put_mmds_config(struct machine *machine, struct mmds_config *config)
{
    struct error *error = machine_check_not_started(machine, "mmds/config");

    if (error == NULL)
        error = check_mmds_config(machine, config);
    if (error == NULL)
        error = mmds_ensure(machine);
    if (error != NULL)
        return error;
    if (config->ipv4_address == NULL) {
        config->ipv4_address = strdup(address_default);
        if (config->ipv4_address == NULL)
            return error_errno(ENOMEM, "ipv4_address: cannot keep it");
    }

    struct mmds_config old = machine->config.mmds;
    machine->config.mmds = *config;
    machine->config.mmds.present = true;
    error = connect_all(machine);
    if (error != NULL) {
        machine->config.mmds = old;
        error_free(connect_all(machine)); /* as many as there is memory for */
        return error;
    }
    machine->mmds->version = config->version;
    machine->mmds->imds_compat = config->imds_compat;
    memset(config, 0, sizeof(*config));
    mmds_config_free(&old);
    return NULL;
}

void machine_mmds_free(struct machine *machine)
{
    if (machine->mmds != NULL)
        mmds_free(machine->mmds);
    free(machine->mmds);
    machine->mmds = NULL;
}
