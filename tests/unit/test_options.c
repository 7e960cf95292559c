#include "tests/unit/harness.h"

#include "vmm/options.h"

/* options_parse of "mayfly-vmm" and the given arguments. */
#define PARSE(options, ...)                                                                                            \
    options_parse((int)array_length(((char *[]){"mayfly-vmm", __VA_ARGS__})), (char *[]){"mayfly-vmm", __VA_ARGS__},   \
                  options)

static void test_defaults_are_mayflys(void **state)
{
    struct options options;

    (void)state;
    assert_no_error(options_parse(1, (char *[]){"/usr/bin/mayfly-vmm"}, &options));
    assert_string_equal(options.api_sock, "/run/mayfly.sock");
    assert_string_equal(options.id, "anonymous-instance");
    assert_int_equal(options.http_api_max_payload_size, 51200);
    assert_false(options.no_api);
    assert_null(options.config_file);
}

static void test_called_firecracker_it_listens_where_firecracker_does(void **state)
{
    struct options options;

    (void)state;
    assert_no_error(options_parse(1, (char *[]){"/opt/firecracker"}, &options));
    assert_string_equal(options.api_sock, "/run/firecracker.socket");
    assert_no_error(options_parse(1, (char *[]){"firecracker"}, &options));
    assert_string_equal(options.api_sock, "/run/firecracker.socket");
    assert_no_error(options_parse(1, (char *[]){"/opt/firecracker-v1.11.0-x86_64"}, &options));
    assert_string_equal(options.api_sock, "/run/firecracker.socket");
    assert_no_error(options_parse(1, (char *[]){"/opt/firecracker/mayfly-vmm"}, &options));
    assert_string_equal(options.api_sock, "/run/mayfly.sock");
    assert_no_error(options_parse(0, (char *[]){NULL}, &options));
    assert_string_equal(options.api_sock, "/run/mayfly.sock");
}

static void test_value_follows_or_is_joined_by_an_equals_sign(void **state)
{
    struct options options;

    (void)state;
    assert_no_error(PARSE(&options, "--api-sock", "/a", "--id=b-1", "--start-time-us=12", "--boot-timer",
                          "--log-path=/with=sign", "--config-file=--odd-name"));
    assert_string_equal(options.api_sock, "/a");
    assert_string_equal(options.id, "b-1");
    assert_int_equal(options.start_time_us, 12);
    assert_true(options.boot_timer);
    assert_string_equal(options.log_path, "/with=sign");
    assert_string_equal(options.config_file, "--odd-name");
}

static void test_every_option_of_firecracker_is_accepted(void **state)
{
    struct options options;

    (void)state;
    assert_no_error(PARSE(&options, "--api-sock=s", "--id=i", "--config-file=c", "--no-api", "--boot-timer",
                          "--log-path=l", "--level=Debug", "--show-level", "--show-log-origin", "--module=vmm",
                          "--metrics-path=m", "--http-api-max-payload-size=100", "--mmds-size-limit=7", "--metadata=m",
                          "--start-time-us=1", "--start-time-cpu-us=2", "--parent-cpu-time-us=3", "--no-seccomp",
                          "--enable-pci", "--", "--what", "ever"));
    assert_int_equal(options.http_api_max_payload_size, 100);
    assert_int_equal(options.parent_cpu_time_us, 3);
}

static void test_bad_arguments_are_named(void **state)
{
    static const struct {
        char *arguments[3];
        const char *text;
    } bad[] = {
        {{"--nonsense"}, "--nonsense: unknown option"},
        {{"--api-s=s"}, "--api-s: unknown option"},
        {{"stray"}, "'stray'"},
        {{"-x"}, "'-x'"},
        {{"--api-sock"}, "--api-sock: expected a value"},
        {{"--api-sock", "--boot-timer"}, "--api-sock: expected a value"},
        {{"--boot-timer=yes"}, "--boot-timer: 'yes', expected no value"},
        {{"--id=a", "--id=b"}, "--id: given twice"},
        {{"--id="}, "--id: 0 characters, expected 1 to 64"},
        {{"--id=under_score"}, "--id: 'under_score'"},
        {{"--id=0123456789012345678901234567890123456789012345678901234567890123456789"}, "--id: 70 characters"},
        {{"--start-time-us=-1"}, "--start-time-us: '-1', expected a number"},
        {{"--start-time-us=18446744073709551616"}, "--start-time-us: '18446744073709551616'"},
        {{"--start-time-us="}, "--start-time-us: empty"},
        {{"--start-time-us", "1x"}, "'1x'"},
        {{"--http-api-max-payload-size=0"}, "--http-api-max-payload-size: 0"},
        {{"--no-api"}, "--no-api: expected --config-file"},
        {{"--no-seccomp", "--seccomp-filter=f"}, "--no-seccomp"},
        {{"--describe-snapshot=f"}, "--describe-snapshot: 'f'"},
        {{"--snapshot-version"}, "--snapshot-version"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++) {
        char *argv[] = {"mayfly-vmm", bad[i].arguments[0], bad[i].arguments[1], NULL};
        struct options options;

        assert_error(options_parse(bad[i].arguments[1] == NULL ? 2 : 3, argv, &options), ERROR_INPUT, bad[i].text);
    }
}

static void test_help_and_version_go_before_what_else_is_wrong(void **state)
{
    struct options options;

    (void)state;
    assert_no_error(PARSE(&options, "-h"));
    assert_true(options.help);
    assert_no_error(PARSE(&options, "--help", "--no-api"));
    assert_true(options.help);
    assert_no_error(PARSE(&options, "--version"));
    assert_true(options.version);
    assert_no_error(PARSE(&options, "--nonsense", "--id", "--version"));
    assert_true(options.version);
    assert_no_error(PARSE(&options, "stray", "--help"));
    assert_true(options.help);
    assert_no_error(PARSE(&options, "--", "--help"));
    assert_false(options.help);
}

TEST_MAIN(cmocka_unit_test(test_defaults_are_mayflys),
          cmocka_unit_test(test_called_firecracker_it_listens_where_firecracker_does),
          cmocka_unit_test(test_value_follows_or_is_joined_by_an_equals_sign),
          cmocka_unit_test(test_every_option_of_firecracker_is_accepted),
          cmocka_unit_test(test_bad_arguments_are_named),
          cmocka_unit_test(test_help_and_version_go_before_what_else_is_wrong))
