/* The parts of `mayfly run` that need no microVM. */
#include "tests/unit/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/cli/pump.h"
#include "api/cli/run_mounts_user.h"
#include "api/cli/run_options.h"
#include "api/cli/tail.h"
#include "api/cli/talk.h"

enum { ARGUMENTS_MAX = 32 };

/* Parses a command line given as words; the words must outlive `options`. */
static struct error *parse(struct run_options *options, const char *const *words)
{
    static char *argv[ARGUMENTS_MAX];
    int argc = 0;

    argv[argc++] = (char *)"run";
    for (; *words != NULL; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    argv[argc] = NULL;
    return run_options_parse(options, argc, argv);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

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
        {{"--rw=yes", "x"}, "--rw=yes"},
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

/* --- The conversation --- */

static size_t frame(uint8_t *at, uint32_t type, const void *payload, size_t length)
{
    struct protocol_header header = {type, (uint32_t)length};

    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), payload, length);
    return sizeof(header) + length;
}

/* Feeds bytes `piece` at a time, as a socket would. */
static struct error *feed(struct talk *talk, const uint8_t *bytes, size_t length, size_t piece)
{
    for (size_t at = 0, taken; at < length; at += taken) {
        size_t offered = length - at < piece ? length - at : piece;
        struct error *error = talk_receive(talk, bytes + at, offered, &taken);

        if (error != NULL)
            return error;
        assert_in_range(taken, 1, offered);
    }
    return NULL;
}

static const struct protocol_hello hello = {PROTOCOL_VERSION, 10, 20};
static const struct protocol_started started = {7, 30};

static void test_conversation_is_understood_in_pieces_of_any_size(void **state)
{
    const struct protocol_exited exited = {PROTOCOL_EXIT_CODE, 42, 5, 6, 40, 50};
    uint8_t bytes[256];
    size_t length = frame(bytes, PROTOCOL_HELLO, &hello, sizeof(hello));

    (void)state;
    length += frame(bytes + length, PROTOCOL_STARTED, &started, sizeof(started));
    length += frame(bytes + length, PROTOCOL_EXITED, &exited, sizeof(exited));
    for (size_t piece = 1; piece <= length; piece++) {
        struct talk talk = {0};

        assert_no_error(feed(&talk, bytes, length, piece));
        assert_int_equal(talk.state, TALK_EXITED);
        assert_int_equal(talk.exited.code, 42);
        assert_int_equal(talk.exited.stderr_bytes, 6);
        assert_int_equal(talk.started.pid, 7);
    }
}

static void test_failure_text_is_kept_short_and_harmless(void **state)
{
    static uint8_t bytes[PROTOCOL_PAYLOAD_MAX + 256];
    static uint8_t payload[PROTOCOL_PAYLOAD_MAX];
    const struct protocol_failed failed = {127, 0};
    struct talk talk = {0};
    size_t length = frame(bytes, PROTOCOL_HELLO, &hello, sizeof(hello));

    (void)state;
    memset(payload, 'x', sizeof(payload));
    memcpy(payload, &failed, sizeof(failed));
    memcpy(payload + sizeof(failed), "a\x1b[2J\nb\x7f", 9);
    length += frame(bytes + length, PROTOCOL_FAILED, payload, sizeof(payload));
    assert_no_error(feed(&talk, bytes, length, 4096));
    assert_int_equal(talk.state, TALK_FAILED);
    assert_int_equal(talk.failed.exit_code, 127);
    assert_int_equal(strlen(talk.failed_text), TALK_FAILED_TEXT_MAX);
    assert_memory_equal(talk.failed_text, "a?[2J?b?", 8);
}

