#include "api/routes.h"

#include "api/mmds_json.h"
#include "api/schema_objects.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/metrics.h"

#include <string.h>

static struct error *get_instance(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct instance_info info = {
        .id = machine_id(context->machine),
        .state = machine_state(context->machine),
        .vmm_version = API_COMPATIBLE_VERSION,
        .app_name = context->app_name,
    };

    (void)body;
    schema_encode(&instance_info_schema, &info, reply);
    return NULL;
}

static struct error *get_version(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct version_info info = {.firecracker_version = API_COMPATIBLE_VERSION};

    (void)context;
    (void)body;
    schema_encode(&version_info_schema, &info, reply);
    return NULL;
}

static struct error *get_machine_config(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)body;
    schema_encode(&machine_config_schema, &machine_configuration(context->machine)->machine, reply);
    return NULL;
}

static struct error *get_vm_config(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)body;
    schema_encode(&vm_config_schema, machine_configuration(context->machine), reply);
    return NULL;
}

static struct error *put_machine_config(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_machine_config(context->machine, body);
}

static struct error *put_cpu_config(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_cpu_config(context->machine, body);
}

static struct error *put_boot_source(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_boot_source(context->machine, body);
}

static struct error *put_drive(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_drive(context->machine, body);
}

static struct error *put_drive_options(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_drive_options(context->machine, body);
}

static struct error *put_network_options(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_network_options(context->machine, body);
}

static struct error *patch_drive(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_drive(context->machine, body);
}

static struct error *put_network_interface(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_network_interface(context->machine, body);
}

static struct error *patch_network_interface(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_network_interface(context->machine, body);
}

static struct error *put_pmem(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_pmem(context->machine, body);
}

static struct error *patch_pmem(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_pmem(context->machine, body);
}

static struct error *put_entropy(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct entropy_config *config = body;

    (void)reply;
    config->present = true;
    return machine_put_entropy(context->machine, config);
}

static struct error *put_vsock(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_vsock(context->machine, body);
}

static struct error *put_vsock_seqpacket(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_vsock_seqpacket(context->machine, body);
}

static struct error *put_file_system(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_file_system(context->machine, body);
}

static struct error *patch_console(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_console(context->machine, body);
}

static struct error *put_balloon(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_balloon(context->machine, body);
}

static struct error *patch_balloon(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_balloon(context->machine, body);
}

static struct error *patch_balloon_statistics(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_balloon_statistics(context->machine, body);
}

static struct error *start_balloon_hinting(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_start_balloon_hinting(context->machine, body);
}

static struct error *stop_balloon_hinting(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)body;
    (void)reply;
    return machine_stop_balloon_hinting(context->machine);
}

static struct error *get_balloon(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct balloon_config found;
    struct error *error = machine_get_balloon(context->machine, &found);

    (void)body;
    if (error == NULL)
        schema_encode(&balloon_schema, &found, reply);
    return error;
}

static struct error *get_balloon_statistics(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct balloon_statistics found;
    struct error *error = machine_get_balloon_statistics(context->machine, &found);

    (void)body;
    if (error == NULL)
        schema_encode(&balloon_statistics_schema, &found, reply);
    return error;
}

static struct error *get_balloon_hinting(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct balloon_hinting_status found;
    struct error *error = machine_get_balloon_hinting(context->machine, &found);

    (void)body;
    if (error == NULL)
        schema_encode(&balloon_hinting_status_schema, &found, reply);
    return error;
}

static struct error *put_memory_hotplug(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_memory_hotplug(context->machine, body);
}

static struct error *patch_memory_hotplug(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_patch_memory_hotplug(context->machine, body);
}

static struct error *get_memory_hotplug(const struct api_context *context, void *body, struct json_writer *reply)
{
    struct memory_hotplug_status found;
    struct error *error = machine_get_memory_hotplug(context->machine, &found);

    (void)body;
    if (error == NULL)
        schema_encode(&memory_hotplug_status_schema, &found, reply);
    return error;
}

static struct error *put_serial(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_serial(context->machine, body);
}

static struct error *put_console(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_console(context->machine, body);
}

