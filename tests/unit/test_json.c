#include "tests/unit/harness.h"

#include "api/schema_objects.h"

#include <stdlib.h>
#include <string.h>

static struct error *decode(const char *text, size_t length)
{
    struct boot_source_config config;
    struct error *error = schema_decode(&boot_source_schema, text, length, false, &config, NULL);

    if (error == NULL)
        schema_free(&boot_source_schema, &config);
    return error;
}

#define RIGHT "{\"kernel_image_path\": \"/k\"}"

static void test_text_that_is_no_object_is_refused(void **state)
{
    static const char *const wrong[] = {
        "",
        " ",
        "null",
        "1",
        "\"x\"",
        "[]",
        "[{}]",
        RIGHT RIGHT,
        RIGHT ",",
        RIGHT "x",
        "{",
        "{]",
        "{1: 2}",
        "{\"a\"}",
        "{\"a\":}",
        "// x\n{}",
        "/* x */" RIGHT,
        "{'kernel_image_path': '/k'}",
        "\357\273\277" RIGHT,
        "{\"kernel_image_path\": \"/k\",}",
        "{\"kernel_image_path\": /k}",
        "{\"kernel_image_path\": \"/k}",
        "{\"kernel_image_path\": \"\\x\"}",
        "{\"kernel_image_path\": \"\\u12\"}",
        "{\"kernel_image_path\": \"a\nb\"}",
        "{\"kernel_image_path\": NaN}",
        "{\"kernel_image_path\": 01}",
    };

    (void)state;
    assert_no_error(decode(RIGHT, strlen(RIGHT)));
    assert_no_error(decode(" \t\r\n" RIGHT "\n", strlen(RIGHT) + 5));
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct error *error = decode(wrong[i], strlen(wrong[i]));

        if (error == NULL)
            fail_msg("taken: %s", wrong[i]);
        assert_int_equal(error->kind, ERROR_INPUT);
        assert_null(strchr(error->message, '\n'));
        error_free(error);
    }
}

static void test_every_other_kind_of_top_value_is_named(void **state)
{
    (void)state;
    assert_error(decode("[]", 2), ERROR_INPUT, "an array given, expected a JSON object");
    assert_error(decode("12", 2), ERROR_INPUT, "12 given, expected a JSON object");
    assert_error(decode("\"x\"", 3), ERROR_INPUT, "\"x\" given, expected a JSON object");
    assert_error(decode("", 0), ERROR_INPUT, "expected a JSON object");
}

static void test_deep_nesting_is_refused_at_its_first_step(void **state)
{
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH);

    (void)state;
    memset(text, '[', DEPTH);
    assert_error(decode(text, DEPTH), ERROR_INPUT, "an array given");
    for (size_t i = 0; i + 5 <= DEPTH; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    assert_error(decode(text, DEPTH), ERROR_INPUT, "unknown field \"a\"");
    free(text);
}

static void test_nul_characters_are_refused(void **state)
{
    static const char raw[] = "{\"kernel_image_path\": \"/k\"\0}";

    (void)state;
    assert_error(decode(raw, sizeof(raw) - 1), ERROR_INPUT, "not JSON");
    assert_error(decode("{\"kernel_image_path\": \"/a\\u0000b\"}", 34), ERROR_INPUT,
                 "kernel_image_path: a string with a NUL character given");
    assert_error(decode("{\"kernel\\u0000\": 1}", 19), ERROR_INPUT, "NUL");
}