static void test_guest_that_breaks_the_protocol_is_told_apart(void **state)
{
    const struct protocol_exited bad_code = {PROTOCOL_EXIT_CODE, 256, 0, 0, 0, 0};
    const struct protocol_exited bad_signal = {PROTOCOL_EXIT_SIGNAL, 0, 0, 0, 0, 0};
    const struct protocol_exited bad_kind = {2, 0, 0, 0, 0, 0};
    const struct protocol_hello bad_version = {PROTOCOL_VERSION + 1, 0, 0};
    const struct {
        unsigned good; /* frames of the right kind before it */
        uint32_t type;
        const void *payload;
        size_t length;
        const char *message;
    } bad[] = {
        {0, PROTOCOL_HELLO, &bad_version, sizeof(bad_version), "protocol version 2"},
        {0, PROTOCOL_STARTED, &started, sizeof(started), "STARTED at the wrong moment"},
        {1, PROTOCOL_HELLO, &hello, sizeof(hello), "HELLO at the wrong moment"},
        {1, PROTOCOL_EXITED, &bad_code, sizeof(bad_code), "EXITED at the wrong moment"},
        {2, PROTOCOL_EXITED, &bad_code, sizeof(bad_code), "exit code 256"},
        {2, PROTOCOL_EXITED, &bad_signal, sizeof(bad_signal), "signal 0"},
        {2, PROTOCOL_EXITED, &bad_kind, sizeof(bad_kind), "kind 2"},
        {2, PROTOCOL_EXITED, &bad_kind, sizeof(bad_kind) - 1, "EXITED of 39 bytes"},
        {2, PROTOCOL_FAILED, "", 0, "FAILED at the wrong moment"},
        {1, PROTOCOL_FAILED, "", 0, "FAILED of 0 bytes"},
        {0, PROTOCOL_RUN, "", 0, "type 0x1"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++) {
        struct talk talk = {0};
        uint8_t bytes[256];
        size_t length = 0;

        if (bad[i].good > 0)
            length += frame(bytes + length, PROTOCOL_HELLO, &hello, sizeof(hello));
        if (bad[i].good > 1)
            length += frame(bytes + length, PROTOCOL_STARTED, &started, sizeof(started));
        length += frame(bytes + length, bad[i].type, bad[i].payload, bad[i].length);
        assert_error(feed(&talk, bytes, length, 7), ERROR_HOST, bad[i].message);
    }
}

static void test_run_frame_holds_all_strings(void **state)
{
    static const char expected[] = "/w\0box\0ls\0-l\0\0K=V";
    struct run_options options;
    struct protocol_header header;
    struct protocol_run run;
    cleanup_free uint8_t *bytes = NULL;
    size_t length;

    (void)state;
    assert_no_error(parse(&options, WORDS("--cwd", "/w", "--hostname", "box", "--env", "K=V", "ls", "-l", "")));
    assert_no_error(talk_run_frame(&options, PROTOCOL_RUN_NO_STDIN, &bytes, &length));
    memcpy(&header, bytes, sizeof(header));
    memcpy(&run, bytes + sizeof(header), sizeof(run));
    assert_int_equal(header.type, PROTOCOL_RUN);
    assert_int_equal(header.length, length - sizeof(header));
    assert_int_equal(run.argc, 3);
    assert_int_equal(run.envc, 1);
    assert_int_equal(run.flags, PROTOCOL_RUN_NO_STDIN);
    assert_int_equal(header.length - sizeof(run), sizeof(expected));
    assert_memory_equal(bytes + sizeof(header) + sizeof(run), expected, sizeof(expected));
    run_options_free(&options);
}

static void test_command_that_does_not_fit_a_frame_is_refused(void **state)
{
    cleanup_free char *word = malloc(PROTOCOL_PAYLOAD_MAX + 1);
    struct run_options options;
    uint8_t *bytes;
    size_t length;

    (void)state;
    memset(word, 'w', PROTOCOL_PAYLOAD_MAX);
    word[PROTOCOL_PAYLOAD_MAX] = '\0';
    assert_no_error(parse(&options, WORDS(word)));
    assert_error(talk_run_frame(&options, 0, &bytes, &length), ERROR_INPUT, "expected at most 1048576");
    run_options_free(&options);
}

/* --- Bytes --- */

/* What tail_show prints. */
static void shown(const struct tail *tail, size_t lines, char text[4096])
{
    int ends[2];
    ssize_t got;

    assert_int_equal(pipe(ends), 0);
    tail_show(tail, ends[1], "> ", lines);
    close(ends[1]);
    got = read(ends[0], text, 4095);
    assert_true(got >= 0);
    text[got] = '\0';
    close(ends[0]);
}

static void test_tail_shows_the_last_lines_without_control_characters(void **state)
{
    struct tail tail = {0};
    char text[4096];

    (void)state;
    tail_add(&tail, "one\r\ntwo\n\x1b[31mthree", 19);
    shown(&tail, 10, text);
    assert_string_equal(text, "> one\n> two\n> ?[31mthree\n");
    shown(&tail, 2, text);
    assert_string_equal(text, "> two\n> ?[31mthree\n");
}

static void test_tail_keeps_the_end_of_a_long_stream(void **state)
{
    struct tail tail = {0};
    char text[4096];

    (void)state;
    for (int i = 0; i < 100000; i++)
        tail_add(&tail, "noise\n", 6);
    tail_add(&tail, "the end\n", 8);
    shown(&tail, 2, text);
    assert_string_equal(text, "> noise\n> the end\n");
}

/* One turn of a pump, as the session's loop does it; false when there is nothing to do now. */
static bool turn(struct pump *pump)
{
    struct pollfd wait[2];

    pump_poll(pump, wait);
    if (poll(wait, 2, 0) <= 0)
        return false;
    pump_run(pump, wait);
    return true;
}

static void test_pump_does_not_block_on_a_full_pipe_and_loses_nothing(void **state)
{
    enum { LENGTH = 300000 };
    cleanup_free char *sent = malloc(LENGTH);
    cleanup_free char *received = malloc(LENGTH);
    int source[2], sink[2];
    size_t written = 0, taken = 0;
    struct pump pump;

    (void)state;
    for (size_t i = 0; i < LENGTH; i++)
        sent[i] = (char)(i * 31 + i / 997);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, source), 0);
    assert_int_equal(pipe(sink), 0); /* blocking: a write too many would hang the test */
    pump_init(&pump, source[1], sink[1]);
    while (taken < LENGTH) {
        ssize_t got = written < LENGTH ? send(source[0], sent + written, LENGTH - written, MSG_DONTWAIT) : 0;

        if (got > 0)
            written += (size_t)got;
        while (turn(&pump))
            ;
        got = read(sink[0], received + taken, LENGTH - taken < 10000 ? LENGTH - taken : 10000);
        assert_true(got > 0);
        taken += (size_t)got;
    }
    assert_memory_equal(received, sent, LENGTH);
    assert_int_equal(pump.taken, LENGTH);
    assert_false(pump_done(&pump));
    close(source[0]);
    assert_true(turn(&pump));
    assert_true(pump_done(&pump));
    close(source[1]);
    close(sink[0]);
    close(sink[1]);
    pump_free(&pump);
}

