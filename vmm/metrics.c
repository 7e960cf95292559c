#include "vmm/metrics.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct metrics metrics;

/* A counter tells what was added since the last line, as Firecracker's do; a value tells what it is. */
enum metric_kind { METRIC_COUNTER, METRIC_VALUE };

/* Names in place: a table of pointers would cost every process a page of relocations. */
struct metric {
    char group[20];
    char key[32];
    uint16_t offset; /* in struct metrics */
    uint8_t kind;    /* enum metric_kind */
};

#define COUNTER(group_, key_, field)                                                                                   \
    {                                                                                                                  \
        group_, key_, offsetof(struct metrics, field), METRIC_COUNTER                                                  \
    }
#define VALUE(group_, key_, field)                                                                                     \
    {                                                                                                                  \
        group_, key_, offsetof(struct metrics, field), METRIC_VALUE                                                    \
    }

/* In the order of the line; the rows of a group stand together. */
static const struct metric table[] = {
    VALUE("api_server", "process_startup_time_us", start_time_us),
    VALUE("api_server", "process_startup_time_cpu_us", start_time_cpu_us),
    COUNTER("api_server", "sync_response_fails", api_server.sync_response_fails),
    COUNTER("api_server", "get_count", api_server.get_count),
    COUNTER("api_server", "put_count", api_server.put_count),
    COUNTER("api_server", "patch_count", api_server.patch_count),
    COUNTER("api_server", "fails", api_server.fails),
    COUNTER("balloon", "activate_fails", balloon.activate_fails),
    COUNTER("balloon", "inflate_count", balloon.inflate_count),
    COUNTER("balloon", "stats_updates_count", balloon.stats_updates_count),
    COUNTER("balloon", "stats_update_fails", balloon.stats_update_fails),
    COUNTER("balloon", "deflate_count", balloon.deflate_count),
    COUNTER("balloon", "event_fails", balloon.event_fails),
    COUNTER("balloon", "free_page_report_count", balloon.free_page_report_count),
    COUNTER("balloon", "free_page_report_freed", balloon.free_page_report_freed),
    COUNTER("balloon", "free_page_report_fails", balloon.free_page_report_fails),
    COUNTER("balloon", "free_page_hint_count", balloon.free_page_hint_count),
    COUNTER("balloon", "free_page_hint_freed", balloon.free_page_hint_freed),
    COUNTER("balloon", "free_page_hint_fails", balloon.free_page_hint_fails),
    COUNTER("block", "activate_fails", block.activate_fails),
    COUNTER("block", "cfg_fails", block.cfg_fails),
    COUNTER("block", "no_avail_buffer", block.no_avail_buffer),
    COUNTER("block", "event_fails", block.event_fails),
    COUNTER("block", "execute_fails", block.execute_fails),
    COUNTER("block", "invalid_reqs_count", block.invalid_reqs_count),
    COUNTER("block", "flush_count", block.flush_count),
    COUNTER("block", "queue_event_count", block.queue_event_count),
    COUNTER("block", "rate_limiter_event_count", block.rate_limiter_event_count),
    COUNTER("block", "update_count", block.update_count),
    COUNTER("block", "update_fails", block.update_fails),
    COUNTER("block", "read_bytes", block.read_bytes),
    COUNTER("block", "write_bytes", block.write_bytes),
    COUNTER("block", "read_count", block.read_count),
    COUNTER("block", "write_count", block.write_count),
    COUNTER("block", "rate_limiter_throttled_events", block.rate_limiter_throttled_events),
    COUNTER("block", "io_engine_throttled_events", block.io_engine_throttled_events),
    COUNTER("block", "discard_count", block.discard_count),
    COUNTER("block", "write_zeroes_count", block.write_zeroes_count),
    COUNTER("console", "activate_fails", console.activate_fails),
    COUNTER("console", "event_fails", console.event_fails),
    COUNTER("console", "rx_bytes", console.rx_bytes),
    COUNTER("console", "tx_bytes", console.tx_bytes),
    COUNTER("console", "dropped_bytes", console.dropped_bytes),
    COUNTER("console", "connections", console.connections),
    COUNTER("deprecated_api", "deprecated_http_api_calls", deprecated.http_calls),
    COUNTER("deprecated_api", "deprecated_cmd_line_api_calls", deprecated.command_line_calls),
    COUNTER("entropy", "activate_fails", entropy.activate_fails),
    COUNTER("entropy", "entropy_event_fails", entropy.entropy_event_fails),
    COUNTER("entropy", "entropy_event_count", entropy.entropy_event_count),
    COUNTER("entropy", "entropy_bytes", entropy.entropy_bytes),
    COUNTER("entropy", "host_rng_fails", entropy.host_rng_fails),
    COUNTER("entropy", "entropy_rate_limiter_throttled", entropy.entropy_rate_limiter_throttled),
    COUNTER("get_api_requests", "balloon_count", api_server.get_balloon.count),
    COUNTER("get_api_requests", "balloon_stats_count", api_server.get_balloon_statistics.count),
    COUNTER("get_api_requests", "balloon_hinting_count", api_server.get_balloon_hinting.count),
    COUNTER("get_api_requests", "hotplug_memory_count", api_server.get_hotplug_memory.count),
    COUNTER("get_api_requests", "instance_info_count", api_server.get_instance_info.count),
    COUNTER("get_api_requests", "machine_cfg_count", api_server.get_machine_cfg.count),
    COUNTER("get_api_requests", "mmds_count", api_server.get_mmds.count),
    COUNTER("get_api_requests", "vmm_version_count", api_server.get_vmm_version.count),
    COUNTER("get_api_requests", "vm_config_count", api_server.get_vm_config.count),
    COUNTER("i8042", "error_count", i8042.error_count),
    COUNTER("i8042", "missed_read_count", i8042.missed_read_count),
    COUNTER("i8042", "missed_write_count", i8042.missed_write_count),
    COUNTER("i8042", "read_count", i8042.read_count),
    COUNTER("i8042", "reset_count", i8042.reset_count),
    COUNTER("i8042", "write_count", i8042.write_count),
    VALUE("latencies_us", "pause_vm", latencies.pause_vm),
    VALUE("latencies_us", "resume_vm", latencies.resume_vm),
    COUNTER("logger", "missed_metrics_count", logger.missed_metrics_count),
    COUNTER("logger", "metrics_fails", logger.metrics_fails),
    COUNTER("logger", "missed_log_count", logger.missed_log_count),
    COUNTER("logger", "rate_limited_log_count", logger.rate_limited_log_count),
    COUNTER("mmds", "rx_accepted", mmds.rx_accepted),
    COUNTER("mmds", "rx_accepted_err", mmds.rx_accepted_err),
    COUNTER("mmds", "rx_accepted_unusual", mmds.rx_accepted_unusual),
    COUNTER("mmds", "rx_count", mmds.rx_count),
    COUNTER("mmds", "rx_invalid_token", mmds.rx_invalid_token),
    COUNTER("mmds", "rx_no_token", mmds.rx_no_token),
    COUNTER("mmds", "tx_bytes", mmds.tx_bytes),
    COUNTER("mmds", "tx_count", mmds.tx_count),
    COUNTER("mmds", "tx_frames", mmds.tx_frames),
    COUNTER("mmds", "connections_created", mmds.connections_created),
    COUNTER("mmds", "connections_destroyed", mmds.connections_destroyed),
    COUNTER("memory_hotplug", "activate_fails", memory_hotplug.activate_fails),
    COUNTER("memory_hotplug", "queue_event_fails", memory_hotplug.queue_event_fails),
    COUNTER("memory_hotplug", "queue_event_count", memory_hotplug.queue_event_count),
    COUNTER("memory_hotplug", "plug_count", memory_hotplug.plug_count),
    COUNTER("memory_hotplug", "plug_bytes", memory_hotplug.plug_bytes),
    COUNTER("memory_hotplug", "plug_fails", memory_hotplug.plug_fails),
    COUNTER("memory_hotplug", "unplug_count", memory_hotplug.unplug_count),
    COUNTER("memory_hotplug", "unplug_bytes", memory_hotplug.unplug_bytes),
    COUNTER("memory_hotplug", "unplug_fails", memory_hotplug.unplug_fails),
    COUNTER("memory_hotplug", "unplug_discard_fails", memory_hotplug.unplug_discard_fails),
    COUNTER("memory_hotplug", "unplug_all_count", memory_hotplug.unplug_all_count),
    COUNTER("memory_hotplug", "unplug_all_fails", memory_hotplug.unplug_all_fails),
    COUNTER("memory_hotplug", "state_count", memory_hotplug.state_count),
    COUNTER("memory_hotplug", "state_fails", memory_hotplug.state_fails),
    COUNTER("net", "activate_fails", net.activate_fails),
    COUNTER("net", "cfg_fails", net.cfg_fails),
    COUNTER("net", "no_rx_avail_buffer", net.no_rx_avail_buffer),
    COUNTER("net", "event_fails", net.event_fails),
    COUNTER("net", "rx_queue_event_count", net.rx_queue_event_count),
    COUNTER("net", "tx_queue_event_count", net.tx_queue_event_count),
    COUNTER("net", "rx_tap_event_count", net.rx_tap_event_count),
    COUNTER("net", "rx_rate_limiter_throttled", net.rx_rate_limiter_throttled),
    COUNTER("net", "tx_rate_limiter_throttled", net.tx_rate_limiter_throttled),
    COUNTER("net", "rx_bytes_count", net.rx_bytes_count),
    COUNTER("net", "rx_packets_count", net.rx_packets_count),
    COUNTER("net", "rx_fails", net.rx_fails),
    COUNTER("net", "rx_count", net.rx_count),
    COUNTER("net", "tap_read_fails", net.tap_read_fails),
    COUNTER("net", "tap_write_fails", net.tap_write_fails),
    COUNTER("net", "tx_bytes_count", net.tx_bytes_count),
    COUNTER("net", "tx_malformed_frames", net.tx_malformed_frames),
    COUNTER("net", "tx_fails", net.tx_fails),
    COUNTER("net", "tx_count", net.tx_count),
    COUNTER("net", "tx_packets_count", net.tx_packets_count),
    COUNTER("patch_api_requests", "balloon_count", api_server.patch_balloon.count),
    COUNTER("patch_api_requests", "balloon_fails", api_server.patch_balloon.fails),
    COUNTER("patch_api_requests", "balloon_stats_count", api_server.patch_balloon_statistics.count),
    COUNTER("patch_api_requests", "balloon_stats_fails", api_server.patch_balloon_statistics.fails),
    COUNTER("patch_api_requests", "hinting_start_count", api_server.start_balloon_hinting.count),
    COUNTER("patch_api_requests", "hinting_start_fails", api_server.start_balloon_hinting.fails),
    COUNTER("patch_api_requests", "hinting_stop_count", api_server.stop_balloon_hinting.count),
    COUNTER("patch_api_requests", "hinting_stop_fails", api_server.stop_balloon_hinting.fails),
    COUNTER("patch_api_requests", "console_count", api_server.patch_console.count),
    COUNTER("patch_api_requests", "console_fails", api_server.patch_console.fails),
    COUNTER("patch_api_requests", "drive_count", api_server.patch_drive.count),
    COUNTER("patch_api_requests", "drive_fails", api_server.patch_drive.fails),
    COUNTER("patch_api_requests", "hotplug_memory_count", api_server.patch_hotplug_memory.count),
    COUNTER("patch_api_requests", "hotplug_memory_fails", api_server.patch_hotplug_memory.fails),
    COUNTER("patch_api_requests", "machine_cfg_count", api_server.patch_machine_cfg.count),
    COUNTER("patch_api_requests", "machine_cfg_fails", api_server.patch_machine_cfg.fails),
    COUNTER("patch_api_requests", "mmds_count", api_server.patch_mmds.count),
    COUNTER("patch_api_requests", "mmds_fails", api_server.patch_mmds.fails),
    COUNTER("patch_api_requests", "network_count", api_server.patch_network.count),
    COUNTER("patch_api_requests", "network_fails", api_server.patch_network.fails),
    COUNTER("patch_api_requests", "pmem_count", api_server.patch_pmem.count),
    COUNTER("patch_api_requests", "pmem_fails", api_server.patch_pmem.fails),
    COUNTER("patch_api_requests", "vm_count", api_server.patch_vm.count),
    COUNTER("patch_api_requests", "vm_fails", api_server.patch_vm.fails),
    COUNTER("pmem", "activate_fails", pmem.activate_fails),
    COUNTER("pmem", "cfg_fails", pmem.cfg_fails),
    COUNTER("pmem", "event_fails", pmem.event_fails),
    COUNTER("pmem", "execute_fails", pmem.execute_fails),
    COUNTER("pmem", "flush_count", pmem.flush_count),
    COUNTER("pmem", "queue_event_count", pmem.queue_event_count),
    COUNTER("pmem", "rate_limiter_throttled_events", pmem.rate_limiter_throttled_events),
    COUNTER("pmem", "rate_limiter_event_count", pmem.rate_limiter_event_count),
    COUNTER("put_api_requests", "actions_count", api_server.put_actions.count),
    COUNTER("put_api_requests", "actions_fails", api_server.put_actions.fails),
    COUNTER("put_api_requests", "balloon_count", api_server.put_balloon.count),
    COUNTER("put_api_requests", "balloon_fails", api_server.put_balloon.fails),
    COUNTER("put_api_requests", "boot_source_count", api_server.put_boot_source.count),
    COUNTER("put_api_requests", "boot_source_fails", api_server.put_boot_source.fails),
    COUNTER("put_api_requests", "console_count", api_server.put_console.count),
    COUNTER("put_api_requests", "console_fails", api_server.put_console.fails),
    COUNTER("put_api_requests", "cpu_cfg_count", api_server.put_cpu_cfg.count),
    COUNTER("put_api_requests", "cpu_cfg_fails", api_server.put_cpu_cfg.fails),
    COUNTER("put_api_requests", "drive_count", api_server.put_drive.count),
    COUNTER("put_api_requests", "drive_fails", api_server.put_drive.fails),
    COUNTER("put_api_requests", "drive_options_count", api_server.put_drive_options.count),
    COUNTER("put_api_requests", "drive_options_fails", api_server.put_drive_options.fails),
    COUNTER("put_api_requests", "entropy_count", api_server.put_entropy.count),
    COUNTER("put_api_requests", "entropy_fails", api_server.put_entropy.fails),
    COUNTER("put_api_requests", "file_system_count", api_server.put_file_system.count),
    COUNTER("put_api_requests", "file_system_fails", api_server.put_file_system.fails),
    COUNTER("put_api_requests", "hotplug_memory_count", api_server.put_hotplug_memory.count),
    COUNTER("put_api_requests", "hotplug_memory_fails", api_server.put_hotplug_memory.fails),
    COUNTER("put_api_requests", "logger_count", api_server.put_logger.count),
    COUNTER("put_api_requests", "logger_fails", api_server.put_logger.fails),
    COUNTER("put_api_requests", "machine_cfg_count", api_server.put_machine_cfg.count),
    COUNTER("put_api_requests", "machine_cfg_fails", api_server.put_machine_cfg.fails),
    COUNTER("put_api_requests", "mayfly_actions_count", api_server.put_mayfly_actions.count),
    COUNTER("put_api_requests", "mayfly_actions_fails", api_server.put_mayfly_actions.fails),
    COUNTER("put_api_requests", "metrics_count", api_server.put_metrics.count),
    COUNTER("put_api_requests", "metrics_fails", api_server.put_metrics.fails),
    COUNTER("put_api_requests", "mmds_count", api_server.put_mmds.count),
    COUNTER("put_api_requests", "mmds_fails", api_server.put_mmds.fails),
    COUNTER("put_api_requests", "mmds_config_count", api_server.put_mmds_config.count),
    COUNTER("put_api_requests", "mmds_config_fails", api_server.put_mmds_config.fails),
    COUNTER("put_api_requests", "network_count", api_server.put_network.count),
    COUNTER("put_api_requests", "network_fails", api_server.put_network.fails),
    COUNTER("put_api_requests", "pmem_count", api_server.put_pmem.count),
    COUNTER("put_api_requests", "pmem_fails", api_server.put_pmem.fails),
    COUNTER("put_api_requests", "serial_count", api_server.put_serial.count),
    COUNTER("put_api_requests", "serial_fails", api_server.put_serial.fails),
    COUNTER("put_api_requests", "vsock_count", api_server.put_vsock.count),
    COUNTER("put_api_requests", "vsock_fails", api_server.put_vsock.fails),
    COUNTER("put_api_requests", "vsock_seqpacket_count", api_server.put_vsock_seqpacket.count),
    COUNTER("put_api_requests", "vsock_seqpacket_fails", api_server.put_vsock_seqpacket.fails),
    VALUE("signals", "sigbus", signals.sigbus),
    VALUE("signals", "sigsegv", signals.sigsegv),
    VALUE("signals", "sigxfsz", signals.sigxfsz),
    VALUE("signals", "sigxcpu", signals.sigxcpu),
    COUNTER("signals", "sigpipe", sigpipe),
    VALUE("signals", "sighup", signals.sighup),
    VALUE("signals", "sigill", signals.sigill),
    VALUE("seccomp", "num_faults", signals.sigsys),
    COUNTER("uart", "error_count", uart.error_count),
    COUNTER("uart", "flush_count", uart.flush_count),
    COUNTER("uart", "missed_read_count", uart.missed_read_count),
    COUNTER("uart", "missed_write_count", uart.missed_write_count),
    COUNTER("uart", "read_count", uart.read_count),
    COUNTER("uart", "write_count", uart.write_count),
    COUNTER("uart", "rate_limiter_dropped_bytes", uart.rate_limiter_dropped_bytes),
    COUNTER("vcpu", "exit_io_in", vcpu.exit_io_in),
    COUNTER("vcpu", "exit_io_out", vcpu.exit_io_out),
    COUNTER("vcpu", "exit_mmio_read", vcpu.exit_mmio_read),
    COUNTER("vcpu", "exit_mmio_write", vcpu.exit_mmio_write),
    COUNTER("vcpu", "failures", vcpu.failures),
    COUNTER("vcpu", "unknown_port", vcpu.unknown_port),
    COUNTER("vcpu", "unknown_mmio", vcpu.unknown_mmio),
    COUNTER("vhost_user", "activate_fails", vhost_user.activate_fails),
    COUNTER("vhost_user", "cfg_fails", vhost_user.cfg_fails),
    COUNTER("vhost_user", "init_time_us", vhost_user.init_time_us),
    COUNTER("vhost_user", "activate_time_us", vhost_user.activate_time_us),
    COUNTER("vhost_user", "config_change_time_us", vhost_user.config_change_time_us),
    COUNTER("vhost_user", "reconnects", vhost_user.reconnects),
    COUNTER("vsock", "activate_fails", vsock.activate_fails),
    COUNTER("vsock", "cfg_fails", vsock.cfg_fails),
    COUNTER("vsock", "rx_queue_event_fails", vsock.rx_queue_event_fails),
    COUNTER("vsock", "tx_queue_event_fails", vsock.tx_queue_event_fails),
    COUNTER("vsock", "ev_queue_event_fails", vsock.ev_queue_event_fails),
    COUNTER("vsock", "muxer_event_fails", vsock.muxer_event_fails),
    COUNTER("vsock", "conn_event_fails", vsock.conn_event_fails),
    COUNTER("vsock", "rx_queue_event_count", vsock.rx_queue_event_count),
    COUNTER("vsock", "tx_queue_event_count", vsock.tx_queue_event_count),
    COUNTER("vsock", "rx_bytes_count", vsock.rx_bytes_count),
    COUNTER("vsock", "tx_bytes_count", vsock.tx_bytes_count),
    COUNTER("vsock", "rx_packets_count", vsock.rx_packets_count),
    COUNTER("vsock", "tx_packets_count", vsock.tx_packets_count),
    COUNTER("vsock", "conns_added", vsock.conns_added),
    COUNTER("vsock", "conns_killed", vsock.conns_killed),
    COUNTER("vsock", "conns_removed", vsock.conns_removed),
    COUNTER("vsock", "tx_flush_fails", vsock.tx_flush_fails),
    COUNTER("vsock", "tx_write_fails", vsock.tx_write_fails),
    COUNTER("vsock", "rx_read_fails", vsock.rx_read_fails),
};

