#include "api/config_file.h"

#include "api/bytes.h"
#include "api/schema_objects.h"
#include "vmm/base/cleanup.h"
#include "vmm/control.h"

#include <stdlib.h>

enum { FILE_SIZE_MAX = 4 << 20 };

static struct error *put_logger(struct machine *machine, struct vm_config *config)
{
    return machine_put_logger(machine, &config->logger);
}

static struct error *put_metrics(struct machine *machine, struct vm_config *config)
{
    return machine_put_metrics(machine, &config->metrics);
}

static struct error *put_machine_config(struct machine *machine, struct vm_config *config)
{
    return machine_put_machine_config(machine, &config->machine);
}

static struct error *put_cpu_config(struct machine *machine, struct vm_config *config)
{
    struct cpu_config features = {0};
    struct bytes text = {0};
    struct error *error = bytes_read_file(&text, config->cpu_config_path, FILE_SIZE_MAX);

    if (error == NULL)
        error = schema_decode(&cpu_config_schema, text.data, text.length, false, &features, NULL);
    if (error == NULL)
        error = machine_put_cpu_config(machine, &features);
    schema_free(&cpu_config_schema, &features);
    bytes_free(&text);
    return error != NULL ? error_wrap(error, "\"%s\"", config->cpu_config_path) : NULL;
}

static struct error *put_boot_source(struct machine *machine, struct vm_config *config)
{
    return machine_put_boot_source(machine, &config->boot_source);
}

static struct error *put_drives(struct machine *machine, struct vm_config *config)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->drive_count && error == NULL; i++)
        error = machine_put_drive(machine, &config->drives[i]);
    return error;
}

static struct error *put_drive_options(struct machine *machine, struct vm_config *config)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->drive_options_count && error == NULL; i++)
        error = machine_put_drive_options(machine, &config->drive_options[i]);
    return error;
}

static struct error *put_network_interfaces(struct machine *machine, struct vm_config *config)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->network_interface_count && error == NULL; i++)
        error = machine_put_network_interface(machine, &config->network_interfaces[i]);
    return error;
}

static struct error *put_network_options(struct machine *machine, struct vm_config *config)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->network_options_count && error == NULL; i++)
        error = machine_put_network_options(machine, &config->network_options[i]);
    return error;
}

static struct error *put_entropy(struct machine *machine, struct vm_config *config)
{
    return machine_put_entropy(machine, &config->entropy);
}

static struct error *put_pmem(struct machine *machine, struct vm_config *config)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->pmem_count && error == NULL; i++)
        error = machine_put_pmem(machine, &config->pmem[i]);
    return error;
}

static struct error *put_serial(struct machine *machine, struct vm_config *config)
{
    return machine_put_serial(machine, &config->serial);
}

static struct error *put_console(struct machine *machine, struct vm_config *config)
{
    return machine_put_console(machine, &config->console);
}

static struct error *put_balloon(struct machine *machine, struct vm_config *config)
{
    return machine_put_balloon(machine, &config->balloon);
}

static struct error *put_memory_hotplug(struct machine *machine, struct vm_config *config)
{
    return machine_put_memory_hotplug(machine, &config->memory_hotplug);
}

static struct error *put_vsock(struct machine *machine, struct vm_config *config)
{
    return machine_put_vsock(machine, &config->vsock);
}

static struct error *put_vsock_seqpacket(struct machine *machine, struct vm_config *config)
{
    return machine_put_vsock_seqpacket(machine, &config->vsock_seqpacket);
}

static struct error *put_file_systems(struct machine *machine, struct vm_config *config)
{
    struct error *error = NULL;

    for (size_t i = 0; i < config->file_system_count && error == NULL; i++)
        error = machine_put_file_system(machine, &config->file_systems[i]);
    return error;
}

static struct error *put_mmds_config(struct machine *machine, struct vm_config *config)
{
    return machine_put_mmds_config(machine, &config->mmds);
}

/* The log first, so that it tells of the rest; then the metrics, so that they count it. */
static const struct {
    enum vm_config_field field;
    struct error *(*put)(struct machine *machine, struct vm_config *config);
} steps[] = {
    {VM_CONFIG_LOGGER, put_logger},
    {VM_CONFIG_METRICS, put_metrics},
    {VM_CONFIG_MACHINE_CONFIG, put_machine_config},
    {VM_CONFIG_CPU_CONFIG, put_cpu_config},
    {VM_CONFIG_BALLOON, put_balloon},
    {VM_CONFIG_MEMORY_HOTPLUG, put_memory_hotplug},
    {VM_CONFIG_BOOT_SOURCE, put_boot_source},
    {VM_CONFIG_DRIVES, put_drives},
    {VM_CONFIG_MAYFLY_DRIVES, put_drive_options},
    {VM_CONFIG_PMEM, put_pmem},
    {VM_CONFIG_NETWORK_INTERFACES, put_network_interfaces},
    {VM_CONFIG_MAYFLY_NETWORK_INTERFACES, put_network_options},
    {VM_CONFIG_MMDS_CONFIG, put_mmds_config},
    {VM_CONFIG_VSOCK, put_vsock},
    {VM_CONFIG_MAYFLY_VSOCK_SEQPACKET, put_vsock_seqpacket},
    {VM_CONFIG_ENTROPY, put_entropy},
    {VM_CONFIG_SERIAL, put_serial},
    {VM_CONFIG_MAYFLY_CONSOLE, put_console},
    {VM_CONFIG_MAYFLY_FILE_SYSTEMS, put_file_systems},
};

static struct error *put_all(struct machine *machine, struct vm_config *config, schema_given given)
{
    for (size_t i = 0; i < array_length(steps); i++) {
        if (!(given >> steps[i].field & 1))
            continue;

        struct error *error = steps[i].put(machine, config);
        if (error != NULL)
            return error_wrap(error, "%s", vm_config_schema.fields[steps[i].field].name);
    }
    return NULL;
}

struct error *api_config_file_apply(const char *path, struct machine *machine)
{
    struct bytes text = {0};
    schema_given given = 0;
    struct vm_config *config = calloc(1, sizeof(*config));
    struct error *error =
        config != NULL ? bytes_read_file(&text, path, FILE_SIZE_MAX) : error_new(ERROR_INTERNAL, "out of memory");

    if (error == NULL)
        error = schema_decode(&vm_config_schema, text.data, text.length, false, config, &given);
    if (error == NULL)
        error = put_all(machine, config, given);
    if (config != NULL)
        schema_free(&vm_config_schema, config);
    free(config);
    bytes_free(&text);
    return error;
}
