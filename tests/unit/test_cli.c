/* The options of `mayfly run`. */
#include "tests/unit/cli_fixture.h"

#include <stdlib.h>

#include "api/cli/run_mounts_user.h"

static void test_options_end_where_the_command_begins(void **state)
{
    static const char *const lines[][6] = {
        {"--vcpus", "2", "--", "ls", "--json"}, {"--vcpus=2", "ls", "--json"}, {"--vcpus", "2", "ls", "--json"}};

    (void)state;
    for (size_t i = 0; i < array_length(lines); i++) {
        struct run_options options;

        assert_no_error(parse(&options, lines[i]));
        assert_int_equal(options.vcpus, 2);
        assert_false(options.json);
        assert_int_equal(options.command_count, 2);
        assert_string_equal(options.command[0], "ls");
        assert_string_equal(options.command[1], "--json");
        assert_null(options.command[2]);
        run_options_free(&options);
    }
}

static void test_vsock_option_is_a_path_and_perhaps_a_cid(void **state)
{
    static const struct {
        const char *text;
        const char *path;
        uint32_t cid;
    } cases[] = {{"/v", "/v", 3}, {"/v:7", "/v", 7}, {"/a:b", "/a:b", 3}, {"/a:1:9", "/a:1", 9}, {"/v:", "/v:", 3}};

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        struct run_options options;

        assert_no_error(parse(&options, WORDS("--vsock", cases[i].text, "true")));
        assert_string_equal(options.vsock_path, cases[i].path);
        assert_int_equal(options.vsock_cid, cases[i].cid);
        run_options_free(&options);
    }
}

static void test_mount_option_is_two_paths_and_perhaps_ro(void **state)
{
    static const char *const wrong[] = {"", "/a", "/a:", ":/b", "/a:b", "/a:/b:rw", "/a:/b:ro:", "/a:/b c", "/a:/b\""};
    struct run_options options;

    (void)state;
    assert_no_error(parse(&options, WORDS("--mount", "a:/b", "--mount", "/c:/d:ro", "true")));
    assert_int_equal(options.mount_count, 2);
    assert_string_equal(options.mounts[0].host, "a");
    assert_string_equal(options.mounts[0].guest, "/b");
    assert_false(options.mounts[0].read_only);
    assert_string_equal(options.mounts[1].host, "/c");
    assert_string_equal(options.mounts[1].guest, "/d");
    assert_true(options.mounts[1].read_only);
    run_options_free(&options);
    for (size_t i = 0; i < array_length(wrong); i++) {
        assert_error(parse(&options, WORDS("--mount", wrong[i], "true")), ERROR_INPUT, "--mount");
        run_options_free(&options);
    }
}

static void test_network_option_has_defaults_that_can_be_replaced(void **state)
{
    struct run_options options;

    (void)state;
    assert_no_error(parse(&options, WORDS("true")));
    assert_false(options.net.wanted);
    run_options_free(&options);
    assert_no_error(parse(&options, WORDS("--net", "true")));
    assert_true(options.net.wanted && options.net.tap[0] == '\0' && !options.net.own_resolver);
    assert_string_equal(options.net.address, "10.0.2.15");
    assert_int_equal(options.net.bits, 24);
    assert_string_equal(options.net.gateway, "10.0.2.2");
    assert_string_equal(options.net.resolver, "10.0.2.3");
    assert_string_equal(options.command[0], "true");
    run_options_free(&options);
    assert_no_error(parse(&options, WORDS("--net=passt,address=172.16.0.9/12,gateway=172.16.0.1", "true")));
    assert_string_equal(options.net.address, "172.16.0.9");
    assert_int_equal(options.net.bits, 12);
    assert_string_equal(options.net.resolver, "172.16.0.1");
    run_options_free(&options);
    assert_no_error(parse(&options, WORDS("--net=passt,dns=192.0.2.53", "true")));
    assert_true(options.net.own_resolver);
    assert_string_equal(options.net.address, "10.0.2.15");
    assert_string_equal(options.net.resolver, "192.0.2.53");
    run_options_free(&options);
    assert_no_error(parse(&options, WORDS("--net=tap:tap0", "true")));
    assert_string_equal(options.net.tap, "tap0");
    assert_string_equal(options.net.address, "");
    assert_false(options.net.vhost);
    run_options_free(&options);
    assert_no_error(parse(&options, WORDS("--net=tap:tap0,vhost,address=172.16.0.9/12", "true")));
    assert_true(options.net.vhost);
    assert_string_equal(options.net.address, "172.16.0.9");
    run_options_free(&options);
}

