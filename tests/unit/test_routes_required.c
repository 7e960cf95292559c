/* Fields that a request must have. */
#include "tests/unit/routes_fixture.h"

/* As the reference has them; the tables of fields cannot tell that one of them forgot it. */
static void test_fields_that_are_required_are_missed(void **state)
{
    static const struct {
        enum api_method method;
        const char *path, *body, *field;
    } cases[] = {
        {API_PUT, "/drives/a", "{\"is_root_device\":true,\"path_on_host\":\"/d\"}", "drive_id"},
        {API_PUT, "/drives/a", "{\"drive_id\":\"a\",\"path_on_host\":\"/d\"}", "is_root_device"},
        {API_PUT, "/drives/a", "{\"drive_id\":\"a\",\"is_root_device\":true}", "path_on_host"},
        {API_PATCH, "/drives/a", "{\"path_on_host\":\"/d\"}", "drive_id"},
        {API_PUT, "/network-interfaces/a", "{\"host_dev_name\":\"t\"}", "iface_id"},
        {API_PUT, "/network-interfaces/a", "{\"iface_id\":\"a\"}", "host_dev_name"},
        {API_PATCH, "/network-interfaces/a", "{\"rx_rate_limiter\":{}}", "iface_id"},
        {API_PUT, "/pmem/a", "{\"path_on_host\":\"/p\"}", "id"},
        {API_PUT, "/pmem/a", "{\"id\":\"a\"}", "path_on_host"},
        {API_PATCH, "/pmem/a", "{\"rate_limiter\":{}}", "id"},
        {API_PUT, "/boot-source", "{\"boot_args\":\"x\"}", "kernel_image_path"},
        {API_PUT, "/machine-config", "{\"mem_size_mib\":128}", "vcpu_count"},
        {API_PUT, "/machine-config", "{\"vcpu_count\":1}", "mem_size_mib"},
        {API_PUT, "/balloon", "{\"deflate_on_oom\":true}", "amount_mib"},
        {API_PUT, "/balloon", "{\"amount_mib\":1}", "deflate_on_oom"},
        {API_PATCH, "/balloon", "{}", "amount_mib"},
        {API_PATCH, "/balloon/statistics", "{}", "stats_polling_interval_s"},
        {API_PUT, "/vsock", "{\"uds_path\":\"/v\"}", "guest_cid"},
        {API_PUT, "/vsock", "{\"guest_cid\":3}", "uds_path"},
        {API_PUT, "/mmds/config", "{\"version\":\"V2\"}", "network_interfaces"},
        {API_PUT, "/actions", "{}", "action_type"},
        {API_PATCH, "/vm", "{}", "state"},
        {API_PUT, "/metrics", "{}", "metrics_path"},
        {API_PUT, "/mayfly/drives/a", "{\"queues\":2}", "drive_id"},
        {API_PUT, "/mayfly/network-interfaces/a", "{\"queues\":2}", "iface_id"},
        {API_PUT, "/mayfly/console", "{}", "ports"},
        {API_PUT, "/mayfly/file-systems/a", "{\"tag\":\"t\",\"socket_path\":\"/f\"}", "fs_id"},
        {API_PUT, "/mayfly/file-systems/a", "{\"fs_id\":\"a\",\"socket_path\":\"/f\"}", "tag"},
        {API_PUT, "/mayfly/file-systems/a", "{\"fs_id\":\"a\",\"tag\":\"t\"}", "socket_path"},
        {API_PUT, "/mayfly/vsock-seqpacket", "{}", "uds_path"},
    };
    char part[64];

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        /* Some requests are for a machine that runs. */
        fake_machine.state = cases[i].method == API_PATCH ? MACHINE_RUNNING : MACHINE_NOT_STARTED;
        snprintf(part, sizeof(part), "%s: missing", cases[i].field);
        assert_reply(cases[i].method, cases[i].path, cases[i].body, 400, part);
    }
}

TEST_MAIN(cmocka_unit_test_setup(test_fields_that_are_required_are_missed, setup))