enum {
    METRIC_TEXT_MAX = 80, /* of one row: a group's head, a key, 20 digits, punctuation */
    LINE_SIZE = 64 + sizeof(table) / sizeof(table[0]) * METRIC_TEXT_MAX,
};

/*
 * What metrics_write keeps from line to line. A pipe may take only the first part of a line: the rest goes out before
 * the next one, so that a reader never sees two lines mixed.
 */
static struct {
    int busy; /* a signal handler must not write over the line that it interrupted */
    int fd;   /* that the unwritten part belongs to */
    size_t start, end;
    uint64_t told[sizeof(table) / sizeof(table[0])];
    char *members; /* heap-allocated; see metrics_set_members */
    char *line;    /* NULL: `room` */
    char room[LINE_SIZE];
} writer;

/* No printf: this may run in a signal handler. */
static char *put_text(char *at, const char *text)
{
    size_t length = strlen(text);

    memcpy(at, text, length);
    return at + length;
}

static char *put_number(char *at, uint64_t number)
{
    char digits[20];
    size_t count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static char *put_key(char *at, const char *key)
{
    *at++ = '"';
    at = put_text(at, key);
    return put_text(at, "\":");
}

static uint64_t metric_load(const struct metric *metric)
{
    const char *base = (const char *)&metrics;

    return __atomic_load_n((const uint64_t *)(const void *)(base + metric->offset), __ATOMIC_RELAXED);
}

static uint64_t wall_clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Fills writer.line and remembers what it told. */
static void format_line(void)
{
    const char *group = NULL;
    char *line = writer.line != NULL ? writer.line : writer.room;
    char *at = line;

    *at++ = '{';
    at = put_key(at, "utc_timestamp_ms");
    at = put_number(at, wall_clock_ms());
    if (writer.members != NULL) {
        *at++ = ',';
        at = put_text(at, writer.members);
    }
    for (size_t i = 0; i < array_length(table); i++) {
        uint64_t value = metric_load(&table[i]);

        if (group == NULL || strcmp(group, table[i].group) != 0) {
            at = put_text(at, group == NULL ? "," : "},");
            at = put_key(at, table[i].group);
            *at++ = '{';
            group = table[i].group;
        } else {
            *at++ = ',';
        }
        at = put_key(at, table[i].key);
        at = put_number(at, table[i].kind == METRIC_COUNTER ? value - writer.told[i] : value);
        writer.told[i] = value;
    }
    at = put_text(at, "}}\n");
    writer.start = 0;
    writer.end = (size_t)(at - line);
}

/* False, with errno, when there is still something left. */
static bool write_rest(int fd)
{
    const char *line = writer.line != NULL ? writer.line : writer.room;

    while (writer.start < writer.end) {
        ssize_t written = write(fd, line + writer.start, writer.end - writer.start);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        writer.start += (size_t)written;
    }
    return true;
}

/* 0, or an errno: a full pipe's EAGAIN is none. */
static int write_line(int fd)
{
    int code = 0;

    if (__atomic_exchange_n(&writer.busy, 1, __ATOMIC_ACQUIRE))
        return 0;
    if (writer.fd != fd)
        writer.start = writer.end;
    writer.fd = fd;
    __atomic_store_n(&metrics.logger.missed_log_count, log_dropped(), __ATOMIC_RELAXED);
    __atomic_store_n(&metrics.logger.rate_limited_log_count, log_suppressed(), __ATOMIC_RELAXED);

    bool complete = write_rest(fd);
    if (complete) {
        format_line();
        complete = write_rest(fd);
    }
    if (!complete && errno == EAGAIN) {
        METRIC_INCREMENT(logger.missed_metrics_count);
    } else if (!complete) {
        METRIC_INCREMENT(logger.metrics_fails);
        code = errno;
        writer.start = writer.end;
    }
    __atomic_store_n(&writer.busy, 0, __ATOMIC_RELEASE);
    return code;
}

struct error *metrics_write(int fd)
{
    int code = write_line(fd);

    return code == 0 ? NULL : error_errno(code, "metrics_path: cannot write the metrics");
}

void metrics_write_at_end(int fd)
{
    write_line(fd);
}

bool metrics_set_members(const char *text)
{
    char *members = NULL;
    char *line = NULL;

    if (text != NULL) {
        members = strdup(text);
        line = malloc(LINE_SIZE + 1 + strlen(text));
        if (members == NULL || line == NULL) {
            free(members);
            free(line);
            return false;
        }
    }
    free(writer.members);
    free(writer.line);
    writer.members = members;
    writer.line = line;
    writer.start = writer.end = 0;
    return true;
}