static void test_published_ports_are_of_the_loopback_interface_unless_told_otherwise(void **state)
{
    struct run_options options;

    (void)state;
    assert_no_error(
        parse(&options, WORDS("--publish", "8080:80", "--net", "--publish", "0.0.0.0:53:5353/udp", "true")));
    assert_true(options.net.wanted);
    assert_int_equal(options.net.publish_count, 2);
    assert_string_equal(options.net.publish[0].address, "127.0.0.1");
    assert_int_equal(options.net.publish[0].host, 8080);
    assert_int_equal(options.net.publish[0].guest, 80);
    assert_false(options.net.publish[0].udp);
    assert_string_equal(options.net.publish[1].address, "0.0.0.0");
    assert_int_equal(options.net.publish[1].host, 53);
    assert_int_equal(options.net.publish[1].guest, 5353);
    assert_true(options.net.publish[1].udp);
    run_options_free(&options);
}

static void test_wrong_networks_are_named(void **state)
{
    static const struct {
        const char *words[4];
        const char *message;
    } wrong[] = {
        {{"--net=", "x"}, "--net \"\""},
        {{"--net=tap", "x"}, "--net \"tap\""},
        {{"--net=tap:", "x"}, "--net \"tap:\""},
        {{"--net=tap:0123456789abcdef", "x"}, "--net \"tap:0123456789abcdef\""},
        {{"--net=passt,", "x"}, "--net \"passt,\""},
        {{"--net=passt,vhost", "x"}, "vhost is for taps"},
        {{"--net=tap:tap0,vhost=1", "x"}, "--net \"tap:tap0,vhost=1\""},
        {{"--net=passt,mtu=9", "x"}, "--net \"passt,mtu=9\""},
        {{"--net=passt,address=10.0.0.1", "x"}, "address=A.B.C.D/BITS"},
        {{"--net=passt,address=10.0.0.1/33", "x"}, "address=A.B.C.D/BITS"},
        {{"--net=passt,address=10.0.0/8", "x"}, "address=A.B.C.D/BITS"},
        {{"--net=passt,dns=0.0.0.0", "x"}, "dns=A.B.C.D"},
        {{"--net=passt,address=10.0.0.1/24", "x"}, "expected both or neither"},
        {{"--net=passt,address=10.0.0.1/24,gateway=10.0.1.1", "x"}, "expected a gateway in the network of 10.0.0.1/24"},
        {{"--net=tap:tap0,dns=10.0.0.1", "x"}, "whose address is given"},
        {{"--net=tap:tap0", "--publish", "1:1", "x"}, "a tap has no ports"},
        {{"--publish", "80", "x"}, "--publish \"80\""},
        {{"--publish", "80:", "x"}, "--publish \"80:\""},
        {{"--publish", "0:80", "x"}, "--publish \"0:80\""},
        {{"--publish", "80:65536", "x"}, "--publish \"80:65536\""},
        {{"--publish", "80:80/sctp", "x"}, "--publish \"80:80/sctp\""},
        {{"--publish", "80:80/udp", "x"}, "--publish \"80:80/udp\": passt brings no answers back to 127.0.0.1"},
        {{"--publish", "localhost:80:80", "x"}, "--publish \"localhost:80:80\""},
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct run_options options;
        const char *const words[] = {wrong[i].words[0], wrong[i].words[1], wrong[i].words[2], wrong[i].words[3], NULL};

        assert_error(parse(&options, words), ERROR_INPUT, wrong[i].message);
        run_options_free(&options);
    }
}

static void test_subordinate_ids_are_found_by_name_or_number(void **state)
{
    static const char text[] = "anna:100000:65536\n\n1001:200000:10\nberta:300000:0\nberta:400000:5\ncarl:x:y\ndora";
    struct mounts_user_range range;

    (void)state;
    assert_true(mounts_user_range(text, "anna", 7, &range));
    assert_int_equal(range.first, 100000);
    assert_int_equal(range.count, 65536);
    assert_true(mounts_user_range(text, NULL, 1001, &range));
    assert_int_equal(range.first, 200000);
    assert_true(mounts_user_range(text, "berta", 8, &range));
    assert_int_equal(range.first, 400000);
    assert_false(mounts_user_range(text, "ann", 100, &range));
    assert_false(mounts_user_range(text, "annaa", 100, &range));
    assert_false(mounts_user_range(text, "carl", 100, &range));
    assert_false(mounts_user_range(text, "dora", 100, &range));
    assert_false(mounts_user_range(text, "", 100, &range));
    assert_false(mounts_user_range("", "anna", 100, &range));
}

static void test_options_have_their_defaults(void **state)
{
    struct run_options options;

    (void)state;
    assert_no_error(parse(&options, WORDS("true")));
    assert_int_equal(options.vcpus, 1);
    assert_int_equal(options.memory_mib, 128);
    assert_null(options.kernel);
    assert_false(options.timeline || options.json || options.writable);
    run_options_free(&options);
}

