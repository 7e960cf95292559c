/*
 * What a microVM is: plain data, named as in the API. The API decodes JSON into these structs (api/schema.h describes
 * their fields in tables); the machine owns the accepted ones and builds itself from them. Strings are heap-allocated
 * and owned by the struct; NULL means not given. `*_free` in config.c gives back what a struct owns.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VCPUS_MAX = 32,
    MEM_SIZE_MIB_DEFAULT = 128,
    MEM_SIZE_MIB_MAX = 8 << 20, /* 8 TiB: what KVM takes in one memslot; the host usually has less */
    DRIVE_QUEUES_MAX = VCPUS_MAX,
    NETWORK_QUEUES_MAX = VCPUS_MAX,
    VIRTIO_DEVICES_MAX = 19, /* one IOAPIC pin each: GSI 5 to 23 */
    CONSOLE_PORTS_MAX = 16,
    ID_LENGTH_MAX = 64, /* of an instance: letters, digits, '-'; of a device: '_', '.' and '/', too */
};

/*
 * Tokens are bytes or operations; the bucket holds `size` and fills up in `refill_time` milliseconds. A bucket that is
 * present with `size` or `refill_time` 0 does not limit: in an update it takes the limit away.
 */
struct token_bucket_config {
    bool present;
    uint64_t size;
    uint64_t refill_time;
    bool has_one_time_burst;
    uint64_t one_time_burst;
};

struct rate_limiter_config {
    bool present;
    struct token_bucket_config bandwidth;
    struct token_bucket_config ops;
};

enum huge_pages { HUGE_PAGES_NONE, HUGE_PAGES_TRANSPARENT, HUGE_PAGES_2M };

/* Sets of CPU features named after the instance types that have them. */
enum cpu_template {
    CPU_TEMPLATE_NONE,
    CPU_TEMPLATE_C3,
    CPU_TEMPLATE_T2,
    CPU_TEMPLATE_T2S,
    CPU_TEMPLATE_T2CL,
    CPU_TEMPLATE_T2A
};

struct machine_config {
    uint32_t vcpu_count;
    uint64_t mem_size_mib;
    bool smt;
    bool track_dirty_pages;
    enum huge_pages huge_pages;
    enum cpu_template cpu_template;
    bool has_cpu_template; /* given: without it, what was put to /cpu-config stays */
};

/*
 * A set of CPU features of the caller's own, as text: numbers as "0x7", "0b111" or "7"; a bitmap is "0b" and a 0, a 1
 * or an x (leave as it is) for each bit, from the highest.
 */
enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

struct cpuid_register_modifier {
    enum cpuid_register where;
    char *bitmap;
};

struct cpuid_modifier {
    char *leaf;
    char *subleaf;
    uint32_t flags; /* of struct kvm_cpuid_entry2 */
    struct cpuid_register_modifier *modifiers;
    size_t modifier_count;
};

struct msr_modifier {
    char *addr;
    char *bitmap;
};

struct string_list {
    char **items; /* count of them */
    size_t count;
};

struct cpu_config {
    struct string_list kvm_capabilities; /* "121": the host must have it; "!121": it need not */
    struct cpuid_modifier *cpuid_modifiers;
    size_t cpuid_modifier_count;
    struct msr_modifier *msr_modifiers;
    size_t msr_modifier_count;
};

struct boot_source_config {
    char *kernel_image_path; /* NULL: no boot source */
    char *initrd_path;
    char *boot_args;
};

enum cache_type { CACHE_TYPE_UNSAFE, CACHE_TYPE_WRITEBACK };
enum io_engine { IO_ENGINE_SYNC, IO_ENGINE_ASYNC };

/* Either path_on_host or socket is given; with socket is_read_only (it is the back end's), limits and engine are not.
 */
