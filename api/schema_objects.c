#include "api/schema_objects.h"
#include "api/schema_fields.h"

#include "vmm/base/cleanup.h"

#include <ctype.h>
#include <limits.h>
#include <sys/un.h>

/*
 * In a path Firecracker takes letters, digits and _ alone, but in a configuration file anything: microvm.nix calls a
 * drive by the path of its image.
 */
static bool is_device_id(char *text)
{
    return device_id_is_spelled(text);
}
const struct field_format device_id_format = {is_device_id, "letters, digits, _, -, . and /", "^[0-9A-Za-z_./-]+$"};

/* Goes into the kernel's command line as root=PARTUUID=<it>, where a space would begin another argument. */
static bool is_word(char *text)
{
    for (; *text != '\0'; text++)
        if (!isgraph((unsigned char)*text))
            return false;
    return true;
}
static const struct field_format word_format = {is_word, "no spaces", "^[!-~]+$"};

static const char *const state_names[] = {
    [MACHINE_NOT_STARTED] = "Not started", [MACHINE_RUNNING] = "Running", [MACHINE_PAUSED] = "Paused", NULL};

static const struct field instance_info_fields[] = {
    {"app_name", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct instance_info, app_name),
     DESCRIPTION("The program's name.")},
    {"id", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct instance_info, id),
     DESCRIPTION("The instance's id, as given with --id.")},
    {"state", FIELD_ENUM, FIELD_REQUIRED, MEMBER(struct instance_info, state), .names = state_names,
     DESCRIPTION("Where the instance is in its life.")},
    {"vmm_version", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct instance_info, vmm_version),
     DESCRIPTION("The version of the API that the program speaks.")},
};
const struct schema instance_info_schema = {"InstanceInfo", SCHEMA(instance_info_fields, struct instance_info),
                                            DESCRIPTION("What this instance is.")};

static const struct field version_info_fields[] = {
    {"firecracker_version", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct version_info, firecracker_version),
     DESCRIPTION("The version of Firecracker whose API the program speaks.")},
};
const struct schema version_info_schema = {"FirecrackerVersion", SCHEMA(version_info_fields, struct version_info),
                                           DESCRIPTION("The version of the API.")};

static const char *const action_names[] = {[ACTION_FLUSH_METRICS] = "FlushMetrics",
                                           [ACTION_INSTANCE_START] = "InstanceStart",
                                           [ACTION_SEND_CTRL_ALT_DEL] = "SendCtrlAltDel",
                                           NULL};

static const struct field action_info_fields[] = {
    {"action_type", FIELD_ENUM, FIELD_REQUIRED, MEMBER(struct action_info, action_type), .names = action_names,
     DESCRIPTION("What to do.")},
};
const struct schema action_info_schema = {"InstanceActionInfo", SCHEMA(action_info_fields, struct action_info),
                                          DESCRIPTION("Something that the instance does once.")};

static const char *const mayfly_action_names[] = {[MAYFLY_ACTION_POWER_BUTTON] = "PowerButton", NULL};

static const struct field mayfly_action_info_fields[] = {
    {"action_type", FIELD_ENUM, FIELD_REQUIRED, MEMBER(struct mayfly_action_info, action_type),
     .names = mayfly_action_names, DESCRIPTION("What to do.")},
};
const struct schema mayfly_action_info_schema = {
    "MayflyActionInfo", SCHEMA(mayfly_action_info_fields, struct mayfly_action_info),
    DESCRIPTION("Something else that the instance does once. PowerButton: presses the button that ACPI tells the "
                "guest of.")};

static const char *const vm_state_names[] = {[VM_PAUSED] = "Paused", [VM_RESUMED] = "Resumed", NULL};

static const struct field vm_update_fields[] = {
    {"state", FIELD_ENUM, FIELD_REQUIRED, MEMBER(struct vm_update, state), .names = vm_state_names,
     DESCRIPTION("What the vCPUs are to do.")},
};
const struct schema vm_update_schema = {"Vm", SCHEMA(vm_update_fields, struct vm_update),
                                        DESCRIPTION("Whether the vCPUs run.")};

