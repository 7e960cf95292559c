/* The conversation of `mayfly run` with the guest's init. */
#include "tests/unit/cli_fixture.h"

#include <stdlib.h>
#include <string.h>

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

TEST_MAIN(cmocka_unit_test(test_conversation_is_understood_in_pieces_of_any_size),
          cmocka_unit_test(test_failure_text_is_kept_short_and_harmless),
          cmocka_unit_test(test_guest_that_breaks_the_protocol_is_told_apart),
          cmocka_unit_test(test_run_frame_holds_all_strings),
          cmocka_unit_test(test_command_that_does_not_fit_a_frame_is_refused))
