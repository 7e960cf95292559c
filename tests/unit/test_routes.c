/* The routes of the API, with a machine that is none. */
#include "tests/unit/routes_fixture.h"

static const struct {
    enum api_method method;
    const char *path;
    const char *body;
} right[] = {
    {API_GET, "/", NULL},
    {API_GET, "/version", NULL},
    {API_GET, "/machine-config", NULL},
    {API_PUT, "/machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 256}"},
    {API_PATCH, "/machine-config", "{\"vcpu_count\": 2}"},
    {API_PUT, "/boot-source", "{\"kernel_image_path\": \"/k\"}"},
    {API_PUT, "/drives/d1", "{\"drive_id\": \"d1\", \"is_root_device\": true, \"path_on_host\": \"/d\"}"},
    {API_PATCH, "/drives/d1", "{\"drive_id\": \"d1\", \"path_on_host\": \"/e\"}"},
    {API_PUT, "/network-interfaces/n1", "{\"iface_id\": \"n1\", \"host_dev_name\": \"tap0\"}"},
    {API_PATCH, "/network-interfaces/n1", "{\"iface_id\": \"n1\"}"},
    {API_PUT, "/pmem/p1", "{\"id\": \"p1\", \"path_on_host\": \"/p\"}"},
    {API_PATCH, "/pmem/p1", "{\"id\": \"p1\", \"rate_limiter\": {}}"},
    {API_PUT, "/entropy", "{}"},
    {API_GET, "/balloon", NULL},
    {API_PUT, "/balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true}"},
    {API_PATCH, "/balloon", "{\"amount_mib\": 2}"},
    {API_GET, "/balloon/statistics", NULL},
    {API_PATCH, "/balloon/statistics", "{\"stats_polling_interval_s\": 1}"},
    {API_PATCH, "/balloon/hinting/start", "{}"},
    {API_GET, "/balloon/hinting/status", NULL},
    {API_PATCH, "/balloon/hinting/stop", "{}"},
    {API_GET, "/hotplug/memory", NULL},
    {API_PUT, "/hotplug/memory", "{\"total_size_mib\": 1024}"},
    {API_PATCH, "/hotplug/memory", "{\"requested_size_mib\": 128}"},
    {API_PUT, "/serial", "{\"serial_out_path\": \"/s\"}"},
    {API_PUT, "/logger", "{\"level\": \"Info\"}"},
    {API_PUT, "/metrics", "{\"metrics_path\": \"/m\"}"},
    {API_PUT, "/actions", "{\"action_type\": \"FlushMetrics\"}"},
    {API_PATCH, "/vm", "{\"state\": \"Paused\"}"},
    {API_GET, "/vm/config", NULL},
    {API_PUT, "/cpu-config", "{\"kvm_capabilities\": [\"1\"]}"},
    {API_PUT, "/mayfly/drives/d1", "{\"drive_id\": \"d1\", \"queues\": 2}"},
    {API_PUT, "/mayfly/network-interfaces/eth0", "{\"iface_id\": \"eth0\", \"queues\": 2}"},
    {API_PUT, "/mayfly/actions", "{\"action_type\": \"PowerButton\"}"},
    {API_PUT, "/mayfly/console", "{\"ports\": [{\"name\": \"a\", \"output_path\": \"/a\"}]}"},
    {API_PUT, "/mayfly/file-systems/f1", "{\"fs_id\": \"f1\", \"tag\": \"t\", \"socket_path\": \"/f\"}"},
    {API_PUT, "/vsock", "{\"guest_cid\": 3, \"uds_path\": \"/v\"}"},
    {API_GET, "/mmds", NULL},
    {API_PUT, "/mmds", "{\"a\":{\"b\":1}}"},
    {API_PATCH, "/mmds", "{\"a\":null}"},
    {API_PUT, "/mmds/config", "{\"network_interfaces\":[\"eth0\"]}"},
    {API_PUT, "/mayfly/vsock-seqpacket", "{\"uds_path\": \"/w\"}"},
    {API_PATCH, "/mayfly/console", "{\"name\": \"a\", \"unplugged\": true}"},
};

