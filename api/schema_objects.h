/* The API's objects, one schema each. The structs are those of vmm/config.h where nothing else is said. */
#pragma once

#include "api/schema.h"
#include "vmm/config.h"
#include "vmm/control.h"

/* GET / */
struct instance_info {
    const char *id;
    enum machine_state state;
    const char *vmm_version;
    const char *app_name;
};

/* GET /version */
struct version_info {
    const char *firecracker_version;
};

/* PUT /actions */
enum instance_action { ACTION_FLUSH_METRICS, ACTION_INSTANCE_START, ACTION_SEND_CTRL_ALT_DEL };
struct action_info {
    enum instance_action action_type;
};

/* PUT /mayfly/actions */
enum mayfly_action { MAYFLY_ACTION_POWER_BUTTON };
struct mayfly_action_info {
    enum mayfly_action action_type;
};

/* PATCH /vm */
enum vm_state { VM_PAUSED, VM_RESUMED };
struct vm_update {
    enum vm_state state;
};

extern const struct schema instance_info_schema; /* struct instance_info: encoded only, never freed by the schema */
extern const struct schema version_info_schema;
extern const struct schema action_info_schema;
extern const struct schema mayfly_action_info_schema;
extern const struct schema vm_update_schema;
extern const struct schema machine_config_schema;
extern const struct schema boot_source_schema;
extern const struct schema drive_schema;
extern const struct schema drive_update_schema;
extern const struct schema network_interface_schema;
extern const struct schema network_interface_update_schema;
extern const struct schema entropy_schema;
extern const struct schema serial_schema;
extern const struct schema logger_schema;
extern const struct schema metrics_schema;
extern const struct schema console_schema;
extern const struct schema console_update_schema;
extern const struct schema vsock_schema;
extern const struct schema vsock_seqpacket_schema;
extern const struct schema cpu_config_schema;
extern const struct schema drive_options_schema;
extern const struct schema network_interface_options_schema;
extern const struct schema pmem_schema;
extern const struct schema pmem_update_schema;
extern const struct schema file_system_schema;
extern const struct schema mmds_config_schema;
extern const struct schema mmds_contents_schema; /* what it describes is a tree: api/mmds_json.h */
extern const struct schema balloon_schema;
extern const struct schema balloon_update_schema;
extern const struct schema balloon_statistics_schema; /* encoded only, as is the hinting status */
extern const struct schema balloon_statistics_update_schema;
extern const struct schema balloon_hinting_start_schema;
extern const struct schema balloon_hinting_stop_schema; /* an object without fields */
extern const struct schema balloon_hinting_status_schema;
extern const struct schema memory_hotplug_schema;
extern const struct schema memory_hotplug_update_schema;
extern const struct schema memory_hotplug_status_schema; /* encoded only */
extern const struct schema vm_config_schema;             /* GET /vm/config and --config-file */

/* Where each field of struct vm_config is in its table: bits of schema_given. */
enum vm_config_field {
    VM_CONFIG_BALLOON,
    VM_CONFIG_DRIVES,
    VM_CONFIG_BOOT_SOURCE,
    VM_CONFIG_CPU_CONFIG,
    VM_CONFIG_LOGGER,
    VM_CONFIG_MACHINE_CONFIG,
    VM_CONFIG_METRICS,
    VM_CONFIG_MEMORY_HOTPLUG,
    VM_CONFIG_MMDS_CONFIG,
    VM_CONFIG_NETWORK_INTERFACES,
    VM_CONFIG_PMEM,
    VM_CONFIG_VSOCK,
    VM_CONFIG_ENTROPY,
    VM_CONFIG_SERIAL,
    VM_CONFIG_MAYFLY_CONSOLE,
    VM_CONFIG_MAYFLY_DRIVES,
    VM_CONFIG_MAYFLY_NETWORK_INTERFACES,
    VM_CONFIG_MAYFLY_VSOCK_SEQPACKET,
    VM_CONFIG_MAYFLY_FILE_SYSTEMS,
};