/* Every two bytes, and what may stand on either side of each limit (Unicode, table 3-7). */
static void test_utf8_is_what_unicode_says(void **state)
{
    static const struct {
        const char *text;
        bool right;
    } cases[] = {
        {"\340\240\200", true},      {"\340\237\277", false},     {"\340\240", false},
        {"\341\200\200", true},      {"\341\277\277", true},      {"\341\300\200", false},
        {"\341\200\300", false},     {"\341\200\177", false},     {"\355\237\277", true},
        {"\355\240\200", false},     {"\356\200\200", true},      {"\357\277\277", true},
        {"\360\220\200\200", true},  {"\360\217\277\277", false}, {"\360\220\200", false},
        {"\361\200\200\200", true},  {"\363\277\277\277", true},  {"\361\200\300\200", false},
        {"\361\200\200\300", false}, {"\364\217\277\277", true},  {"\364\220\200\200", false},
        {"\365\200\200\200", false}, {"a\303\244b", true},
    };

    (void)state;
    for (unsigned first = 0; first < 256; first++)
        for (unsigned second = 0; second < 256; second++) {
            const char text[2] = {(char)first, (char)second};
            bool plain = first < 0x80 && second < 0x80;
            bool pair = first >= 0xc2 && first <= 0xdf && second >= 0x80 && second <= 0xbf;

            assert_int_equal(json_is_utf8(text, 1), first < 0x80);
            assert_int_equal(json_is_utf8(text, 2), plain || pair);
        }
    for (size_t i = 0; i < array_length(cases); i++)
        if (json_is_utf8(cases[i].text, strlen(cases[i].text)) != cases[i].right)
            fail_msg("case %zu", i);
}

static void test_strings_that_are_not_utf8_are_refused(void **state)
{
    static const char *const wrong[] = {
        "\377",             /* no lead byte */
        "\200",             /* a continuation alone */
        "\303",             /* a continuation missing */
        "\300\257",         /* overlong "/" */
        "\340\200\257",     /* the same in three bytes */
        "\355\240\200",     /* a surrogate */
        "\364\220\200\200", /* above U+10FFFF */
        "\\udc00",          /* a low surrogate alone */
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        strcpy(text, "{\"kernel_image_path\": \"");
        strcat(text, wrong[i]);
        strcat(text, "\"}");
        assert_non_null(strstr(text, wrong[i]));

        struct error *error = decode(text, strlen(text));
        if (error == NULL)
            fail_msg("taken: case %zu", i);
        error_free(error);
        strcpy(text, "{\"");
        strcat(text, wrong[i]);
        strcat(text, "\": 1}");
        error = decode(text, strlen(text));
        assert_non_null(error);
        assert_true(json_is_utf8(error->message, strlen(error->message)));
        error_free(error);
    }
    assert_no_error(decode("{\"kernel_image_path\": \"\360\237\232\200\"}", 29));
}

static void test_field_repeated_under_an_escape_is_still_repeated(void **state)
{
    const char *text = "{\"kernel_image_path\": \"/k\", \"kernel_image\\u005fpath\": \"/l\"}";

    (void)state;
    assert_error(decode(text, strlen(text)), ERROR_INPUT, "kernel_image_path: given twice");
}

static void test_written_strings_are_escaped(void **state)
{
    struct json_writer writer;
    size_t length;

    (void)state;
    json_writer_init(&writer);
    json_open_array(&writer);
    json_string(&writer, "a\"\\\n\001\303\251");
    json_string(&writer, "\377");
    json_integer(&writer, UINT64_MAX);
    json_close_array(&writer);
    assert_string_equal(json_text(&writer, &length), "[\"a\\\"\\\\\\n\\u0001\303\251\",\"?\",18446744073709551615]");
    json_writer_free(&writer);
}

TEST_MAIN(cmocka_unit_test(test_text_that_is_no_object_is_refused),
          cmocka_unit_test(test_every_other_kind_of_top_value_is_named),
          cmocka_unit_test(test_deep_nesting_is_refused_at_its_first_step),
          cmocka_unit_test(test_nul_characters_are_refused), cmocka_unit_test(test_utf8_is_what_unicode_says),
          cmocka_unit_test(test_strings_that_are_not_utf8_are_refused),
          cmocka_unit_test(test_field_repeated_under_an_escape_is_still_repeated),
          cmocka_unit_test(test_written_strings_are_escaped))