/* Whether a request for `path` is one for `pattern`, in which "{...}" stands for a name. */
static bool path_fits(const char *path, const char *pattern)
{
    const char *name = strchr(pattern, '{');
    size_t length = name != NULL ? (size_t)(name - pattern) : strlen(pattern);

    return strncmp(path, pattern, length) == 0 &&
           (name == NULL ? path[length] == '\0' : path[length] != '\0' && strchr(path + length, '/') == NULL);
}

static const struct route *route_of(size_t i)
{
    const struct route *found = NULL;

    for (size_t j = 0; j < route_count; j++)
        if (routes[j].method == right[i].method && path_fits(right[i].path, routes[j].path)) {
            assert_null(found);
            found = &routes[j];
        }
    assert_non_null(found);
    return found;
}

/* Puts what `right` has for `path`, which must be accepted. */
static void put(const char *path)
{
    size_t i = 0;

    while (i < array_length(right) && (right[i].method != API_PUT || strcmp(right[i].path, path) != 0))
        i++;
    assert_true(i < array_length(right));
    assert_reply(API_PUT, path, right[i].body, 204, "");
}

static void test_every_route_answers_in_its_states_and_refuses_in_others(void **state)
{
    (void)state;
    assert_int_equal(array_length(right), route_count);
    for (size_t i = 0; i < array_length(right); i++) {
        for (enum machine_state when = MACHINE_NOT_STARTED; when <= MACHINE_PAUSED; when++) {
            const struct route *route = route_of(i);
            bool fits = route->states >> when & 1;

            if (strcmp(route->path, "/actions") == 0)
                continue;
            fake_machine_reset();
            fake_machine.state = when;
            assert_reply(right[i].method, right[i].path, right[i].body,
                         !fits                  ? 400
                         : route->reply != NULL ? 200
                                                : 204,
                         fits ? "" : "{\"fault_message\":\"");
        }
    }
    fake_machine_reset();
}

static void test_refused_request_leaves_the_machine_as_it_was(void **state)
{
    (void)state;
    fake_machine.refusal = "no such file";
    assert_reply(API_PUT, "/boot-source", "{\"kernel_image_path\": \"/k\"}", 400, "no such file");
    assert_null(fake_machine.config.boot_source.kernel_image_path);
    assert_reply(API_PUT, "/machine-config", "{\"vcpu_count\": 0, \"mem_size_mib\": 256}", 400, "vcpu_count: 0 given");
    assert_int_equal(fake_machine.config.machine.mem_size_mib, 128);
    fake_machine.refusal = "no such device";
    assert_reply(API_PUT, "/drives/a", "{\"drive_id\": \"a\", \"is_root_device\": true, \"path_on_host\": \"/d\"}", 400,
                 "no such device");
    assert_int_equal(fake_machine.config.drive_count, 0);
}

static void test_put_gives_defaults_and_patch_keeps_what_is_not_given(void **state)
{
    (void)state;
    assert_reply(API_PUT, "/machine-config",
                 "{\"vcpu_count\": 4, \"mem_size_mib\": 256, \"smt\": true, \"track_dirty_pages\": true}", 204, "");
    assert_reply(API_PATCH, "/machine-config", "{\"mem_size_mib\": 512}", 204, "");
    assert_reply(API_GET, "/machine-config", NULL, 200,
                 "{\"vcpu_count\":4,\"mem_size_mib\":512,\"smt\":true,\"track_dirty_pages\":true,\"huge_pages\":"
                 "\"None\"}");
    assert_reply(API_PATCH, "/machine-config", "{\"vcpu_count\": 3}", 400, "expected 1 or an even number");
    assert_reply(API_PUT, "/machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 128}", 204, "");
    assert_reply(API_GET, "/machine-config", NULL, 200, "\"smt\":false,\"track_dirty_pages\":false");
    assert_reply(API_PATCH, "/machine-config", "{}", 400, "no field given");
    assert_reply(API_PATCH, "/machine-config", "{\"vcpu_count\": null, \"mem_size_mib\": 256, \"smt\": null}", 204, "");
    assert_reply(API_GET, "/machine-config", NULL, 200, "{\"vcpu_count\":1,\"mem_size_mib\":256,\"smt\":false");
    assert_reply(API_PATCH, "/machine-config", "{\"vcpu_count\": null}", 400, "no field given");
}

