/*
 * Counters, one JSON object a line, with the keys that Firecracker's readers know where both have the thing. The
 * table in metrics_table.c maps groups and keys onto the fields here. Counters only grow; any thread adds with
 * METRIC_ADD. Of what there may be several, each device has counters of its own (DEVICE_METRICS).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/error.h"

/* Requests that were for a path, and those of them that were refused. */
struct request_metrics {
    uint64_t count, fails;
};

struct api_metrics {
    uint64_t get_count, put_count, patch_count, fails, sync_response_fails;
    struct request_metrics get_instance_info, get_machine_cfg, get_vmm_version, get_vm_config, get_mmds;
    struct request_metrics put_actions, put_boot_source, put_drive, put_entropy, put_logger, put_machine_cfg,
        put_metrics, put_network, put_serial, put_console, put_vsock, put_vsock_seqpacket, put_file_system, put_pmem,
        put_mayfly_actions, put_drive_options, put_network_options, put_cpu_cfg;
    struct request_metrics put_mmds, put_mmds_config, patch_mmds;
    struct request_metrics get_balloon, get_balloon_statistics, get_balloon_hinting, get_hotplug_memory, put_balloon,
        put_hotplug_memory, patch_balloon, patch_balloon_statistics, start_balloon_hinting, stop_balloon_hinting,
        patch_hotplug_memory;
    struct request_metrics patch_console, patch_drive, patch_machine_cfg, patch_network, patch_pmem, patch_vm;
};

struct block_metrics {
    uint64_t activate_fails, cfg_fails, event_fails, execute_fails, invalid_reqs_count, flush_count, queue_event_count,
        rate_limiter_event_count, update_count, update_fails, read_bytes, write_bytes, read_count, write_count,
        rate_limiter_throttled_events, io_engine_throttled_events, discard_count, write_zeroes_count, no_avail_buffer;
};

struct net_metrics {
    uint64_t activate_fails, cfg_fails, event_fails, rx_queue_event_count, tx_queue_event_count, rx_tap_event_count,
        rx_bytes_count, rx_packets_count, rx_fails, rx_count, tap_read_fails, tap_write_fails, tx_bytes_count,
        tx_malformed_frames, tx_fails, tx_count, tx_packets_count, rx_rate_limiter_throttled, tx_rate_limiter_throttled,
        no_rx_avail_buffer, no_tx_avail_buffer, rx_event_rate_limiter_count, tx_rate_limiter_event_count;
};

struct pmem_metrics {
    uint64_t activate_fails, cfg_fails, event_fails, execute_fails, queue_event_count, flush_count,
        rate_limiter_throttled_events, rate_limiter_event_count;
};

struct entropy_metrics {
    uint64_t activate_fails, entropy_event_fails, entropy_event_count, entropy_bytes, host_rng_fails,
        entropy_rate_limiter_throttled, rate_limiter_event_count;
};

struct balloon_metrics {
    uint64_t activate_fails, inflate_count, stats_updates_count, stats_update_fails, deflate_count, event_fails,
        free_page_report_count, free_page_report_freed, free_page_report_fails, free_page_hint_count,
        free_page_hint_freed, free_page_hint_fails;
};

/* How long operations took, in microseconds: the shortest ever, 0 before there was one, the longest, and all together.
 */
struct latency {
    uint64_t min_us, max_us, sum_us;
};

struct memory_hotplug_metrics {
    struct latency plug, unplug, unplug_all, state;
    uint64_t activate_fails, queue_event_fails, queue_event_count, plug_count, plug_bytes, plug_fails, unplug_count,
        unplug_bytes, unplug_fails, unplug_discard_fails, unplug_all_count, unplug_all_fails, state_count, state_fails;
};

struct console_metrics {
    uint64_t activate_fails, event_fails, rx_bytes, tx_bytes, dropped_bytes, connections;
};

struct vsock_metrics {
    uint64_t activate_fails, cfg_fails, rx_queue_event_fails, tx_queue_event_fails, ev_queue_event_fails,
        muxer_event_fails, conn_event_fails, rx_queue_event_count, tx_queue_event_count, rx_bytes_count, tx_bytes_count,
        rx_packets_count, tx_packets_count, conns_added, conns_killed, conns_removed, tx_flush_fails, tx_write_fails,
        rx_read_fails;
};

/* The times are how long the last one took. */
struct vhost_user_metrics {
    uint64_t activate_fails, cfg_fails, init_time_us, activate_time_us, config_change_time_us, reconnects;
};

struct mmds_metrics {
    uint64_t rx_accepted, rx_accepted_err, rx_accepted_unusual, rx_count, rx_invalid_token, rx_no_token, tx_bytes,
        tx_count, tx_frames, connections_created, connections_destroyed;
};

struct uart_metrics {
    uint64_t error_count, missed_read_count, missed_write_count, read_count, write_count, flush_count,
        rate_limiter_dropped_bytes;
};

struct i8042_metrics {
    uint64_t error_count, missed_read_count, missed_write_count, read_count, reset_count, write_count;
};

struct vcpu_metrics {
    uint64_t exit_io_in, exit_io_out, exit_mmio_read, exit_mmio_write, failures, unknown_port, unknown_mmio,
        kvmclock_ctrl_fails;
};

/* What clients still use and will not be able to for ever. */
struct deprecated_metrics {
    uint64_t http_calls, command_line_calls;
};