struct drive_config {
    char *drive_id;
    char *path_on_host;
    char *socket; /* of a vhost-user back end that has the sectors */
    char *partuuid;
    bool is_root_device;
    bool is_read_only;
    bool has_is_read_only;
    enum cache_type cache_type;
    enum io_engine io_engine;
    bool has_io_engine;
    struct rate_limiter_config rate_limiter;
    bool direct;          /* of struct drive_options, as the next */
    uint32_t queue_count; /* 0: one */
};

/* What a drive can beyond the reference (PUT /mayfly/drives/{drive_id}). */
struct drive_options {
    char *drive_id;
    bool direct; /* its file is read and written around the host's page cache */
    uint32_t queue_count;
};

/* The fields of PATCH /drives/{drive_id}; NULL and !present are left as they are. */
struct drive_update {
    char *drive_id;
    char *path_on_host;
    struct rate_limiter_config rate_limiter;
};

/* What stands in for a tap. */
enum network_backend_type { NETWORK_BACKEND_STREAM, NETWORK_BACKEND_VHOST_USER };

struct network_backend_config {
    bool present;
    enum network_backend_type type;
    char *socket_path; /* a Unix stream socket: a program like passt, or a vhost-user back end, listens on it */
};

/* Either host_dev_name, a tap, or backend is given. */
struct network_interface_config {
    char *iface_id;
    char *host_dev_name;
    struct network_backend_config backend;
    char *guest_mac;      /* "06:00:ac:10:00:02"; NULL: the guest chooses */
    uint32_t mtu;         /* 0: not advertised */
    uint32_t queue_count; /* of struct network_interface_options; 0: one */
    bool vhost;           /* likewise */
    struct rate_limiter_config rx_rate_limiter;
    struct rate_limiter_config tx_rate_limiter;
};

/* What an interface can beyond the reference (PUT /mayfly/network-interfaces/{iface_id}). */
struct network_interface_options {
    char *iface_id;
    uint32_t queue_count; /* pairs of queues */
    bool vhost;           /* the host's kernel moves the frames between them and the tap */
};

/* The fields of PATCH /network-interfaces/{iface_id}. */
struct network_interface_update {
    char *iface_id;
    struct rate_limiter_config rx_rate_limiter;
    struct rate_limiter_config tx_rate_limiter;
};

/* A file that the guest has as memory of its own, beside its RAM. */
struct pmem_config {
    char *id;
    char *path_on_host;
    bool root_device;
    bool read_only;
    struct rate_limiter_config rate_limiter; /* of flushes: each is an operation, and as many bytes as the file has */
};

/* The fields of PATCH /pmem/{id}. */
struct pmem_update {
    char *id;
    struct rate_limiter_config rate_limiter;
};

struct entropy_config {
    bool present;
    struct rate_limiter_config rate_limiter;
};

enum { BALLOON_MIB_MAX = (1 << 24) - 1 }; /* its pages are counted with 32 bits */

/* amount_mib is what the guest is to give up; polling is in seconds, 0: no statistics, which then stay off. */
struct balloon_config {
    bool present;
    uint32_t amount_mib;
    bool deflate_on_oom;
    uint32_t stats_polling_interval_s;
    bool free_page_hinting;
    bool free_page_reporting;
};

/* The fields of PATCH /balloon, /balloon/statistics and /balloon/hinting/start. */
struct balloon_update {
    uint32_t amount_mib;
};
struct balloon_statistics_update {
    uint32_t stats_polling_interval_s;
};
struct balloon_hinting_start {
    bool acknowledge_on_stop;
};

/* What Linux tells, by tag (virtio 1.2, section 5.5.6.4). */
enum balloon_statistic {
    BALLOON_SWAP_IN,
    BALLOON_SWAP_OUT,
    BALLOON_MAJOR_FAULTS,
    BALLOON_MINOR_FAULTS,
    BALLOON_FREE_MEMORY,
    BALLOON_TOTAL_MEMORY,
    BALLOON_AVAILABLE_MEMORY,
    BALLOON_DISK_CACHES,
    BALLOON_HUGETLB_ALLOCATIONS,
    BALLOON_HUGETLB_FAILURES,
    BALLOON_OOM_KILL,
    BALLOON_ALLOC_STALL,
    BALLOON_ASYNC_SCAN,
    BALLOON_DIRECT_SCAN,
    BALLOON_ASYNC_RECLAIM,
    BALLOON_DIRECT_RECLAIM,
    BALLOON_STATISTICS,
};

