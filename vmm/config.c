#include "vmm/config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

bool device_id_is_spelled(const char *text)
{
    for (; *text != '\0'; text++)
        if (!isalnum((unsigned char)*text) && strchr("_-./", *text) == NULL)
            return false;
    return true;
}

size_t drive_find(const struct vm_config *config, const char *drive_id)
{
    for (size_t i = 0; i < config->drive_count && drive_id != NULL; i++)
        if (strcmp(config->drives[i].drive_id, drive_id) == 0)
            return i;
    return config->drive_count;
}

size_t network_interface_find(const struct vm_config *config, const char *iface_id)
{
    for (size_t i = 0; i < config->network_interface_count && iface_id != NULL; i++)
        if (strcmp(config->network_interfaces[i].iface_id, iface_id) == 0)
            return i;
    return config->network_interface_count;
}

void machine_config_default(struct machine_config *config)
{
    *config = (struct machine_config){.vcpu_count = 1, .mem_size_mib = MEM_SIZE_MIB_DEFAULT};
}

void string_list_free(struct string_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    memset(list, 0, sizeof(*list));
}

static void cpuid_modifier_free(struct cpuid_modifier *modifier)
{
    free(modifier->leaf);
    free(modifier->subleaf);
    for (size_t i = 0; i < modifier->modifier_count; i++)
        free(modifier->modifiers[i].bitmap);
    free(modifier->modifiers);
}

void cpu_config_free(struct cpu_config *config)
{
    string_list_free(&config->kvm_capabilities);
    for (size_t i = 0; i < config->cpuid_modifier_count; i++)
        cpuid_modifier_free(&config->cpuid_modifiers[i]);
    free(config->cpuid_modifiers);
    for (size_t i = 0; i < config->msr_modifier_count; i++) {
        free(config->msr_modifiers[i].addr);
        free(config->msr_modifiers[i].bitmap);
    }
    free(config->msr_modifiers);
    memset(config, 0, sizeof(*config));
}

void boot_source_config_free(struct boot_source_config *config)
{
    free(config->kernel_image_path);
    free(config->initrd_path);
    free(config->boot_args);
    memset(config, 0, sizeof(*config));
}

void drive_config_free(struct drive_config *config)
{
    free(config->drive_id);
    free(config->path_on_host);
    free(config->socket);
    free(config->partuuid);
    memset(config, 0, sizeof(*config));
}

void drive_options_free(struct drive_options *options)
{
    free(options->drive_id);
    memset(options, 0, sizeof(*options));
}

void drive_update_free(struct drive_update *update)
{
    free(update->drive_id);
    free(update->path_on_host);
    memset(update, 0, sizeof(*update));
}

const char *network_interface_carrier(const struct network_interface_config *config)
{
    if (network_interface_is_vhost_user(config))
        return "a vhost-user back end";
    return config->vhost ? "the host's kernel (vhost)" : NULL;
}

void network_interface_options_free(struct network_interface_options *options)
{
    free(options->iface_id);
    memset(options, 0, sizeof(*options));
}

void network_interface_config_free(struct network_interface_config *config)
{
    free(config->iface_id);
    free(config->host_dev_name);
    free(config->backend.socket_path);
    free(config->guest_mac);
    memset(config, 0, sizeof(*config));
}

void network_interface_update_free(struct network_interface_update *update)
{
    free(update->iface_id);
    memset(update, 0, sizeof(*update));
}

void pmem_config_free(struct pmem_config *config)
{
    free(config->id);
    free(config->path_on_host);
    memset(config, 0, sizeof(*config));
}

void pmem_update_free(struct pmem_update *update)
{
    free(update->id);
    memset(update, 0, sizeof(*update));
}

void serial_config_free(struct serial_config *config)
{
    free(config->serial_out_path);
    memset(config, 0, sizeof(*config));
}

void console_config_free(struct console_config *config)
{
    for (size_t i = 0; i < config->port_count; i++) {
        free(config->ports[i].name);
        free(config->ports[i].socket_path);
        free(config->ports[i].output_path);
    }
    free(config->ports);
    memset(config, 0, sizeof(*config));
}

void console_update_free(struct console_update *update)
{
    free(update->name);
    memset(update, 0, sizeof(*update));
}

void vsock_config_free(struct vsock_config *config)
{
    free(config->uds_path);
    free(config->vsock_id);
    memset(config, 0, sizeof(*config));
}

void vsock_seqpacket_config_free(struct vsock_seqpacket_config *config)
{
    free(config->uds_path);
    memset(config, 0, sizeof(*config));
}

void file_system_config_free(struct file_system_config *config)
{
    free(config->fs_id);
    free(config->tag);
    free(config->socket_path);
    memset(config, 0, sizeof(*config));
}

void mmds_config_free(struct mmds_config *config)
{
    string_list_free(&config->network_interfaces);
    free(config->ipv4_address);
    memset(config, 0, sizeof(*config));
}

void logger_config_free(struct logger_config *config)
{
    free(config->log_path);
    free(config->level);
    free(config->module);
    memset(config, 0, sizeof(*config));
}

void string_map_free(struct string_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        free(map->pairs[i].name);
        free(map->pairs[i].value);
    }
    free(map->pairs);
    memset(map, 0, sizeof(*map));
}

void metrics_config_free(struct metrics_config *config)
{
    free(config->metrics_path);
    string_map_free(&config->properties);
    memset(config, 0, sizeof(*config));
}

void vm_config_free(struct vm_config *config)
{
    free(config->cpu_config_path);
    boot_source_config_free(&config->boot_source);
    for (size_t i = 0; i < config->drive_count; i++)
        drive_config_free(&config->drives[i]);
    for (size_t i = 0; i < config->drive_options_count; i++)
        drive_options_free(&config->drive_options[i]);
    for (size_t i = 0; i < config->network_options_count; i++)
        network_interface_options_free(&config->network_options[i]);
    for (size_t i = 0; i < config->network_interface_count; i++)
        network_interface_config_free(&config->network_interfaces[i]);
    for (size_t i = 0; i < config->pmem_count; i++)
        pmem_config_free(&config->pmem[i]);
    serial_config_free(&config->serial);
    console_config_free(&config->console);
    vsock_config_free(&config->vsock);
    mmds_config_free(&config->mmds);
    vsock_seqpacket_config_free(&config->vsock_seqpacket);
    for (size_t i = 0; i < config->file_system_count; i++)
        file_system_config_free(&config->file_systems[i]);
    logger_config_free(&config->logger);
    metrics_config_free(&config->metrics);
    memset(config, 0, sizeof(*config));
}