static void test_id_in_the_path_must_be_the_one_in_the_body(void **state)
{
    (void)state;
    assert_reply(API_PUT, "/drives/a", "{\"drive_id\": \"b\", \"is_root_device\": true, \"path_on_host\": \"/d\"}", 400,
                 "\\\"b\\\" given in the body, expected \\\"a\\\" as in the path");
    assert_reply(API_PUT, "/drives/", "{\"drive_id\": \"b\", \"is_root_device\": true, \"path_on_host\": \"/d\"}", 400,
                 "expected \\\"\\\" as in the path");
    assert_reply(API_PUT, "/drives/a/b", "{}", 400, "no such path");
    assert_reply(API_PUT, "/drives", "{}", 400, "no such path");
    assert_int_equal(fake_machine.config.drive_count, 0);
}

/* Whatever is called by its id, and however. */
static void test_id_of_another_one_is_refused_everywhere(void **state)
{
    static const char *const fields[] = {"drive_id", "iface_id", "\"id\"", "fs_id"};
    unsigned found = 0;

    (void)state;
    for (size_t i = 0; i < array_length(right); i++)
        for (size_t j = 0; right[i].body != NULL && j < array_length(fields); j++) {
            char body[256];
            const char *field = strstr(right[i].body, fields[j]);

            if (field == NULL)
                continue;
            snprintf(body, sizeof(body), "%s", right[i].body);
            char *value = strchr(body + (strchr(field, ':') - right[i].body), '"');
            value[1] = 'z';
            found++;
            fake_machine.state = right[i].method == API_PATCH ? MACHINE_RUNNING : MACHINE_NOT_STARTED;
            assert_reply(right[i].method, right[i].path, body, 400, " as in the path");
        }
    assert_int_equal(found, 9);
}

static void test_slashes_too_many_around_a_path_count_for_nothing(void **state)
{
    static const char drive[] = "{\"drive_id\": \"a\", \"is_root_device\": true, \"path_on_host\": \"/d\"}";

    (void)state;
    assert_reply(API_GET, "//machine-config", NULL, 200, "vcpu_count");
    assert_reply(API_GET, "///machine-config/", NULL, 200, "vcpu_count");
    assert_reply(API_GET, "//", NULL, 200, "\"state\"");
    assert_reply(API_PUT, "/drives/a/", drive, 204, "");
    assert_reply(API_PUT, "//drives/a", drive, 204, "");
    assert_int_equal(fake_machine.config.drive_count, 1);
    assert_reply(API_PUT, "/drives/ab/", drive, 400, "\\\"a\\\" given in the body, expected \\\"ab\\\" as in the path");
    assert_reply(API_PUT, "/drives//a", drive, 400, "no such path");
    assert_reply(API_GET, "/machine-config//", NULL, 400, "no such path");
    assert_reply(API_GET, "//mayfly/nothing", NULL, 404, "no such path");
}

static void test_snapshots_are_said_to_be_missing(void **state)
{
    (void)state;
    assert_reply(API_PUT, "/snapshot/create", "{\"snapshot_path\": \"/s\", \"mem_file_path\": \"/m\"}", 400,
                 "PUT /snapshot/create: there are no snapshots in this version");
    assert_reply(API_PUT, "/snapshot/load", "{\"snapshot_path\": \"/s\"}", 400,
                 "there are no snapshots in this version");
    assert_reply(API_PUT, "/snapshot/other", "{}", 400, "no such path");
}

static void test_unknown_paths_and_methods_are_told_apart(void **state)
{
    (void)state;
    assert_reply(API_GET, "/machine", NULL, 400, "GET /machine: no such path");
    assert_reply(API_GET, "/machine-config/x", NULL, 400, "no such path");
    assert_reply(API_GET, "/machine-config/", NULL, 200, "vcpu_count");
    assert_reply(API_GET, "/?x=1", NULL, 400, "no such path");
    assert_reply(API_PATCH, "/boot-source", "{}", 400, "PATCH /boot-source: no such method, expected PUT");
    assert_reply(API_GET, "/mayfly/nothing", NULL, 404, "no such path");
    assert_reply(API_GET, "/mayfly/console", NULL, 405, "no such method, expected PUT, PATCH");
    assert_reply(API_OTHER_METHOD, "/mayfly/console", NULL, 405, "no such method");
}