struct balloon_statistics {
    uint64_t target_pages, actual_pages, target_mib, actual_mib;
    uint64_t value[BALLOON_STATISTICS];
    bool given[BALLOON_STATISTICS]; /* the guest told it, ever */
};

struct balloon_hinting_status {
    uint32_t host_cmd;
    uint32_t guest_cmd;
    bool has_guest_cmd; /* the guest told one since it reset the device */
};

enum {
    HOTPLUG_SLOT_SIZE_MIB_DEFAULT = 128,
    HOTPLUG_BLOCK_SIZE_MIB_DEFAULT = 2,
    HOTPLUG_SLOTS_MAX = 16384, /* about half of what KVM has */
};

/* Memory that comes and goes: total_size_mib of it at most; memslots of slot_size_mib, blocks of block_size_mib. */
struct memory_hotplug_config {
    bool present;
    uint64_t total_size_mib;
    uint64_t slot_size_mib;
    uint64_t block_size_mib;
};

struct memory_hotplug_update {
    uint64_t requested_size_mib;
};

struct memory_hotplug_status {
    uint64_t total_size_mib, slot_size_mib, block_size_mib, plugged_size_mib, requested_size_mib;
};

struct serial_config {
    char *serial_out_path; /* NULL: stdin and stdout of the VMM */
    struct token_bucket_config rate_limiter;
};

/* 0 to 2 are the hypervisor's, the loopback's and the host's; the one above the last means any. */
#define VSOCK_GUEST_CID_MIN 3u
#define VSOCK_GUEST_CID_MAX (UINT32_MAX - 1)

struct vsock_config {
    bool present;
    uint32_t guest_cid;
    char *uds_path;
    char *vsock_id; /* without effect */
};

/* Where host programs connect with messages (SOCK_SEQPACKET) in place of a stream; part of the vsock device. */
struct vsock_seqpacket_config {
    bool present;
    char *uds_path;
};

enum { CONSOLE_OUTPUT_MIB_DEFAULT = 64 };

/*
 * One port of the virtio-console (PUT /mayfly/console). Exactly one of socket_path and output_path is given.
 * socket_path: the VMM listens there (Unix stream, one peer at a time); the guest sees the port open while a peer is
 * connected; when the peer shuts its sending side down the guest reads end-of-file.
 * output_path: what the guest writes is appended to this file or FIFO; the port is always open.
 */
struct console_port_config {
    char *name;
    char *socket_path;
    char *output_path;
    uint32_t output_max_mib; /* that a regular file takes in a VM's life; 0: the default */
    bool console;            /* the guest may use it as a terminal (hvcN) */
    bool unplugged;          /* the guest does not find it yet */
    uint32_t columns, rows;  /* of a terminal's window; 0: the guest is not told */
};

/* The fields of PATCH /mayfly/console: of one port. */
struct console_update {
    char *name;
    bool has_unplugged;
    bool unplugged;
    uint32_t columns, rows; /* 0: as they are */
};

struct console_config {
    struct console_port_config *ports; /* port_count of them; NULL: no console device */
    size_t port_count;
};

/* A directory that a vhost-user back end (virtiofsd) shares with the guest: PUT /mayfly/file-systems/{fs_id}. */
struct file_system_config {
    char *fs_id;
    char *tag; /* what the guest mounts it by */
    char *socket_path;
};

enum { FILE_SYSTEM_TAG_MAX = 36 };

struct logger_config {
    char *log_path;
    char *level; /* as given, case-insensitive: Off Error Warning Info Debug Trace; NULL: unchanged */
    bool show_level;
    bool has_show_level;
    bool show_log_origin;
    bool has_show_log_origin;
    char *module;
};