static const char *const cpu_template_names[] = {[CPU_TEMPLATE_NONE] = "None",
                                                 [CPU_TEMPLATE_C3] = "C3",
                                                 [CPU_TEMPLATE_T2] = "T2",
                                                 [CPU_TEMPLATE_T2S] = "T2S",
                                                 [CPU_TEMPLATE_T2CL] = "T2CL",
                                                 [CPU_TEMPLATE_T2A] = "T2A",
                                                 NULL};
static const char *const huge_pages_names[] = {
    [HUGE_PAGES_NONE] = "None", [HUGE_PAGES_TRANSPARENT] = "Transparent", [HUGE_PAGES_2M] = "2M", NULL};

static const struct field machine_config_fields[] = {
    {"vcpu_count", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct machine_config, vcpu_count), .minimum = 1,
     .maximum = VCPUS_MAX, .initial = 1, DESCRIPTION("Number of vCPUs; with smt 1 or an even number.")},
    {"mem_size_mib", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct machine_config, mem_size_mib), .minimum = 1,
     .maximum = MEM_SIZE_MIB_MAX, .initial = MEM_SIZE_MIB_DEFAULT,
     DESCRIPTION("Guest memory in MiB; with 2M pages an even number.")},
    {"smt", FIELD_BOOL, 0, MEMBER(struct machine_config, smt),
     DESCRIPTION("Whether the guest sees two vCPUs as the threads of one core.")},
    {"cpu_template", FIELD_ENUM, FIELD_NULLABLE | FIELD_OMIT | FIELD_DEPRECATED,
     MEMBER(struct machine_config, cpu_template), PRESENCE(struct machine_config, has_cpu_template),
     .names = cpu_template_names,
     DESCRIPTION("A named set of CPU features: T2A on AMD, the others on Intel. Put to /cpu-config instead.")},
    {"track_dirty_pages", FIELD_BOOL, 0, MEMBER(struct machine_config, track_dirty_pages),
     DESCRIPTION("Whether the pages that the guest writes are recorded, for incremental snapshots.")},
    {"huge_pages", FIELD_ENUM, 0, MEMBER(struct machine_config, huge_pages), .names = huge_pages_names,
     DESCRIPTION("What backs guest memory: 4K pages, transparent huge pages where possible, or 2M pages of the "
                 "host's hugetlbfs pool.")},
};

static struct error *check_machine_config(const void *object)
{
    const struct machine_config *config = object;

    if (config->smt && config->vcpu_count > 1 && config->vcpu_count % 2 != 0)
        return error_new(ERROR_INPUT, "vcpu_count: %u given, expected 1 or an even number, as smt is true",
                         config->vcpu_count);
    if (config->huge_pages == HUGE_PAGES_2M && config->mem_size_mib % 2 != 0)
        return error_new(ERROR_INPUT, "mem_size_mib: %llu given, expected an even number, as huge_pages is \"2M\"",
                         (unsigned long long)config->mem_size_mib);
    return NULL;
}
const struct schema machine_config_schema = {"MachineConfiguration",
                                             SCHEMA(machine_config_fields, struct machine_config),
                                             .check = check_machine_config, DESCRIPTION("vCPUs and memory.")};

/* Linux' COMMAND_LINE_SIZE on x86 is 2048 with the NUL. */
static const struct field boot_source_fields[] = {
    {"kernel_image_path", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct boot_source_config, kernel_image_path), PATH,
     DESCRIPTION("The kernel: an uncompressed ELF vmlinux or a bzImage.")},
    {"initrd_path", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct boot_source_config, initrd_path), PATH,
     DESCRIPTION("The initial RAM disk.")},
    {"boot_args", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct boot_source_config, boot_args), .maximum = 2047,
     DESCRIPTION("The kernel's command line; arguments for the devices are added to it.")},
};
const struct schema boot_source_schema = {"BootSource", SCHEMA(boot_source_fields, struct boot_source_config),
                                          DESCRIPTION("What the guest boots.")};