static void test_get_with_a_body_and_put_without_one_are_refused(void **state)
{
    (void)state;
    assert_reply(API_GET, "/", "{}", 400, "a GET with a body of 2 bytes");
    assert_reply(API_PUT, "/entropy", NULL, 400, "empty, expected a JSON object");
}

static void test_instance_says_what_it_is(void **state)
{
    (void)state;
    assert_reply(API_GET, "/", NULL, 200,
                 "{\"app_name\":\"Mayfly\",\"id\":\"fake-1\",\"state\":\"Not started\",\"vmm_version\":\"1.17.0\"}");
    fake_machine.state = MACHINE_PAUSED;
    assert_reply(API_GET, "/", NULL, 200, "\"state\":\"Paused\"");
    assert_reply(API_GET, "/version", NULL, 200, "{\"firecracker_version\":\"1.17.0\"}");
}

static void test_actions_reach_the_machine_in_their_states(void **state)
{
    (void)state;
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"FlushMetrics\"}", 400, "has not started");
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"SendCtrlAltDel\"}", 400,
                 "SendCtrlAltDel: not supported before starting the microVM: it has not started");
    fake_machine.refusal = "kernel_image_path: missing";
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"InstanceStart\"}", 400, "kernel_image_path: missing");
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"InstanceStart\"}", 204, "");
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"InstanceStart\"}", 400,
                 "InstanceStart: not supported after starting the microVM: it is running");
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"FlushMetrics\"}", 204, "");
    assert_reply(API_PATCH, "/vm", "{\"state\": \"Paused\"}", 204, "");
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"SendCtrlAltDel\"}", 204, "");
    assert_reply(API_PATCH, "/vm", "{\"state\": \"Resumed\"}", 204, "");
    assert_reply(API_PUT, "/actions", "{\"action_type\": \"Explode\"}", 400,
                 "action_type: \\\"Explode\\\" given, expected \\\"FlushMetrics\\\", \\\"InstanceStart\\\" or "
                 "\\\"SendCtrlAltDel\\\"");
    assert_int_equal(fake_machine.starts, 1);
    assert_int_equal(fake_machine.flushes, 1);
    assert_int_equal(fake_machine.ctrl_alt_dels, 1);
    assert_int_equal(fake_machine.state, MACHINE_RUNNING);
}

static void test_vm_config_has_exactly_the_known_keys(void **state)
{
    (void)state;
    put("/drives/d1");
    put("/network-interfaces/n1");
    put("/pmem/p1");
    assert_reply(API_PUT, "/entropy", "{}", 204, "");
    put("/logger");
    put("/metrics");
    put("/mayfly/console");
    assert_reply(API_PUT, "/vsock", "{\"guest_cid\": 3, \"uds_path\": \"/v\", \"vsock_id\": \"v\"}", 204, "");
    assert_reply(
        API_GET, "/vm/config", NULL, 200,
        "{\"balloon\":null,\"drives\":[{\"drive_id\":\"d1\",\"partuuid\":null,\"is_root_device\":true,\"cache_type\":"
        "\"Unsafe\",\"is_read_only\":false,\"path_on_host\":\"/d\",\"rate_limiter\":null,\"io_engine\":\"Sync\","
        "\"socket\":null}],\"boot-source\":{\"kernel_image_path\":\"\",\"initrd_path\":null,\"boot_args\":null},"
        "\"cpu-config\":null,\"logger\":null,\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":false,"
        "\"track_dirty_pages\":false,\"huge_pages\":\"None\"},\"metrics\":null,\"memory-hotplug\":null,\"mmds-config\":"
        "null,\"network-interfaces\":[{\"iface_id\":\"n1\",\"host_dev_name\":\"tap0\",\"guest_mac\":null,\"mtu\":null,"
        "\"rx_rate_limiter\":null,\"tx_rate_limiter\":null}],\"pmem\":[{\"id\":\"p1\",\"path_on_host\":\"/"
        "p\",\"root_device\":false,\"read_only\":false,\"rate_limiter\":null}],\"vsock\":{\"guest_cid\":3,\"uds_path\":"
        "\"/"
        "v\"},\"entropy\":{\"rate_limiter\":"
        "null}}");
}

