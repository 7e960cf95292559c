/*
 * What Firecracker's readers look for in a line: every group and key that Firecracker has had up to 1.17, on x86_64.
 * Values that this VMM cannot have are 0; what it has besides, such readers pass over.
 */
#include "tests/unit/harness.h"

#include "tests/unit/metrics_line.h"

#include "vmm/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK                                                                                                          \
    "activate_fails cfg_fails no_avail_buffer event_fails execute_fails invalid_reqs_count flush_count "               \
    "queue_event_count rate_limiter_event_count update_count update_fails read_bytes write_bytes read_count "          \
    "write_count read_agg: write_agg: rate_limiter_throttled_events io_engine_throttled_events remaining_reqs_count"
#define NET                                                                                                            \
    "activate_fails cfg_fails mac_address_updates no_rx_avail_buffer no_tx_avail_buffer event_fails "                  \
    "rx_queue_event_count rx_event_rate_limiter_count rx_partial_writes rx_rate_limiter_throttled "                    \
    "rx_tap_event_count rx_bytes_count rx_packets_count rx_fails rx_count tap_read_fails tap_write_fails "             \
    "tap_write_agg: tx_bytes_count tx_malformed_frames tx_fails tx_count tx_packets_count tx_partial_reads "           \
    "tx_queue_event_count tx_rate_limiter_event_count tx_rate_limiter_throttled tx_spoofed_mac_count "                 \
    "tx_remaining_reqs_count"
#define PMEM "activate_fails cfg_fails event_fails queue_event_count"
#define VHOST_USER "activate_fails cfg_fails init_time_us activate_time_us config_change_time_us"

/* The keys of a group; one with a colon is an object of min_us, max_us and sum_us. */
static const struct {
    const char *group, *keys;
} expected[] = {
    {"api_server",
     "process_startup_time_us process_startup_time_cpu_us sync_response_fails sync_vmm_send_timeout_count"},
    {"balloon", "activate_fails cfg_fails inflate_count stats_updates_count stats_update_fails deflate_count "
                "event_fails free_page_report_count free_page_report_freed free_page_report_fails "
                "free_page_hint_count free_page_hint_freed free_page_hint_fails"},
    {"block", BLOCK},
    {"deprecated_api", "deprecated_http_api_calls deprecated_cmd_line_api_calls"},
    {"entropy", "activate_fails entropy_event_fails entropy_event_count entropy_bytes host_rng_fails "
                "entropy_rate_limiter_throttled rate_limiter_event_count"},
    {"get_api_requests", "instance_info_count machine_cfg_count mmds_count vmm_version_count hotplug_memory_count"},
    {"i8042", "error_count missed_read_count missed_write_count read_count reset_count write_count"},
    {"interrupts", "triggers config_updates"},
    {"latencies_us", "full_create_snapshot diff_create_snapshot load_snapshot pause_vm resume_vm "
                     "vmm_full_create_snapshot vmm_diff_create_snapshot vmm_load_snapshot vmm_pause_vm "
                     "vmm_resume_vm"},
    {"logger", "missed_metrics_count metrics_fails missed_log_count log_fails rate_limited_log_count"},
    {"memory_hotplug", "activate_fails queue_event_fails queue_event_count plug_agg: plug_count plug_bytes plug_fails "
                       "unplug_agg: unplug_count unplug_bytes unplug_fails unplug_discard_fails unplug_all_agg: "
                       "unplug_all_count unplug_all_fails state_agg: state_count state_fails"},
    {"mmds", "rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth rx_invalid_token rx_no_token rx_count "
             "tx_bytes tx_count tx_errors tx_frames connections_created connections_destroyed"},
    {"net", NET},
    {"patch_api_requests", "drive_count drive_fails network_count network_fails machine_cfg_count machine_cfg_fails "
                           "mmds_count mmds_fails pmem_count pmem_fails hotplug_memory_count hotplug_memory_fails"},
    {"pmem", PMEM " rate_limiter_throttled_events rate_limiter_event_count"},
    {"put_api_requests",
     "actions_count actions_fails boot_source_count boot_source_fails drive_count drive_fails logger_count "
     "logger_fails machine_cfg_count machine_cfg_fails cpu_cfg_count cpu_cfg_fails metrics_count metrics_fails "
     "network_count network_fails mmds_count mmds_fails vsock_count vsock_fails pmem_count pmem_fails serial_count "
     "serial_fails hotplug_memory_count hotplug_memory_fails"},
    {"seccomp", "num_faults"},
    {"signals", "sigbus sigsegv sigxfsz sigxcpu sigpipe sighup sigill"},
    {"uart", "error_count flush_count missed_read_count missed_write_count read_count write_count "
             "rate_limiter_dropped_bytes"},
    {"vcpu", "exit_io_in exit_io_out exit_mmio_read exit_mmio_write failures kvmclock_ctrl_fails exit_io_in_agg: "
             "exit_io_out_agg: exit_mmio_read_agg: exit_mmio_write_agg:"},
    {"vmm", "device_events panic_count"},
    {"vsock", "activate_fails cfg_fails rx_queue_event_fails tx_queue_event_fails ev_queue_event_fails "
              "muxer_event_fails conn_event_fails rx_queue_event_count tx_queue_event_count rx_bytes_count "
              "tx_bytes_count rx_packets_count tx_packets_count conns_added conns_killed conns_removed killq_resync "
              "tx_flush_fails tx_write_fails rx_read_fails"},
    /* Of each device. */
    {"block_rootfs", BLOCK},
    {"net_eth0", NET},
    {"pmem_p0", PMEM},
    {"vhost_user_block_scratch", VHOST_USER},
};