static const struct field token_bucket_fields[] = {
    {"size", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct token_bucket_config, size), UNSIGNED_64,
     DESCRIPTION("How many tokens the bucket holds; 0: no limit.")},
    {"one_time_burst", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL,
     MEMBER(struct token_bucket_config, one_time_burst), PRESENCE(struct token_bucket_config, has_one_time_burst),
     UNSIGNED_64, DESCRIPTION("Tokens that may be used once before the bucket's own.")},
    {"refill_time", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct token_bucket_config, refill_time), UNSIGNED_64,
     DESCRIPTION("Milliseconds in which an empty bucket fills up; 0: no limit.")},
};

static bool token_bucket_is_empty(const void *object)
{
    const struct token_bucket_config *config = object;

    return !config->present || config->size == 0 || config->refill_time == 0;
}
const struct schema token_bucket_schema = {
    "TokenBucket", SCHEMA(token_bucket_fields, struct token_bucket_config), .is_empty = token_bucket_is_empty,
    DESCRIPTION("A limit: tokens come back at a steady rate and each byte or operation takes one.")};

static const struct field rate_limiter_fields[] = {
    {"bandwidth", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct rate_limiter_config, bandwidth),
     PRESENCE(struct rate_limiter_config, bandwidth.present), .object = &token_bucket_schema,
     DESCRIPTION("A token is a byte.")},
    {"ops", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct rate_limiter_config, ops),
     PRESENCE(struct rate_limiter_config, ops.present), .object = &token_bucket_schema,
     DESCRIPTION("A token is an operation.")},
};

static bool rate_limiter_is_empty(const void *object)
{
    const struct rate_limiter_config *config = object;

    return token_bucket_is_empty(&config->bandwidth) && token_bucket_is_empty(&config->ops);
}
const struct schema rate_limiter_schema = {"RateLimiter", SCHEMA(rate_limiter_fields, struct rate_limiter_config),
                                           .is_empty = rate_limiter_is_empty, DESCRIPTION("Limits of a device.")};

static const char *const cache_type_names[] = {
    [CACHE_TYPE_UNSAFE] = "Unsafe", [CACHE_TYPE_WRITEBACK] = "Writeback", NULL};
static const char *const io_engine_names[] = {[IO_ENGINE_SYNC] = "Sync", [IO_ENGINE_ASYNC] = "Async", NULL};

static const struct field drive_fields[] = {
    {"drive_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct drive_config, drive_id), DEVICE_ID,
     DESCRIPTION("The drive's id, the same as in the path; the guest reads it as the disk's serial number.")},
    {"partuuid", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct drive_config, partuuid), .minimum = 1, .maximum = 64,
     .format = &word_format,
     DESCRIPTION("The partition that holds the root file system, when is_root_device is true.")},
    {"is_root_device", FIELD_BOOL, FIELD_REQUIRED, MEMBER(struct drive_config, is_root_device),
     DESCRIPTION("Whether the guest's root file system is on this drive.")},
    {"cache_type", FIELD_ENUM, 0, MEMBER(struct drive_config, cache_type), .names = cache_type_names,
     DESCRIPTION("Whether a flush in the guest waits for the host's disk (Writeback) or not (Unsafe).")},
    {"is_read_only", FIELD_BOOL, FIELD_NULLABLE, MEMBER(struct drive_config, is_read_only),
     PRESENCE(struct drive_config, has_is_read_only), DESCRIPTION("Whether the guest can only read.")},
    {"path_on_host", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct drive_config, path_on_host), PATH,
     DESCRIPTION("The file or block device that holds the drive's sectors; this or socket is given.")},
    {"rate_limiter", RATE_LIMITER(struct drive_config, rate_limiter), DESCRIPTION("Limits of reads and writes.")},
    {"io_engine", FIELD_ENUM, FIELD_NULLABLE, MEMBER(struct drive_config, io_engine),
     PRESENCE(struct drive_config, has_io_engine), .names = io_engine_names,
     DESCRIPTION("Sync: one request at a time; Async: io_uring.")},
    {"socket", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct drive_config, socket), SOCKET_PATH,
     DESCRIPTION("The Unix socket of a vhost-user back end that has the drive's sectors. is_read_only, rate_limiter "
                 "and io_engine are then the back end's business and not given.")},
};