/* How long the last one took, in microseconds; vmm_: without the API's part. */
struct latency_metrics {
    uint64_t pause_vm, resume_vm, vmm_pause_vm, vmm_resume_vm;
};

struct logger_metrics {
    uint64_t missed_metrics_count, metrics_fails, missed_log_count, rate_limited_log_count;
};

/* 1 once the process dies of it. */
struct signal_metrics {
    uint64_t sigbus, sigsegv, sigxfsz, sigxcpu, sighup, sigill, sigsys;
};

struct metrics {
    struct api_metrics api_server;
    /* Of these four, what devices counted that are gone; what those counted that are there, they have themselves. */
    struct block_metrics block;
    struct net_metrics net;
    struct pmem_metrics pmem;
    struct vhost_user_metrics vhost_user;
    struct entropy_metrics entropy;
    struct balloon_metrics balloon;
    struct memory_hotplug_metrics memory_hotplug;
    struct console_metrics console;
    struct vsock_metrics vsock;
    struct mmds_metrics mmds;
    struct uart_metrics uart;
    struct i8042_metrics i8042;
    struct vcpu_metrics vcpu;
    struct deprecated_metrics deprecated;
    struct latency_metrics latencies;
    struct logger_metrics logger;
    struct signal_metrics signals;
    uint64_t interrupt_triggers;
    uint64_t sigpipe;           /* survived */
    uint64_t start_time_us;     /* exec to first API reply, wall */
    uint64_t start_time_cpu_us; /* the same, CPU */
};

extern struct metrics metrics;

#define COUNTER_ADD(counter, amount) __atomic_fetch_add(&(counter), (uint64_t)(amount), __ATOMIC_RELAXED)
#define COUNTER_INCREMENT(counter) COUNTER_ADD(counter, 1)
#define COUNTER_SET(counter, value) __atomic_store_n(&(counter), (uint64_t)(value), __ATOMIC_RELAXED)
#define METRIC_ADD(field, amount) COUNTER_ADD(metrics.field, amount)
#define METRIC_INCREMENT(field) METRIC_ADD(field, 1)
#define METRIC_SET(field, value) COUNTER_SET(metrics.field, value)
/* One more operation. With the event loop's lock held. */
void latency_add(struct latency *latency, uint64_t duration_us);

/* In the order of the line. */
enum metric_group_name {
    METRICS_API_SERVER,
    METRICS_BALLOON,
    METRICS_BLOCK,
    METRICS_CONSOLE,
    METRICS_DEPRECATED_API,
    METRICS_ENTROPY,
    METRICS_GET_API_REQUESTS,
    METRICS_I8042,
    METRICS_INTERRUPTS,
    METRICS_LATENCIES_US,
    METRICS_LOGGER,
    METRICS_MEMORY_HOTPLUG,
    METRICS_MMDS,
    METRICS_NET,
    METRICS_PATCH_API_REQUESTS,
    METRICS_PMEM,
    METRICS_PUT_API_REQUESTS,
    METRICS_SECCOMP,
    METRICS_SIGNALS,
    METRICS_UART,
    METRICS_VCPU,
    METRICS_VHOST_USER,
    METRICS_VMM,
    METRICS_VSOCK,
    METRICS_GROUPS,
};

/*
 * What one device counts. It stands in the device's own struct, as DEVICE_METRICS(block_metrics) metrics, and every
 * line tells it twice from metrics_device_add to metrics_device_remove: by itself, and in the sum of its group.
 */
struct device_metrics {
    struct device_metrics *next;
    struct device_metrics **link; /* what points here; NULL: not told */
    enum metric_group_name group;
    const char *prefix, *id;
    const char *counters;
    char *told;
};
#define DEVICE_METRICS(type)                                                                                           \
    struct {                                                                                                           \
        struct device_metrics device;                                                                                  \
        struct type counters, told;                                                                                    \
    }

/*
 * From now on lines have "<prefix>_<id>", with the counters of `own`, a DEVICE_METRICS(); prefix and id are borrowed.
 * A line has room for as many devices as a machine can have: one more is only in the sum. Both with the event loop's
 * lock held, as metrics_write.
 */
#define METRICS_DEVICE_ADD(own, group, prefix, id)                                                                     \
    metrics_device_add(&(own)->device, group, prefix, id, &(own)->counters, &(own)->told)
void metrics_device_add(struct device_metrics *device, enum metric_group_name group, const char *prefix, const char *id,
                        const void *counters, void *told);
/* The device goes; what it counted stays in the sum. Nothing happens to one that was never added. */
void metrics_device_remove(struct device_metrics *device);

/* What the line tells the sum of: METRIC_TOTAL(block.read_count). */
#define METRIC_TOTAL(field) metrics_total(&metrics.field)
uint64_t metrics_total(const uint64_t *counter);

/*
 * Writes one line to `fd`: counters as what was added since the last line. What a full FIFO does not take is dropped
 * and counted, a part of a line goes on with the next call; a broken file is an error. One thread at a time, or a
 * signal handler.
 */
struct error *metrics_write(int fd);

/* The same for the process's last line, errors ignored. Async-signal-safe. */
void metrics_write_at_end(int fd);

/*
 * Makes room for lines: before it, metrics_write writes nothing. Every line carries `members` after the timestamp:
 * JSON, ready to be copied ("\"id\":\"a\""). Copied; NULL: nothing. False without memory.
 */
bool metrics_prepare(const char *members);
