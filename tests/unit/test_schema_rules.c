/* What holds for some objects and fields: alternatives, defaults, values that depend on each other. */
#include "tests/unit/schema_fixture.h"

#include <stdio.h>
#include <string.h>

static void assert_encoded(const struct schema *schema, const void *object, const char *expected)
{
    struct json_writer writer;
    size_t length;

    json_writer_init(&writer);
    schema_encode(schema, object, &writer);
    assert_string_equal(json_text(&writer, &length), expected);
    json_writer_free(&writer);
}

static void test_drive_has_a_path_or_a_socket_and_shows_which(void **state)
{
    static const char *const beside_socket[] = {"\"path_on_host\":\"/p\"", "\"is_read_only\":false",
                                                "\"io_engine\":\"Sync\"", "\"rate_limiter\":{}"};
    struct drive_config config;

    (void)state;
    assert_no_error(decode(&drive_schema, "{\"drive_id\":\"a\",\"is_root_device\":false,\"socket\":\"/s\"}", &config));
    assert_encoded(&drive_schema, &config,
                   "{\"drive_id\":\"a\",\"partuuid\":null,\"is_root_device\":false,\"cache_type\":\"Unsafe\","
                   "\"is_read_only\":null,\"path_on_host\":null,\"rate_limiter\":null,\"io_engine\":null,"
                   "\"socket\":\"/s\"}");
    drive_config_free(&config);
    assert_error(decode(&drive_schema, "{\"drive_id\":\"a\",\"is_root_device\":false}", &config), ERROR_INPUT,
                 "path_on_host: missing");
    for (size_t i = 0; i < array_length(beside_socket); i++) {
        char text[160];

        snprintf(text, sizeof(text), "{\"drive_id\":\"a\",\"is_root_device\":false,\"socket\":\"/s\",%s}",
                 beside_socket[i]);
        assert_error(decode(&drive_schema, text, &config), ERROR_INPUT, "given, expected not to be");
    }
}

static void test_interface_has_a_tap_or_a_backend_and_shows_which(void **state)
{
    static const char with_backend[] =
        "{\"iface_id\":\"a\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"/passt\"},\"guest_mac\":null,"
        "\"mtu\":null,\"rx_rate_limiter\":null,\"tx_rate_limiter\":null}";
    static const char with_tap[] = "{\"iface_id\":\"a\",\"host_dev_name\":\"tap0\",\"guest_mac\":null,"
                                   "\"mtu\":null,\"rx_rate_limiter\":null,\"tx_rate_limiter\":null}";
    static const char *const right[] = {with_backend, with_tap};
    struct network_interface_config config;

    (void)state;
    for (size_t i = 0; i < array_length(right); i++) {
        assert_no_error(decode(&network_interface_schema, right[i], &config));
        assert_encoded(&network_interface_schema, &config, right[i]);
        schema_free(&network_interface_schema, &config);
    }
    assert_error(decode(&network_interface_schema, "{\"iface_id\":\"a\"}", &config), ERROR_INPUT,
                 "host_dev_name: missing, expected the name of a tap, or a backend");
    assert_error(decode(&network_interface_schema,
                        "{\"iface_id\":\"a\",\"host_dev_name\":\"tap0\",\"backend\":{\"type\":\"stream\","
                        "\"socket_path\":\"/passt\"}}",
                        &config),
                 ERROR_INPUT, "backend: given beside host_dev_name, expected one of them");
}

static void test_error_names_the_path_to_a_nested_field(void **state)
{
    struct drive_config drive;
    struct console_config console;

    (void)state;
    assert_error(decode(&drive_schema, "{\"rate_limiter\": {\"ops\": {\"size\": \"many\"}}}", &drive), ERROR_INPUT,
                 "rate_limiter.ops.size: \"many\" given, expected an integer from 0 to 18446744073709551615");
    assert_error(decode(&console_schema,
                        "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\"}, {\"name\": \"b/c\"}]}", &console),
                 ERROR_INPUT, "ports[1].name: \"b/c\" given, expected a string of 1 to 64 bytes: letters, digits");
    assert_error(decode(&console_schema, "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\"}, 7]}", &console),
                 ERROR_INPUT, "ports[1]: 7 given, expected an object");
    assert_error(decode(&drive_schema, "{\"rate_limiter\": {\"ops\": {\"size\": 1}}}", &drive), ERROR_INPUT,
                 "rate_limiter.ops.refill_time: missing");
}

static void test_long_values_are_quoted_in_part(void **state)
{
    char text[400];
    struct machine_config config;

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "{\"smt\": \"", 9);
    strcpy(text + sizeof(text) - 3, "\"}");
    assert_error(decode(&machine_config_schema, text, &config), ERROR_INPUT, "aaaa...\" given, expected true or false");
}