static struct error *check_drive(const void *object)
{
    const struct drive_config *config = object;
    const char *given = config->path_on_host != NULL   ? "path_on_host"
                        : config->has_is_read_only     ? "is_read_only"
                        : config->rate_limiter.present ? "rate_limiter"
                        : config->has_io_engine        ? "io_engine"
                                                       : NULL;

    if (config->socket == NULL && config->path_on_host == NULL)
        return error_new(ERROR_INPUT, "path_on_host: missing, expected a path, or a socket");
    if (config->socket != NULL && given != NULL)
        return error_new(ERROR_INPUT, "%s: given, expected not to be, as there is a socket", given);
    return NULL;
}
const struct schema drive_schema = {"Drive", SCHEMA(drive_fields, struct drive_config), .check = check_drive,
                                    DESCRIPTION("A disk.")};

static const struct field drive_update_fields[] = {
    {"drive_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct drive_update, drive_id), DEVICE_ID,
     DESCRIPTION("The drive's id, the same as in the path.")},
    {"path_on_host", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct drive_update, path_on_host), PATH,
     DESCRIPTION("Another file for the same drive; the guest is told the new size.")},
    {"rate_limiter", RATE_LIMITER(struct drive_update, rate_limiter), DESCRIPTION("New limits; others stay.")},
};

const struct schema drive_update_schema = {"PartialDrive", SCHEMA(drive_update_fields, struct drive_update),
                                           DESCRIPTION("What to change of a drive.")};

static const struct field entropy_fields[] = {
    {"rate_limiter", RATE_LIMITER(struct entropy_config, rate_limiter),
     DESCRIPTION("Limits of the random bytes that the guest gets.")},
};
const struct schema entropy_schema = {"EntropyDevice", SCHEMA(entropy_fields, struct entropy_config),
                                      DESCRIPTION("A source of random numbers.")};

static const struct field serial_fields[] = {
    {"serial_out_path", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct serial_config, serial_out_path), PATH,
     DESCRIPTION("A file or FIFO that takes the serial port's output; otherwise the VMM's stdin and stdout.")},
    {"rate_limiter", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct serial_config, rate_limiter),
     PRESENCE(struct serial_config, rate_limiter.present), .object = &token_bucket_schema,
     DESCRIPTION("Limit of the output in bytes; what exceeds it is dropped and counted.")},
};
const struct schema serial_schema = {"SerialDevice", SCHEMA(serial_fields, struct serial_config),
                                     DESCRIPTION("The 16550 serial port.")};

static const char *const level_names[] = {"Off", "Error", "Warning", "Info", "Debug", "Trace", "Warn", NULL};

static const struct field logger_fields[] = {
    {"log_path", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct logger_config, log_path), PATH,
     DESCRIPTION("A file or FIFO that takes the log.")},
    {"level", FIELD_WORD, FIELD_NULLABLE | FIELD_IGNORE_CASE, MEMBER(struct logger_config, level), .names = level_names,
     DESCRIPTION("The least important messages that are written.")},
    {"show_level", FIELD_BOOL, FIELD_NULLABLE, MEMBER(struct logger_config, show_level),
     PRESENCE(struct logger_config, has_show_level), DESCRIPTION("Whether lines carry their level.")},
    {"show_log_origin", FIELD_BOOL, FIELD_NULLABLE, MEMBER(struct logger_config, show_log_origin),
     PRESENCE(struct logger_config, has_show_log_origin),
     DESCRIPTION("Whether lines carry the source file and line that they come from.")},
    {"module", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct logger_config, module), .maximum = 127,
     DESCRIPTION("Only what source files below this path say is written.")},
};
const struct schema logger_schema = {"Logger", SCHEMA(logger_fields, struct logger_config),
                                     DESCRIPTION("Where the log goes and what is in it.")};