static void test_options_take_values_that_may_be_left_out(void **state)
{
    struct run_options options;

    (void)state;
    assert_no_error(parse(&options, WORDS("--timeline=a.svg", "--json", "x")));
    assert_string_equal(options.timeline_path, "a.svg");
    assert_true(options.timeline && options.json);
    assert_null(options.json_path);
    assert_string_equal(options.command[0], "x");
    run_options_free(&options);
}

static void test_environment_is_given_or_passed_on(void **state)
{
    struct run_options options;

    (void)state;
    setenv("MAYFLY_TEST_HERE", "from here", 1);
    unsetenv("MAYFLY_TEST_NOWHERE");
    assert_no_error(
        parse(&options, WORDS("--env", "A=b=c", "--env", "MAYFLY_TEST_HERE", "--env", "MAYFLY_TEST_NOWHERE", "x")));
    assert_int_equal(options.environment_count, 2);
    assert_string_equal(options.environment[0], "A=b=c");
    assert_string_equal(options.environment[1], "MAYFLY_TEST_HERE=from here");
    run_options_free(&options);
}

static void test_wrong_options_are_named(void **state)
{
    static const struct {
        const char *words[4];
        const char *message;
    } wrong[] = {
        {{"--vcpus", "0", "x"}, "--vcpus \"0\""},
        {{"--vcpus", "33", "x"}, "--vcpus \"33\""},
        {{"--vcpus", "-1", "x"}, "--vcpus \"-1\""},
        {{"--vcpus", "2x", "x"}, "--vcpus \"2x\""},
        {{"--memory", "", "x"}, "--memory \"\""},
        {{"--memory", "0", "x"}, "--memory \"0\""},
        {{"--memory", "12K", "x"}, "--memory \"12K\""},
        {{"--memory", "99999999999999999999", "x"}, "--memory \"99999999999999999999\""},
        {{"--memory", "18446744073709551615G", "x"}, "--memory"},
        {{"--env", "=x", "x"}, "--env \"=x\""},
        {{"--env", "", "x"}, "--env \"\""},
        {{"--frobnicate", "x"}, "--frobnicate"},
        {{"--frobnicate=x", "x"}, "--frobnicate=x: no such option"},
        {{"--mem", "5", "x"}, "--mem: no such option, expected --memory"},
        {{"--mem=5", "x"}, "--mem: no such option, expected --memory"},
        {{"--mem"}, "--mem: no such option, expected --memory"},
        {{"--r=yes", "x"}, "--r=yes: no such option; see"},
        {{"--time", "5", "x"}, "--time: no such option; see mayfly run --help"},
        {{"--rw=yes", "x"}, "--rw=yes: this option takes no value"},
        {{"-x", "x"}, "-x: no such option; see mayfly run --help"},
        {{"--rw", "-it", "x"}, "-i: no such option"},
        {{"--memory=5", "-it", "x"}, "-i: no such option"},
        {{"--kernel"}, "--kernel: expected a value"},
        {{"--vcpus", "1"}, "no command"},
        {{"--vsock", "", "x"}, "--vsock \"\""},
        {{"--vsock", ":5", "x"}, "--vsock \":5\": expected the path"},
        {{"--vsock", "/v:2", "x"}, "--vsock \"/v:2\": expected a CID from 3"},
        {{"--vsock", "/v:4294967295", "x"}, "expected a CID from 3 to 4294967294"},
        {{"--"}, "no command"},
        {{"--", ""}, "empty"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct run_options options;

        assert_error(parse(&options, wrong[i].words), ERROR_INPUT, wrong[i].message);
        run_options_free(&options);
    }
}

static void test_memory_has_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t mib;
    } sizes[] = {{"1", 1}, {"512", 512}, {"512M", 512}, {"2G", 2048}, {"1024G", 1048576}};

    (void)state;
    for (size_t i = 0; i < array_length(sizes); i++) {
        uint64_t mib;

        assert_no_error(run_options_parse_memory(sizes[i].text, &mib));
        assert_int_equal(mib, sizes[i].mib);
    }
}

TEST_MAIN(cmocka_unit_test(test_options_end_where_the_command_begins),
          cmocka_unit_test(test_network_option_has_defaults_that_can_be_replaced),
          cmocka_unit_test(test_published_ports_are_of_the_loopback_interface_unless_told_otherwise),
          cmocka_unit_test(test_wrong_networks_are_named),
          cmocka_unit_test(test_subordinate_ids_are_found_by_name_or_number),
          cmocka_unit_test(test_options_have_their_defaults),
          cmocka_unit_test(test_mount_option_is_two_paths_and_perhaps_ro),
          cmocka_unit_test(test_vsock_option_is_a_path_and_perhaps_a_cid),
          cmocka_unit_test(test_options_take_values_that_may_be_left_out),
          cmocka_unit_test(test_environment_is_given_or_passed_on), cmocka_unit_test(test_wrong_options_are_named),
          cmocka_unit_test(test_memory_has_units))