static void test_balloon_and_hotplug_are_told_as_they_are_known(void **state)
{
    (void)state;
    assert_reply(API_PUT, "/balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true, \"free_page_hinting\": true}", 204,
                 "");
    assert_reply(API_PUT, "/hotplug/memory", "{\"total_size_mib\": 1024}", 204, "");
    assert_reply(API_GET, "/balloon", NULL, 200,
                 "{\"amount_mib\":1,\"deflate_on_oom\":true,\"stats_polling_interval_s\":0,\"free_page_hinting\":true,"
                 "\"free_page_reporting\":false}");
    assert_reply(API_GET, "/vm/config", NULL, 200,
                 "\"memory-hotplug\":{\"total_size_mib\":1024,\"slot_size_mib\":128,\"block_size_mib\":2}");
    assert_reply(API_GET, "/balloon/statistics", NULL, 200,
                 "{\"target_pages\":256,\"actual_pages\":0,\"target_mib\":1,\"actual_mib\":0,\"free_memory\":"
                 "18446744073709551615,\"oom_kill\":0}");
    assert_reply(API_GET, "/hotplug/memory", NULL, 400, "has not started");
    fake_machine.state = MACHINE_RUNNING;
    assert_reply(API_PATCH, "/balloon/hinting/start", NULL, 204, "");
    assert_reply(API_GET, "/balloon/hinting/status", NULL, 200, "{\"host_cmd\":2,\"guest_cmd\":5}");
    assert_reply(API_PATCH, "/balloon/hinting/start", "{\"acknowledge_on_stop\": false}", 204, "");
    assert_reply(API_GET, "/balloon/hinting/status", NULL, 200, "{\"host_cmd\":1,\"guest_cmd\":null}");
    assert_reply(API_PATCH, "/balloon/hinting/stop", NULL, 204, "");
    assert_reply(API_PATCH, "/balloon/hinting/stop", "{\"now\": true}", 400,
                 "unknown field \\\"now\\\", expected none\"");
    assert_reply(API_PATCH, "/hotplug/memory", "{\"requested_size_mib\": 64}", 204, "");
    assert_reply(API_GET, "/hotplug/memory", NULL, 200,
                 "{\"total_size_mib\":1024,\"slot_size_mib\":128,\"block_size_mib\":2,\"plugged_size_mib\":0,"
                 "\"requested_size_mib\":64}");
    assert_reply(API_PUT, "/hotplug/memory", "{\"total_size_mib\": 1024}", 400, "is running");
}

static void test_requests_and_refusals_are_counted(void **state)
{
    (void)state;
    assert_reply(API_GET, "/", NULL, 200, "");
    assert_reply(API_PUT, "/entropy", "{", 400, "not JSON");
    assert_reply(API_PATCH, "/vm", "{\"state\": \"Paused\"}", 400, "");
    assert_int_equal(metrics.api_server.get_count, 1);
    assert_int_equal(metrics.api_server.put_count, 1);
    assert_int_equal(metrics.api_server.patch_count, 1);
    assert_int_equal(metrics.api_server.fails, 2);
    assert_int_equal(metrics.api_server.get_instance_info.count, 1);
    assert_int_equal(metrics.api_server.put_entropy.count, 1);
    assert_int_equal(metrics.api_server.put_entropy.fails, 1);
    assert_int_equal(metrics.api_server.patch_vm.count, 1);
    assert_int_equal(metrics.api_server.patch_vm.fails, 1);
}

static void test_each_request_counts_for_its_path_alone(void **state)
{
    const struct api_metrics *counts = &metrics.api_server;
    const struct request_metrics *first = &counts->get_instance_info;
    size_t kinds = (size_t)(&counts->patch_vm + 1 - first);

    (void)state;
    assert_int_equal(kinds, route_count);
    for (size_t i = 0; i < array_length(right); i++) {
        memset(&metrics, 0, sizeof(metrics));
        fake_machine_reset();

        char text[2048];
        request(right[i].method, right[i].path, right[i].body, text);
        uint64_t total = 0, used = 0;
        for (size_t j = 0; j < kinds; j++) {
            total += first[j].count;
            used += first[j].count != 0;
        }
        assert_int_equal(total, 1);
        assert_int_equal(used, 1);
    }
    for (size_t i = 0; i < route_count; i++)
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(routes[i].counts, routes[j].counts);
}