static struct error *put_logger(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_logger(context->machine, body);
}

static struct error *put_metrics(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_metrics(context->machine, body);
}

static struct error *put_mmds_config(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)reply;
    return machine_put_mmds_config(context->machine, body);
}

static struct error *get_mmds(const struct api_context *context, void *body, struct json_writer *reply)
{
    static const struct mmds_value nothing = {.type = MMDS_OBJECT};
    const struct mmds_value *contents = machine_mmds(context->machine);

    (void)body;
    mmds_json_encode(contents != NULL ? contents : &nothing, reply);
    return NULL;
}

static struct error *put_mmds(const struct api_context *context, void *body, struct json_writer *reply)
{
    const struct api_text *given = body;
    struct mmds_value *contents = NULL;
    struct error *error = mmds_json_decode(given->text, given->length, &contents);

    (void)reply;
    if (error != NULL)
        return error;
    error = machine_put_mmds(context->machine, contents);
    if (error != NULL)
        mmds_value_free(contents);
    return error;
}

static struct error *patch_mmds(const struct api_context *context, void *body, struct json_writer *reply)
{
    const struct api_text *given = body;
    struct mmds_value *patch = NULL;
    struct error *error = mmds_json_decode(given->text, given->length, &patch);

    (void)reply;
    if (error != NULL)
        return error;
    error = machine_patch_mmds(context->machine, patch);
    mmds_value_free(patch);
    return error;
}

static const struct {
    const char *name;
    unsigned states;
    struct error *(*perform)(struct machine *machine);
} actions[] = {
    [ACTION_FLUSH_METRICS] = {"FlushMetrics", WHEN_STARTED, machine_flush_metrics},
    [ACTION_INSTANCE_START] = {"InstanceStart", WHEN_NOT_STARTED, machine_start},
    [ACTION_SEND_CTRL_ALT_DEL] = {"SendCtrlAltDel", WHEN_STARTED, machine_send_ctrl_alt_del},
};

static struct error *put_action(const struct api_context *context, void *body, struct json_writer *reply)
{
    const struct action_info *info = body;
    struct error *error =
        api_check_state(context->machine, actions[info->action_type].states, actions[info->action_type].name);

    (void)reply;
    return error != NULL ? error : actions[info->action_type].perform(context->machine);
}

static struct error *put_mayfly_action(const struct api_context *context, void *body, struct json_writer *reply)
{
    (void)body; /* there is but one */
    (void)reply;
    return machine_press_power_button(context->machine);
}

static struct error *patch_vm(const struct api_context *context, void *body, struct json_writer *reply)
{
    const struct vm_update *update = body;
    bool pause = update->state == VM_PAUSED;
    uint64_t start_us = clock_monotonic_us();
    struct error *error = pause ? machine_pause(context->machine) : machine_resume(context->machine);

    (void)reply;
    if (error == NULL)
        __atomic_store_n(pause ? &metrics.latencies.pause_vm : &metrics.latencies.resume_vm,
                         clock_monotonic_us() - start_us, __ATOMIC_RELAXED);
    return error;
}

#define COUNTS(member) .counts = offsetof(struct metrics, api_server.member)
#define CURRENT(member) .current = offsetof(struct vm_config, member) + 1