/* What an operator calls things: names and values of his own. */
struct string_pair {
    char *name;
    char *value;
};

struct string_map {
    struct string_pair *pairs; /* count of them, in the order given */
    size_t count;
};

struct metrics_config {
    char *metrics_path;           /* NULL: metrics are not written */
    bool emit_id;                 /* every line carries the instance's id as "id" */
    struct string_map properties; /* every line carries these as "properties", when there are any */
};

enum mmds_version { MMDS_V1, MMDS_V2 };

/* The metadata service (vmm/mmds/). */
struct mmds_config {
    bool present;
    enum mmds_version version;
    struct string_list network_interfaces; /* their ids */
    char *ipv4_address;                    /* NULL: 169.254.169.254 */
    bool imds_compat;
};

struct vm_config {
    struct machine_config machine;
    char *cpu_config_path; /* of a configuration file: a file that holds a struct cpu_config's JSON */
    struct boot_source_config boot_source;
    struct drive_config drives[VIRTIO_DEVICES_MAX]; /* the root device, if any, first; else in order of their PUT */
    size_t drive_count;
    struct drive_options drive_options[VIRTIO_DEVICES_MAX]; /* of a configuration file: they go into `drives` */
    size_t drive_options_count;
    struct network_interface_options network_options[VIRTIO_DEVICES_MAX]; /* of a configuration file, likewise */
    size_t network_options_count;
    struct network_interface_config network_interfaces[VIRTIO_DEVICES_MAX];
    size_t network_interface_count;
    struct pmem_config pmem[VIRTIO_DEVICES_MAX]; /* the root device, if any, first */
    size_t pmem_count;
    struct entropy_config entropy;
    struct balloon_config balloon;
    struct memory_hotplug_config memory_hotplug;
    struct serial_config serial;
    struct console_config console;
    struct vsock_config vsock;
    struct mmds_config mmds;
    struct vsock_seqpacket_config vsock_seqpacket;
    struct file_system_config file_systems[VIRTIO_DEVICES_MAX];
    size_t file_system_count;
    struct logger_config logger;
    struct metrics_config metrics;
};

/* Whether another process is to have the interface's queues. */
static inline bool network_interface_is_vhost_user(const struct network_interface_config *config)
{
    return config->backend.present && config->backend.type == NETWORK_BACKEND_VHOST_USER;
}

/* Who carries the interface's frames past the VMM, which then can neither limit nor answer them; NULL: nobody. */
const char *network_interface_carrier(const struct network_interface_config *config);

/* Whether `text` is made of letters, digits, '_', '-', '.' and '/' alone, as a device's id is. */
bool device_id_is_spelled(const char *text);

/* Where in its array what has this id is; the end of it when nothing has, or `id` is NULL. */
size_t drive_find(const struct vm_config *config, const char *drive_id);
size_t network_interface_find(const struct vm_config *config, const char *iface_id);

void machine_config_default(struct machine_config *config);

void string_list_free(struct string_list *list);
void cpu_config_free(struct cpu_config *config);
void boot_source_config_free(struct boot_source_config *config);
void drive_config_free(struct drive_config *config);
void drive_options_free(struct drive_options *options);
void network_interface_options_free(struct network_interface_options *options);
void drive_update_free(struct drive_update *update);
void network_interface_config_free(struct network_interface_config *config);
void network_interface_update_free(struct network_interface_update *update);
void pmem_config_free(struct pmem_config *config);
void pmem_update_free(struct pmem_update *update);
void serial_config_free(struct serial_config *config);
void console_config_free(struct console_config *config);
void console_update_free(struct console_update *update);
void vsock_config_free(struct vsock_config *config);
void vsock_seqpacket_config_free(struct vsock_seqpacket_config *config);
void file_system_config_free(struct file_system_config *config);
void mmds_config_free(struct mmds_config *config);
void logger_config_free(struct logger_config *config);
void string_map_free(struct string_map *map);
void metrics_config_free(struct metrics_config *config);
void vm_config_free(struct vm_config *config);
