/* The guest's init: what it takes from the kernel command line. */
#include "tests/unit/harness.h"

#include "rootfs/init/cmdline.h"
#include "rootfs/init/network.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Parses a copy of `text`; the result lives until the next call. */
static struct cmdline *parse(const char *text)
{
    static char copy[CMDLINE_MAX + 1];
    static struct cmdline cmdline;

    snprintf(copy, sizeof(copy), "%s", text);
    cmdline_parse(&cmdline, copy);
    return &cmdline;
}

static void test_empty_line_asks_for_nothing(void **state)
{
    struct cmdline *cmdline = parse("");

    (void)state;
    assert_null(cmdline->root);
    assert_null(cmdline->root_type);
    assert_null(cmdline->root_flags);
    assert_false(cmdline->root_writable);
    assert_false(cmdline->overlay);
    assert_int_equal(cmdline->argc, 0);
    assert_null(cmdline->argv[0]);
}

static void test_root_options_are_found_among_others(void **state)
{
    struct cmdline *cmdline = parse("quiet root=/dev/vda rootfstype=ext4 panic=-1 "
                                    "rootflags=data=journal,commit=5 rw mayfly.overlay\n");

    (void)state;
    assert_string_equal(cmdline->root, "/dev/vda");
    assert_string_equal(cmdline->root_type, "ext4");
    assert_string_equal(cmdline->root_flags, "data=journal,commit=5");
    assert_true(cmdline->root_writable);
    assert_true(cmdline->overlay);
}

static void test_last_of_several_counts(void **state)
{
    struct cmdline *cmdline = parse("rw root=/dev/vda ro root=PARTUUID=deadbeef-01");

    (void)state;
    assert_string_equal(cmdline->root, "PARTUUID=deadbeef-01");
    assert_false(cmdline->root_writable);
}

static void test_empty_value_is_none(void **state)
{
    struct cmdline *cmdline = parse("root= rootfstype=");

    (void)state;
    assert_null(cmdline->root);
    assert_null(cmdline->root_type);
}

static void test_names_must_match_whole(void **state)
{
    struct cmdline *cmdline = parse("root rootx=/dev/vda xroot=/dev/vdb rwx mayfly.overlays");

    (void)state;
    assert_null(cmdline->root);
    assert_false(cmdline->root_writable);
    assert_false(cmdline->overlay);
}

static void test_mounts_are_kept_in_their_order_and_no_more_than_fit(void **state)
{
    struct cmdline *cmdline =
        parse("mayfly.mount=a:ro:/x ro mayfly.mount=b:rw:/y mayfly.mounts=c -- mayfly.mount=d:ro:/z");
    char text[CMDLINE_MAX + 1] = "";

    (void)state;
    assert_int_equal(cmdline->mount_count, 2);
    assert_string_equal(cmdline->mounts[0], "a:ro:/x");
    assert_string_equal(cmdline->mounts[1], "b:rw:/y");
    for (size_t i = 0; i <= CMDLINE_MOUNTS_MAX; i++) {
        strcat(text, "mayfly.mount=a:ro:/x ");
    }
    cmdline = parse(text);
    assert_int_equal(cmdline->mount_count, CMDLINE_MOUNTS_MAX);
}