static void assert_latency(yajl_val line, const char *group, const char *key)
{
    static const char *const members[] = {"min_us", "max_us", "sum_us"};

    for (size_t i = 0; i < array_length(members); i++) {
        const char *path[] = {group, key, members[i], NULL};

        if (yajl_tree_get(line, path, yajl_t_number) == NULL)
            fail_msg("no number \"%s\" in \"%s\" of \"%s\"", members[i], key, group);
    }
}

static void test_every_key_of_firecrackers_lines_is_there(void **state)
{
    DEVICE_METRICS(block_metrics) block = {0};
    DEVICE_METRICS(net_metrics) net = {0};
    DEVICE_METRICS(pmem_metrics) pmem = {0};
    DEVICE_METRICS(vhost_user_metrics) vhost_user = {0};

    (void)state;
    METRICS_DEVICE_ADD(&block, METRICS_BLOCK, "block", "rootfs");
    METRICS_DEVICE_ADD(&net, METRICS_NET, "net", "eth0");
    METRICS_DEVICE_ADD(&pmem, METRICS_PMEM, "pmem", "p0");
    METRICS_DEVICE_ADD(&vhost_user, METRICS_VHOST_USER, "vhost_user_block", "scratch");
    yajl_val line = metrics_line();
    for (size_t i = 0; i < array_length(expected); i++) {
        cleanup_free char *keys = strdup(expected[i].keys);
        char *rest = keys;

        for (char *key = strsep(&rest, " "); key != NULL; key = strsep(&rest, " ")) {
            size_t length = strlen(key);

            if (key[length - 1] != ':') {
                metrics_line_number(line, expected[i].group, key);
            } else {
                key[length - 1] = '\0';
                assert_latency(line, expected[i].group, key);
            }
        }
    }
    yajl_tree_free(line);
    metrics_device_remove(&block.device);
    metrics_device_remove(&net.device);
    metrics_device_remove(&pmem.device);
    metrics_device_remove(&vhost_user.device);
}

/* A name that stood twice would lose its first half in most readers. */
static void assert_names_differ(yajl_val object)
{
    for (size_t i = 0; i < object->u.object.len; i++) {
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(object->u.object.keys[i], object->u.object.keys[j]);
        if (YAJL_IS_OBJECT(object->u.object.values[i]))
            assert_names_differ(object->u.object.values[i]);
    }
}

static void test_no_name_stands_twice(void **state)
{
    yajl_val line = metrics_line();

    (void)state;
    assert_names_differ(line);
    yajl_tree_free(line);
}

TEST_MAIN(cmocka_unit_test(test_every_key_of_firecrackers_lines_is_there), cmocka_unit_test(test_no_name_stands_twice))