static const struct field metrics_fields[] = {
    {"metrics_path", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct metrics_config, metrics_path), PATH,
     DESCRIPTION("A file or FIFO that takes one JSON object a line.")},
    {"emit_id", FIELD_BOOL, 0, MEMBER(struct metrics_config, emit_id),
     DESCRIPTION("Whether every line carries the instance's id as \"id\".")},
    {"properties", FIELD_STRING_MAP, FIELD_NULLABLE, MEMBER(struct metrics_config, properties), .maximum = 64,
     DESCRIPTION("Names and values of your own, carried by every line as \"properties\".")},
};
const struct schema metrics_schema = {"Metrics", SCHEMA(metrics_fields, struct metrics_config),
                                      DESCRIPTION("Where the metrics go.")};

static const struct field vm_config_fields[] = {
    [VM_CONFIG_BALLOON] = {"balloon", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct vm_config, balloon),
                           PRESENCE(struct vm_config, balloon.present), .object = &balloon_schema,
                           DESCRIPTION("As put to /balloon, and patched.")},
    [VM_CONFIG_DRIVES] = {"drives", FIELD_ARRAY, 0, MEMBER(struct vm_config, drives),
                          .count = offsetof(struct vm_config, drive_count), .maximum = VIRTIO_DEVICES_MAX,
                          .object = &drive_schema, DESCRIPTION("The root device first.")},
    [VM_CONFIG_BOOT_SOURCE] = {"boot-source", FIELD_OBJECT, FIELD_SHOW_ALWAYS, MEMBER(struct vm_config, boot_source),
                               .object = &boot_source_schema, DESCRIPTION("As put to /boot-source.")},
    [VM_CONFIG_CPU_CONFIG] = {"cpu-config", FIELD_STRING, FIELD_NULLABLE | FIELD_SHOW_NULL,
                              MEMBER(struct vm_config, cpu_config_path), PATH,
                              DESCRIPTION("A file that holds what would be put to /cpu-config; never shown.")},
    [VM_CONFIG_LOGGER] = {"logger", FIELD_OBJECT, FIELD_NULLABLE | FIELD_SHOW_NULL, MEMBER(struct vm_config, logger),
                          .object = &logger_schema, DESCRIPTION("As put to /logger; never shown.")},
    [VM_CONFIG_MACHINE_CONFIG] = {"machine-config", FIELD_OBJECT, FIELD_NULLABLE | FIELD_SHOW_ALWAYS,
                                  MEMBER(struct vm_config, machine), .object = &machine_config_schema,
                                  DESCRIPTION("As put to /machine-config.")},
    [VM_CONFIG_METRICS] = {"metrics", FIELD_OBJECT, FIELD_NULLABLE | FIELD_SHOW_NULL, MEMBER(struct vm_config, metrics),
                           .object = &metrics_schema, DESCRIPTION("As put to /metrics; never shown.")},
    [VM_CONFIG_MEMORY_HOTPLUG] = {"memory-hotplug", FIELD_OBJECT, FIELD_NULLABLE,
                                  MEMBER(struct vm_config, memory_hotplug),
                                  PRESENCE(struct vm_config, memory_hotplug.present), .object = &memory_hotplug_schema,
                                  DESCRIPTION("As put to /hotplug/memory.")},
    [VM_CONFIG_MMDS_CONFIG] = {"mmds-config", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct vm_config, mmds),
                               PRESENCE(struct vm_config, mmds.present), .object = &mmds_config_schema,
                               DESCRIPTION("As put to /mmds/config.")},
    [VM_CONFIG_NETWORK_INTERFACES] = {"network-interfaces", FIELD_ARRAY, 0,
                                      MEMBER(struct vm_config, network_interfaces),
                                      .count = offsetof(struct vm_config, network_interface_count),
                                      .maximum = VIRTIO_DEVICES_MAX, .object = &network_interface_schema,
                                      DESCRIPTION("In the order in which they were put.")},
    [VM_CONFIG_PMEM] = {"pmem", FIELD_ARRAY, 0, MEMBER(struct vm_config, pmem),
                        .count = offsetof(struct vm_config, pmem_count), .maximum = VIRTIO_DEVICES_MAX,
                        .object = &pmem_schema, DESCRIPTION("The root device first.")},
    [VM_CONFIG_VSOCK] = {"vsock", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct vm_config, vsock),
                         PRESENCE(struct vm_config, vsock.present), .object = &vsock_schema,
                         DESCRIPTION("As put to /vsock.")},
    [VM_CONFIG_ENTROPY] = {"entropy", FIELD_OBJECT, FIELD_NULLABLE, MEMBER(struct vm_config, entropy),
                           PRESENCE(struct vm_config, entropy.present), .object = &entropy_schema,
                           DESCRIPTION("As put to /entropy.")},
    [VM_CONFIG_SERIAL] = {"serial", FIELD_OBJECT, FIELD_NULLABLE | FIELD_HIDDEN, MEMBER(struct vm_config, serial),
                          .object = &serial_schema, DESCRIPTION("As put to /serial; only in a configuration file.")},
    [VM_CONFIG_MAYFLY_DRIVES] = {"mayfly-drives", FIELD_ARRAY, FIELD_HIDDEN, MEMBER(struct vm_config, drive_options),
                                 .count = offsetof(struct vm_config, drive_options_count),
                                 .maximum = VIRTIO_DEVICES_MAX, .object = &drive_options_schema,
                                 DESCRIPTION("As put to /mayfly/drives; only in a configuration file.")},
    [VM_CONFIG_MAYFLY_NETWORK_INTERFACES] =
        {"mayfly-network-interfaces", FIELD_ARRAY, FIELD_HIDDEN, MEMBER(struct vm_config, network_options),
         .count = offsetof(struct vm_config, network_options_count), .maximum = VIRTIO_DEVICES_MAX,
         .object = &network_interface_options_schema,
         DESCRIPTION("As put to /mayfly/network-interfaces; only in a configuration file.")},
    [VM_CONFIG_MAYFLY_CONSOLE] = {"mayfly-console", FIELD_OBJECT, FIELD_NULLABLE | FIELD_HIDDEN,
                                  MEMBER(struct vm_config, console), .object = &console_schema,
                                  DESCRIPTION("As put to /mayfly/console; only in a configuration file.")},
    [VM_CONFIG_MAYFLY_VSOCK_SEQPACKET] = {"mayfly-vsock-seqpacket", FIELD_OBJECT, FIELD_NULLABLE | FIELD_HIDDEN,
                                          MEMBER(struct vm_config, vsock_seqpacket),
                                          PRESENCE(struct vm_config, vsock_seqpacket.present),
                                          .object = &vsock_seqpacket_schema,
                                          DESCRIPTION("As put to /mayfly/vsock-seqpacket; only in a configuration "
                                                      "file.")},
    [VM_CONFIG_MAYFLY_FILE_SYSTEMS] =
        {"mayfly-file-systems", FIELD_ARRAY, FIELD_HIDDEN, MEMBER(struct vm_config, file_systems),
         .count = offsetof(struct vm_config, file_system_count), .maximum = VIRTIO_DEVICES_MAX,
         .object = &file_system_schema, DESCRIPTION("As put to /mayfly/file-systems; only in a configuration file.")},
};
const struct schema vm_config_schema = {"FullVmConfiguration", SCHEMA(vm_config_fields, struct vm_config),
                                        DESCRIPTION("The whole configuration.")};
