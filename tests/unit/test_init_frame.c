/* The guest's init: frames of rootfs/protocol.h. */
#include "tests/unit/harness.h"

#include "rootfs/init/frame.h"

#include <stdlib.h>
#include <string.h>

static unsigned char payload[256];

/* A RUN frame with the given head and the `size` bytes of strings at `strings`. */
static struct frame run_frame(uint32_t argc, uint32_t envc, uint32_t flags, const char *strings, size_t size)
{
    struct protocol_run head = {argc, envc, flags};

    memcpy(payload, &head, sizeof(head));
    memcpy(payload + sizeof(head), strings, size);
    return (struct frame){PROTOCOL_RUN, (uint32_t)(sizeof(head) + size), payload};
}

static void assert_run_is_refused(const struct frame *frame, const char *reason)
{
    struct run run;
    const char *wrong = run_decode(&run, frame);

    assert_non_null(wrong);
    assert_non_null(strstr(wrong, reason));
}

static void test_frame_is_found_only_when_whole(void **state)
{
    unsigned char bytes[] = {0x02, 0, 0, 0, 4, 0, 0, 0, 15, 0, 0, 0, 0xff};
    struct frame frame;

    (void)state;
    for (size_t length = 0; length < 12; length++) {
        assert_int_equal(frame_find(&frame, bytes, length), FRAME_INCOMPLETE);
    }
    assert_int_equal(frame_find(&frame, bytes, sizeof(bytes)), FRAME_COMPLETE);
    assert_int_equal(frame.type, PROTOCOL_SIGNAL);
    assert_int_equal(frame.length, 4);
    assert_ptr_equal(frame.payload, bytes + 8);
    assert_int_equal(frame_size(&frame), 12);
}

static void test_frame_longer_than_the_limit_is_broken(void **state)
{
    struct protocol_header header = {PROTOCOL_RUN, PROTOCOL_PAYLOAD_MAX};
    unsigned char bytes[sizeof(header)];
    struct frame frame;

    (void)state;
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(frame_find(&frame, bytes, sizeof(bytes)), FRAME_INCOMPLETE);
    header.length++;
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(frame_find(&frame, bytes, sizeof(bytes)), FRAME_BROKEN);
    header.length = UINT32_MAX;
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(frame_find(&frame, bytes, sizeof(bytes)), FRAME_BROKEN);
}

static void test_run_is_taken_apart(void **state)
{
    static const char strings[] = "/tmp\0box\0sh\0-c\0\0A=1\0B=";
    struct frame frame = run_frame(3, 2, PROTOCOL_RUN_NO_STDIN, strings, sizeof(strings));
    struct run run;

    (void)state;
    assert_null(run_decode(&run, &frame));
    assert_string_equal(run.directory, "/tmp");
    assert_string_equal(run.hostname, "box");
    assert_string_equal(run.arguments[0], "sh");
    assert_string_equal(run.arguments[1], "-c");
    assert_string_equal(run.arguments[2], "");
    assert_null(run.arguments[3]);
    assert_string_equal(run.environment[0], "A=1");
    assert_string_equal(run.environment[1], "B=");
    assert_null(run.environment[2]);
    assert_int_equal(run.flags, PROTOCOL_RUN_NO_STDIN);
    free(run.arguments);
}

static void test_run_without_environment_and_defaults(void **state)
{
    static const char strings[] = "\0\0true";
    struct frame frame = run_frame(1, 0, 0, strings, sizeof(strings));
    struct run run;

    (void)state;
    assert_null(run_decode(&run, &frame));
    assert_string_equal(run.directory, "");
    assert_string_equal(run.hostname, "");
    assert_string_equal(run.arguments[0], "true");
    assert_null(run.environment[0]);
    free(run.arguments);
}

static void test_run_with_wrong_counts_is_refused(void **state)
{
    static const char strings[] = "\0\0true";
    struct frame frame;

    (void)state;
    frame = run_frame(0, 0, 0, strings, sizeof(strings));
    assert_run_is_refused(&frame, "argc is 0");
    frame = run_frame(2, 0, 0, strings, sizeof(strings));
    assert_run_is_refused(&frame, "strings are missing");
    frame = run_frame(1, 1, 0, strings, sizeof(strings));
    assert_run_is_refused(&frame, "strings are missing");
    frame = run_frame(UINT32_MAX, UINT32_MAX, 0, strings, sizeof(strings));
    assert_run_is_refused(&frame, "more than the payload holds");
    frame = run_frame(1, UINT32_MAX, 0, strings, sizeof(strings));
    assert_run_is_refused(&frame, "more than the payload holds");
}

static void test_run_with_wrong_bytes_is_refused(void **state)
{
    static const char strings[] = "\0\0true\0more";
    struct frame frame;

    (void)state;
    frame = run_frame(1, 0, 0, strings, sizeof(strings));
    assert_run_is_refused(&frame, "bytes are left");
    frame = run_frame(1, 0, 0, strings, 6);
    assert_run_is_refused(&frame, "strings are missing");
    frame = run_frame(1, 0, 0, strings, 1);
    assert_run_is_refused(&frame, "strings are missing");
    frame = run_frame(1, 0, 0x80000000u, strings, 7);
    assert_run_is_refused(&frame, "unknown flags");
    frame = run_frame(1, 0, 0, strings, 7);
    frame.length = sizeof(struct protocol_run) - 1;
    assert_run_is_refused(&frame, "too short");
}

static void test_signal_must_be_one(void **state)
{
    static const struct {
        uint32_t signo;
        int expected;
    } cases[] = {{1, 1}, {15, 15}, {64, 64}, {0, 0}, {65, 0}, {UINT32_MAX, 0}};
    struct frame frame = {PROTOCOL_SIGNAL, sizeof(struct protocol_signal), payload};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(payload, &cases[i].signo, sizeof(cases[i].signo));
        assert_int_equal(signal_decode(&frame), cases[i].expected);
    }
    memset(payload, 1, 8);
    frame.length = 3;
    assert_int_equal(signal_decode(&frame), 0);
    frame.length = 5;
    assert_int_equal(signal_decode(&frame), 0);
}

TEST_MAIN(cmocka_unit_test(test_frame_is_found_only_when_whole),
          cmocka_unit_test(test_frame_longer_than_the_limit_is_broken), cmocka_unit_test(test_run_is_taken_apart),
          cmocka_unit_test(test_run_without_environment_and_defaults),
          cmocka_unit_test(test_run_with_wrong_counts_is_refused),
          cmocka_unit_test(test_run_with_wrong_bytes_is_refused), cmocka_unit_test(test_signal_must_be_one))