static void test_long_names_are_quoted_up_to_a_whole_character(void **state)
{
    char text[300], quoted[120];
    struct machine_config config;

    (void)state;
    snprintf(quoted, sizeof(quoted), "%063d", 0);
    snprintf(text, sizeof(text), "{\"%s\u00e9%s\": 1}", quoted, quoted);
    strcat(quoted, "\", expected one of: vcpu_count");
    assert_error(decode(&machine_config_schema, text, &config), ERROR_INPUT, quoted);
}

static void test_fields_not_given_get_their_defaults(void **state)
{
    struct machine_config config;
    struct drive_config drive;

    (void)state;
    memset(&config, 0xff, sizeof(config));
    assert_no_error(decode(&machine_config_schema, "{\"vcpu_count\": 3, \"mem_size_mib\": 5000}", &config));
    assert_int_equal(config.vcpu_count, 3);
    assert_int_equal(config.mem_size_mib, 5000);
    assert_false(config.smt || config.track_dirty_pages || config.has_cpu_template);
    assert_int_equal(config.huge_pages, HUGE_PAGES_NONE);
    assert_no_error(
        decode(&drive_schema, "{\"drive_id\": \"d\", \"is_root_device\": false, \"path_on_host\": \"/d\"}", &drive));
    assert_int_equal(drive.cache_type, CACHE_TYPE_UNSAFE);
    assert_int_equal(drive.io_engine, IO_ENGINE_SYNC);
    assert_null(drive.partuuid);
    assert_false(drive.rate_limiter.present || drive.has_is_read_only || drive.is_read_only);
    schema_free(&drive_schema, &drive);
}

static void test_every_value_arrives_where_it_belongs(void **state)
{
    struct drive_config drive;
    struct network_interface_config interface;
    schema_given given;
    const char *text = "{\"drive_id\": \"d_1\", \"is_root_device\": true, \"path_on_host\": \"/\\u00e9\\n\", "
                       "\"partuuid\": \"0eaa91a0-01\", \"cache_type\": \"Writeback\", \"io_engine\": \"Async\", "
                       "\"is_read_only\": false, \"rate_limiter\": {\"bandwidth\": {\"size\": 18446744073709551615, "
                       "\"refill_time\": 2, \"one_time_burst\": 3}, \"ops\": null}}";

    (void)state;
    assert_no_error(schema_decode(&drive_schema, text, strlen(text), false, &drive, &given));
    assert_string_equal(drive.drive_id, "d_1");
    assert_string_equal(drive.path_on_host, "/\303\251\n");
    assert_string_equal(drive.partuuid, "0eaa91a0-01");
    assert_true(drive.is_root_device && drive.has_is_read_only && !drive.is_read_only);
    assert_int_equal(drive.cache_type, CACHE_TYPE_WRITEBACK);
    assert_int_equal(drive.io_engine, IO_ENGINE_ASYNC);
    assert_true(drive.rate_limiter.present && drive.rate_limiter.bandwidth.present && !drive.rate_limiter.ops.present);
    assert_true(drive.rate_limiter.bandwidth.size == UINT64_MAX);
    assert_int_equal(drive.rate_limiter.bandwidth.refill_time, 2);
    assert_true(drive.rate_limiter.bandwidth.has_one_time_burst);
    assert_int_equal(drive.rate_limiter.bandwidth.one_time_burst, 3);
    schema_free(&drive_schema, &drive);
    assert_no_error(decode(&network_interface_schema,
                           "{\"iface_id\": \"1\", \"host_dev_name\": \"tap0\", \"guest_mac\": \"06:00:AC:10:00:02\", "
                           "\"mtu\": 1500}",
                           &interface));
    assert_string_equal(interface.guest_mac, "06:00:ac:10:00:02");
    assert_int_equal(interface.mtu, 1500);
    schema_free(&network_interface_schema, &interface);
}

static void test_partial_object_changes_only_what_it_gives(void **state)
{
    struct machine_config config = {.vcpu_count = 4, .mem_size_mib = 512, .smt = true};
    const char *text = "{\"mem_size_mib\": 1024}";

    (void)state;
    assert_no_error(schema_decode(&machine_config_schema, text, strlen(text), true, &config, NULL));
    assert_int_equal(config.vcpu_count, 4);
    assert_int_equal(config.mem_size_mib, 1024);
    assert_true(config.smt);
    assert_error(schema_decode(&machine_config_schema, "{}", 2, true, &config, NULL), ERROR_INPUT, "no field given");
}