static void test_deprecated_field_is_told_in_the_reply(void **state)
{
    const char *body = "{\"vcpu_count\": 1, \"mem_size_mib\": 128, \"cpu_template\": \"None\"}";
    struct api_request request = {
        .method = API_PUT, .method_name = "PUT", .path = "/machine-config", .body = body, .body_length = strlen(body)};
    struct api_reply reply;

    (void)state;
    api_handle(&context, &request, &reply);
    assert_int_equal(reply.status, 204);
    assert_true(reply.deprecation);
    assert_true(fake_machine.config.machine.has_cpu_template);
    api_reply_free(&reply);
    assert_reply(API_GET, "/machine-config", NULL, 200, "\"smt\":false,\"track_dirty_pages\"");
}

static void test_first_version_of_the_metadata_service_is_deprecated(void **state)
{
    static const struct {
        const char *body;
        bool deprecated;
    } cases[] = {{"{\"network_interfaces\":[\"eth0\"]}", true},
                 {"{\"network_interfaces\":[\"eth0\"],\"version\":\"V1\"}", true},
                 {"{\"network_interfaces\":[\"eth0\"],\"version\":\"V2\"}", false}};
    uint64_t before = metrics.deprecated.http_calls;

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        struct api_request request = {.method = API_PUT,
                                      .method_name = "PUT",
                                      .path = "/mmds/config",
                                      .body = cases[i].body,
                                      .body_length = strlen(cases[i].body)};
        struct api_reply reply;

        api_handle(&context, &request, &reply);
        assert_int_equal(reply.status, 204);
        assert_int_equal(reply.deprecation, cases[i].deprecated);
        api_reply_free(&reply);
    }
    assert_int_equal(metrics.deprecated.http_calls - before, 2);
}

/* How many lines each write(2) to the log brought: "2 1 " for two and then one. */
static void lines_of_writes(int packets, char *counts)
{
    char text[4096];
    ssize_t length;

    while ((length = read(packets, text, sizeof(text))) > 0) {
        unsigned lines = 0;

        for (ssize_t i = 0; i < length; i++)
            lines += text[i] == '\n';
        counts += sprintf(counts, "%u ", lines);
    }
}

/* The pipe keeps writes apart. What only reads is logged together with its outcome; all else before it is done. */
static void test_get_and_its_outcome_are_logged_by_one_write(void **state)
{
    char text[2048];
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
    log_set_fd(ends[1]);
    assert_int_equal(request(API_GET, "/version", NULL, text), 200);
    assert_int_equal(request(API_GET, "/nowhere", NULL, text), 400);
    lines_of_writes(ends[0], text);
    assert_string_equal(text, "2 2 ");
    assert_int_equal(request(API_PUT, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128}", text), 204);
    assert_int_equal(request(API_PUT, "/machine-config", "{}", text), 400);
    lines_of_writes(ends[0], text);
    assert_string_equal(text, "1 1 1 1 ");
    log_set_fd(STDERR_FILENO);
    close(ends[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, setup)

TEST_MAIN(TEST(test_id_of_another_one_is_refused_everywhere),
          TEST(test_every_route_answers_in_its_states_and_refuses_in_others),
          TEST(test_refused_request_leaves_the_machine_as_it_was),
          TEST(test_put_gives_defaults_and_patch_keeps_what_is_not_given),
          TEST(test_id_in_the_path_must_be_the_one_in_the_body),
          TEST(test_slashes_too_many_around_a_path_count_for_nothing), TEST(test_snapshots_are_said_to_be_missing),
          TEST(test_unknown_paths_and_methods_are_told_apart),
          TEST(test_get_with_a_body_and_put_without_one_are_refused), TEST(test_instance_says_what_it_is),
          TEST(test_actions_reach_the_machine_in_their_states), TEST(test_vm_config_has_exactly_the_known_keys),
          TEST(test_balloon_and_hotplug_are_told_as_they_are_known), TEST(test_requests_and_refusals_are_counted),
          TEST(test_each_request_counts_for_its_path_alone), TEST(test_deprecated_field_is_told_in_the_reply),
          TEST(test_get_and_its_outcome_are_logged_by_one_write),
          TEST(test_first_version_of_the_metadata_service_is_deprecated))