static void test_network_is_read_whole_or_refused(void **state)
{
    static const char *const wrong[] = {"",
                                        "eth0",
                                        "eth0,10.0.2.15",
                                        "eth0,10.0.2.15/0",
                                        "eth0,10.0.2.15/33",
                                        "eth0,10.0.2.15/x",
                                        "eth0,10.0.2.15/+8",
                                        ",10.0.2.15/24",
                                        "eth0,10.0.2/24",
                                        "eth0,10.0.2.15/24,",
                                        "eth0,10.0.2.15/24,gate",
                                        "eth0,10.0.2.15/24,10.0.2.2,10.0.2.3,1",
                                        "interface-of-16-b,10.0.2.15/24"};
    struct network network;
    char text[INET_ADDRSTRLEN];

    (void)state;
    assert_string_equal(parse("mayfly.net=eth0,10.0.2.15/24 -- mayfly.net=x")->network, "eth0,10.0.2.15/24");
    assert_null(parse("mayfly.net")->network);
    assert_true(network_parse(&network, "eth0,10.0.2.15/23,10.0.2.2,10.0.2.3"));
    assert_string_equal(network.interface, "eth0");
    assert_string_equal(inet_ntop(AF_INET, &network.address, text, sizeof(text)), "10.0.2.15");
    assert_string_equal(inet_ntop(AF_INET, &network.mask, text, sizeof(text)), "255.255.254.0");
    assert_string_equal(inet_ntop(AF_INET, &network.gateway, text, sizeof(text)), "10.0.2.2");
    assert_string_equal(inet_ntop(AF_INET, &network.dns, text, sizeof(text)), "10.0.2.3");
    assert_true(network_parse(&network, "eth1,172.16.0.2/32"));
    assert_int_equal(network.gateway.s_addr | network.dns.s_addr, 0);
    for (size_t i = 0; i < array_length(wrong); i++) {
        assert_false(network_parse(&network, wrong[i]));
    }
}

static void test_words_after_dashes_are_the_command(void **state)
{
    struct cmdline *cmdline = parse("ro nomodule -- sh -c  true root=/dev/vdz --");

    (void)state;
    assert_null(cmdline->root);
    assert_int_equal(cmdline->argc, 5);
    assert_string_equal(cmdline->argv[0], "sh");
    assert_string_equal(cmdline->argv[1], "-c");
    assert_string_equal(cmdline->argv[2], "true");
    assert_string_equal(cmdline->argv[3], "root=/dev/vdz");
    assert_string_equal(cmdline->argv[4], "--");
    assert_null(cmdline->argv[5]);
}

static void test_quotes_protect_spaces_as_in_the_kernel(void **state)
{
    struct cmdline *cmdline = parse("root=\"/dev/a b\" -- \"two words\" NAME=\"x y\" a\"b c\"d \"open end");

    (void)state;
    assert_string_equal(cmdline->root, "/dev/a b");
    assert_int_equal(cmdline->argc, 4);
    assert_string_equal(cmdline->argv[0], "two words");
    assert_string_equal(cmdline->argv[1], "NAME=x y");
    assert_string_equal(cmdline->argv[2], "a\"b c\"d");
    assert_string_equal(cmdline->argv[3], "open end");
}

static void test_longest_line_of_shortest_words_fits(void **state)
{
    char text[CMDLINE_MAX + 1] = "-- ";
    struct cmdline *cmdline;

    (void)state;
    for (size_t i = 3; i < CMDLINE_MAX; i++) {
        text[i] = i % 2 == 0 ? ' ' : 'x';
    }
    text[CMDLINE_MAX] = '\0';
    cmdline = parse(text);
    assert_int_equal(cmdline->argc, (CMDLINE_MAX - 3 + 1) / 2);
    assert_null(cmdline->argv[cmdline->argc]);
}

TEST_MAIN(cmocka_unit_test(test_empty_line_asks_for_nothing),
          cmocka_unit_test(test_root_options_are_found_among_others), cmocka_unit_test(test_last_of_several_counts),
          cmocka_unit_test(test_empty_value_is_none), cmocka_unit_test(test_names_must_match_whole),
          cmocka_unit_test(test_mounts_are_kept_in_their_order_and_no_more_than_fit),
          cmocka_unit_test(test_network_is_read_whole_or_refused),
          cmocka_unit_test(test_words_after_dashes_are_the_command),
          cmocka_unit_test(test_quotes_protect_spaces_as_in_the_kernel),
          cmocka_unit_test(test_longest_line_of_shortest_words_fits))