static void test_fields_are_checked_against_each_other(void **state)
{
    struct machine_config config;
    struct console_config console;

    (void)state;
    assert_error(decode(&machine_config_schema, "{\"vcpu_count\": 3, \"mem_size_mib\": 128, \"smt\": true}", &config),
                 ERROR_INPUT, "vcpu_count: 3 given, expected 1 or an even number");
    assert_error(
        decode(&machine_config_schema, "{\"vcpu_count\": 1, \"mem_size_mib\": 129, \"huge_pages\": \"2M\"}", &config),
        ERROR_INPUT, "mem_size_mib: 129 given, expected an even number");
    assert_error(decode(&console_schema,
                        "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\", \"output_path\": \"/b\"}]}", &console),
                 ERROR_INPUT, "ports[0]: both given, expected exactly one of socket_path and output_path");
    assert_error(decode(&console_schema, "{\"ports\": [{\"name\": \"a\"}]}", &console), ERROR_INPUT,
                 "ports[0]: neither given");
    assert_error(decode(&console_schema,
                        "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\"}, {\"name\": \"a\", \"socket_path\": "
                        "\"/b\"}]}",
                        &console),
                 ERROR_INPUT, "ports[1].name: \"a\" given, expected another name");
}

static void test_array_takes_no_more_than_its_maximum(void **state)
{
    char text[2048] = "{\"ports\": [";
    struct console_config console;

    (void)state;
    for (int i = 0; i <= CONSOLE_PORTS_MAX; i++)
        sprintf(text + strlen(text), "%s{\"name\": \"p%d\", \"output_path\": \"/p\"}", i == 0 ? "" : ", ", i);
    strcat(text, "]}");
    assert_error(decode(&console_schema, text, &console), ERROR_INPUT,
                 "ports: one more object given, expected an array of 1 to 16 objects");
    assert_error(decode(&console_schema, "{\"ports\": []}", &console), ERROR_INPUT, "ports: an empty array given");
}

static void test_map_keeps_its_pairs_and_refuses_what_is_no_string(void **state)
{
    struct metrics_config config;

    (void)state;
    assert_no_error(
        decode(&metrics_schema, "{\"metrics_path\": \"/m\", \"properties\": {\"a\": \"1\", \"b\": \"\"}}", &config));
    assert_int_equal(config.properties.count, 2);
    assert_string_equal(config.properties.pairs[1].name, "b");
    assert_string_equal(config.properties.pairs[1].value, "");
    schema_free(&metrics_schema, &config);
    assert_error(decode(&metrics_schema, "{\"properties\": {\"a\": \"1\", \"a\": \"2\"}}", &config), ERROR_INPUT,
                 "properties: \"a\" given twice");
    assert_error(decode(&metrics_schema, "{\"properties\": {\"a\": 1}}", &config), ERROR_INPUT,
                 "properties.a: 1 given, expected a string");
    assert_error(decode(&metrics_schema, "{\"properties\": {\"a\": {}}}", &config), ERROR_INPUT,
                 "properties.a: an object given, expected a string");
}

/* The service has none of the network's own, and none of the two nets that are reserved (RFC 3927). */
static void test_address_of_the_metadata_service_is_link_local(void **state)
{
    static const char *const right[] = {"169.254.169.254", "169.254.1.0", "169.254.1.1", "169.254.254.255"};
    static const char *const wrong[] = {"169.254.0.255", "169.254.255.0",   "169.253.1.1",   "169.255.1.1",
                                        "168.254.1.1",   "10.0.0.1",        "169.254.1.256", "169.254.1.1.1",
                                        "169.254.1.",    "169.254.a.b",     "169.254.0x1.1", "169.254.001.1",
                                        "0000000000000", "169.254.169.254 "};
    struct mmds_config config;
    char text[120];

    (void)state;
    for (size_t i = 0; i < array_length(right); i++) {
        snprintf(text, sizeof(text), "{\"network_interfaces\":[\"a\"],\"ipv4_address\":\"%s\"}", right[i]);
        assert_no_error(decode(&mmds_config_schema, text, &config));
        assert_string_equal(config.ipv4_address, right[i]);
        schema_free(&mmds_config_schema, &config);
    }
    for (size_t i = 0; i < array_length(wrong); i++) {
        snprintf(text, sizeof(text), "{\"network_interfaces\":[\"a\"],\"ipv4_address\":\"%s\"}", wrong[i]);
        assert_error(decode(&mmds_config_schema, text, &config), ERROR_INPUT, "ipv4_address: \"");
    }
}