const struct route routes[] = {
    {"/", API_GET, WHEN_ANY, get_instance, .reply = &instance_info_schema, COUNTS(get_instance_info),
     SUMMARY("What this instance is")},
    {"/version", API_GET, WHEN_ANY, get_version, .reply = &version_info_schema, COUNTS(get_vmm_version),
     SUMMARY("The version of the API")},
    {"/machine-config", API_GET, WHEN_ANY, get_machine_config, .reply = &machine_config_schema, COUNTS(get_machine_cfg),
     SUMMARY("The vCPUs and the memory")},
    {"/machine-config", API_PUT, WHEN_NOT_STARTED, put_machine_config, &machine_config_schema, COUNTS(put_machine_cfg),
     SUMMARY("Sets the vCPUs and the memory; what is not given gets its default")},
    {"/machine-config", API_PATCH, WHEN_NOT_STARTED, put_machine_config, &machine_config_schema, CURRENT(machine),
     COUNTS(patch_machine_cfg), SUMMARY("Changes the vCPUs or the memory; what is not given stays")},
    {"/boot-source", API_PUT, WHEN_NOT_STARTED, put_boot_source, &boot_source_schema, COUNTS(put_boot_source),
     SUMMARY("Sets the kernel, its initial RAM disk and its command line")},
    {"/drives/{drive_id}", API_PUT, WHEN_NOT_STARTED, put_drive, &drive_schema, COUNTS(put_drive),
     SUMMARY("Adds or replaces a disk")},
    {"/drives/{drive_id}", API_PATCH, WHEN_STARTED, patch_drive, &drive_update_schema, COUNTS(patch_drive),
     SUMMARY("Changes a disk's file or its limits")},
    {"/network-interfaces/{iface_id}", API_PUT, WHEN_NOT_STARTED, put_network_interface, &network_interface_schema,
     COUNTS(put_network), SUMMARY("Adds or replaces a network interface")},
    {"/network-interfaces/{iface_id}", API_PATCH, WHEN_STARTED, patch_network_interface,
     &network_interface_update_schema, COUNTS(patch_network), SUMMARY("Changes a network interface's limits")},
    {"/pmem/{id}", API_PUT, WHEN_NOT_STARTED, put_pmem, &pmem_schema, COUNTS(put_pmem),
     SUMMARY("Adds or replaces a file that the guest has as memory")},
    {"/pmem/{id}", API_PATCH, WHEN_STARTED, patch_pmem, &pmem_update_schema, COUNTS(patch_pmem),
     SUMMARY("Changes the limits of flushes")},
    {"/entropy", API_PUT, WHEN_NOT_STARTED, put_entropy, &entropy_schema, COUNTS(put_entropy),
     SUMMARY("Adds or replaces the source of random numbers")},
    {"/balloon", API_GET, WHEN_ANY, get_balloon, .reply = &balloon_schema, COUNTS(get_balloon), SUMMARY("The balloon")},
    {"/balloon", API_PUT, WHEN_NOT_STARTED, put_balloon, &balloon_schema, COUNTS(put_balloon),
     SUMMARY("Adds or replaces the balloon")},
    {"/balloon", API_PATCH, WHEN_ANY, patch_balloon, &balloon_update_schema, COUNTS(patch_balloon),
     SUMMARY("Changes the balloon's size")},
    {"/balloon/statistics", API_GET, WHEN_ANY, get_balloon_statistics, .reply = &balloon_statistics_schema,
     COUNTS(get_balloon_statistics), SUMMARY("What the guest said last about its memory")},
    {"/balloon/statistics", API_PATCH, WHEN_ANY, patch_balloon_statistics, &balloon_statistics_update_schema,
     COUNTS(patch_balloon_statistics), SUMMARY("Changes how often the guest says it")},
    {"/balloon/hinting/start", API_PATCH, WHEN_STARTED, start_balloon_hinting, &balloon_hinting_start_schema,
     .body_optional = true, COUNTS(start_balloon_hinting), SUMMARY("Asks the guest to name its free pages")},
    {"/balloon/hinting/status", API_GET, WHEN_STARTED, get_balloon_hinting, .reply = &balloon_hinting_status_schema,
     COUNTS(get_balloon_hinting), SUMMARY("How far the guest is with that")},
    {"/balloon/hinting/stop", API_PATCH, WHEN_STARTED, stop_balloon_hinting, &balloon_hinting_stop_schema,
     .body_optional = true, COUNTS(stop_balloon_hinting), SUMMARY("Ends that")},
    {"/hotplug/memory", API_GET, WHEN_STARTED, get_memory_hotplug, .reply = &memory_hotplug_status_schema,
     COUNTS(get_hotplug_memory), SUMMARY("How much memory is plugged")},
    {"/hotplug/memory", API_PUT, WHEN_NOT_STARTED, put_memory_hotplug, &memory_hotplug_schema,
     COUNTS(put_hotplug_memory), SUMMARY("Adds or replaces memory that can be plugged")},
    {"/hotplug/memory", API_PATCH, WHEN_STARTED, patch_memory_hotplug, &memory_hotplug_update_schema,
     COUNTS(patch_hotplug_memory), SUMMARY("Says how much memory to plug")},
    {"/serial", API_PUT, WHEN_NOT_STARTED, put_serial, &serial_schema, COUNTS(put_serial),
     SUMMARY("Says where the serial port's output goes")},
    {"/logger", API_PUT, WHEN_ANY, put_logger, &logger_schema, COUNTS(put_logger),
     SUMMARY("Says where the log goes and what is in it; once the guest is started, the file must be there already")},
    {"/metrics", API_PUT, WHEN_NOT_STARTED, put_metrics, &metrics_schema, COUNTS(put_metrics),
     SUMMARY("Says where the metrics go; once")},
    {"/actions", API_PUT, WHEN_ANY, put_action, &action_info_schema, COUNTS(put_actions),
     SUMMARY("Starts the guest, or asks it something")},
    {"/vm", API_PATCH, WHEN_STARTED, patch_vm, &vm_update_schema, COUNTS(patch_vm),
     SUMMARY("Pauses or resumes the vCPUs")},
    {"/vm/config", API_GET, WHEN_ANY, get_vm_config, .reply = &vm_config_schema, COUNTS(get_vm_config),
     SUMMARY("The whole configuration")},
    {"/cpu-config", API_PUT, WHEN_NOT_STARTED, put_cpu_config, &cpu_config_schema, COUNTS(put_cpu_cfg),
     SUMMARY("Sets the CPU features that the guest finds")},
    {"/mayfly/drives/{drive_id}", API_PUT, WHEN_NOT_STARTED, put_drive_options, &drive_options_schema,
     COUNTS(put_drive_options), SUMMARY("Sets a disk's queues, and whether it goes around the page cache")},
    {"/mayfly/network-interfaces/{iface_id}", API_PUT, WHEN_NOT_STARTED, put_network_options,
     &network_interface_options_schema, COUNTS(put_network_options), SUMMARY("Sets an interface's queues")},
    {"/mayfly/actions", API_PUT, WHEN_STARTED, put_mayfly_action, &mayfly_action_info_schema,
     COUNTS(put_mayfly_actions), SUMMARY("Presses the guest's power button")},
    {"/mayfly/console", API_PUT, WHEN_NOT_STARTED, put_console, &console_schema, COUNTS(put_console),
     SUMMARY("Adds or replaces a virtio console with several ports")},
    {"/mayfly/file-systems/{fs_id}", API_PUT, WHEN_NOT_STARTED, put_file_system, &file_system_schema,
     COUNTS(put_file_system), SUMMARY("Adds or replaces a shared directory")},
    {"/vsock", API_PUT, WHEN_NOT_STARTED, put_vsock, &vsock_schema, COUNTS(put_vsock),
     SUMMARY("Adds or replaces the vsock device")},
    {"/mmds", API_GET, WHEN_ANY, get_mmds, .reply = &mmds_contents_schema, COUNTS(get_mmds), SUMMARY("The metadata")},
    {"/mmds", API_PUT, WHEN_ANY, put_mmds, &mmds_contents_schema, COUNTS(put_mmds),
     SUMMARY("Sets the metadata that the guest can read")},
    {"/mmds", API_PATCH, WHEN_ANY, patch_mmds, &mmds_contents_schema, COUNTS(patch_mmds),
     SUMMARY("Merges into the metadata; null takes a member away")},
    {"/mmds/config", API_PUT, WHEN_NOT_STARTED, put_mmds_config, &mmds_config_schema, COUNTS(put_mmds_config),
     SUMMARY("Says how the guest reaches the metadata")},
    {"/mayfly/vsock-seqpacket", API_PUT, WHEN_NOT_STARTED, put_vsock_seqpacket, &vsock_seqpacket_schema,
     COUNTS(put_vsock_seqpacket), SUMMARY("Lets host programs send messages to the guest's sockets")},
    {"/mayfly/console", API_PATCH, WHEN_STARTED, patch_console, &console_update_schema, COUNTS(patch_console),
     SUMMARY("Plugs a port in or out, changes a terminal's window")},
};
const size_t route_count = array_length(routes);