static void test_pump_whose_reader_is_gone_counts_and_throws_away(void **state)
{
    int source[2], sink[2];
    struct pump pump;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, source), 0);
    assert_int_equal(pipe(sink), 0);
    close(sink[0]);
    pump_init(&pump, source[1], sink[1]);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(source[0], "12345", 5), 5);
        while (turn(&pump))
            ;
    }
    assert_int_equal(pump.error, EPIPE);
    assert_int_equal(pump.taken, 15);
    assert_true(pump_empty(&pump));
    close(source[0]);
    close(source[1]);
    close(sink[1]);
    pump_free(&pump);
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
          cmocka_unit_test(test_memory_has_units),
          cmocka_unit_test(test_conversation_is_understood_in_pieces_of_any_size),
          cmocka_unit_test(test_failure_text_is_kept_short_and_harmless),
          cmocka_unit_test(test_guest_that_breaks_the_protocol_is_told_apart),
          cmocka_unit_test(test_run_frame_holds_all_strings),
          cmocka_unit_test(test_command_that_does_not_fit_a_frame_is_refused),
          cmocka_unit_test(test_tail_shows_the_last_lines_without_control_characters),
          cmocka_unit_test(test_tail_keeps_the_end_of_a_long_stream),
          cmocka_unit_test(test_pump_does_not_block_on_a_full_pipe_and_loses_nothing),
          cmocka_unit_test(test_pump_whose_reader_is_gone_counts_and_throws_away))