/* The least that IPv4 allows (RFC 791), and the most that fits into a packet's length. */
static void test_mtu_has_its_bounds(void **state)
{
    static const unsigned right[] = {68, 1500, 65535}, wrong[] = {0, 67, 65536, 100000};
    struct network_interface_config config;
    char text[120];

    (void)state;
    for (size_t i = 0; i < array_length(right); i++) {
        snprintf(text, sizeof(text), "{\"iface_id\":\"a\",\"host_dev_name\":\"t\",\"mtu\":%u}", right[i]);
        assert_no_error(decode(&network_interface_schema, text, &config));
        assert_int_equal(config.mtu, right[i]);
        schema_free(&network_interface_schema, &config);
    }
    for (size_t i = 0; i < array_length(wrong); i++) {
        snprintf(text, sizeof(text), "{\"iface_id\":\"a\",\"host_dev_name\":\"t\",\"mtu\":%u}", wrong[i]);
        assert_error(decode(&network_interface_schema, text, &config), ERROR_INPUT,
                     "expected an integer from 68 to 65535");
    }
}

static void test_names_of_things_have_only_their_characters(void **state)
{
    static const struct {
        const struct schema *schema;
        const char *text;
    } wrong[] = {
        {&drive_schema, "{\"drive_id\": \"a:b\"}"},
        {&drive_schema, "{\"drive_id\": \"a\\\\b\"}"},
        {&console_schema, "{\"ports\": [{\"name\": \"a/b\"}]}"},
        {&drive_schema, "{\"partuuid\": \"0eaa init=/bin/sh\"}"},
        {&file_system_schema, "{\"tag\": \"a b\"}"},
        {&file_system_schema, "{\"tag\": \"a\\u0001\"}"},
        {&network_interface_schema, "{\"host_dev_name\": \"a/b\"}"},
        {&network_interface_schema, "{\"host_dev_name\": \"..\"}"},
        {&network_interface_schema, "{\"host_dev_name\": \"tap 0\"}"},
        {&network_interface_schema, "{\"guest_mac\": \"06:00:ac:10:00:0g\"}"},
        {&network_interface_schema, "{\"guest_mac\": \"06-00-ac-10-00-02\"}"},
        {&network_interface_schema, "{\"guest_mac\": \"0600ac1000020000f\"}"},
    };
    char object[1024];

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++)
        assert_error(decode(wrong[i].schema, wrong[i].text, object), ERROR_INPUT, " given, expected a string of ");
    assert_error(decode(&network_interface_schema, "{\"guest_mac\": \"6\"}", object), ERROR_INPUT,
                 "guest_mac: \"6\" given, expected a string of 17 bytes: as in 06:00:ac:10:00:02");
}

static void test_limits_that_do_not_limit_are_shown_as_null(void **state)
{
    struct entropy_config config;
    struct json_writer writer;
    size_t length;

    (void)state;
    assert_no_error(decode(&entropy_schema,
                           "{\"rate_limiter\": {\"bandwidth\": {\"size\": 0, \"refill_time\": 100}, \"ops\": "
                           "{\"size\": 5, \"refill_time\": 0}}}",
                           &config));
    json_writer_init(&writer);
    schema_encode(&entropy_schema, &config, &writer);
    assert_string_equal(json_text(&writer, &length), "{\"rate_limiter\":null}");
    json_writer_free(&writer);
}

static void test_level_is_taken_in_any_case(void **state)
{
    struct logger_config config;

    (void)state;
    assert_no_error(decode(&logger_schema, "{\"level\": \"wArNiNg\"}", &config));
    assert_string_equal(config.level, "wArNiNg");
    schema_free(&logger_schema, &config);
}

TEST_MAIN(cmocka_unit_test(test_drive_has_a_path_or_a_socket_and_shows_which),
          cmocka_unit_test(test_interface_has_a_tap_or_a_backend_and_shows_which),
          cmocka_unit_test(test_error_names_the_path_to_a_nested_field),
          cmocka_unit_test(test_long_values_are_quoted_in_part),
          cmocka_unit_test(test_long_names_are_quoted_up_to_a_whole_character),
          cmocka_unit_test(test_fields_not_given_get_their_defaults),
          cmocka_unit_test(test_every_value_arrives_where_it_belongs),
          cmocka_unit_test(test_partial_object_changes_only_what_it_gives),
          cmocka_unit_test(test_fields_are_checked_against_each_other),
          cmocka_unit_test(test_array_takes_no_more_than_its_maximum),
          cmocka_unit_test(test_map_keeps_its_pairs_and_refuses_what_is_no_string),
          cmocka_unit_test(test_address_of_the_metadata_service_is_link_local),
          cmocka_unit_test(test_mtu_has_its_bounds), cmocka_unit_test(test_names_of_things_have_only_their_characters),
          cmocka_unit_test(test_limits_that_do_not_limit_are_shown_as_null),
          cmocka_unit_test(test_level_is_taken_in_any_case))
