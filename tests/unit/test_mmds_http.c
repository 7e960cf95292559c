/* The metadata service's store and HTTP. */
#include "tests/unit/mmds_http_fixture.h"

/* Reading. */

static void test_names_are_listed_and_strings_are_given(void **state)
{
    (void)state;
    assert_get("/latest", "", 200, "meta-data/\nuser-data");
    assert_get("/latest/meta-data/", "", 200, "ami-id\nmac\nnetwork/");
    assert_get("/latest/meta-data/ami-id", "", 200, "ami-1");
    assert_get("//latest//user-data", "Accept: */*\r\n", 200, "line 1\nline 2");
    assert_get("http://169.254.169.254/latest/meta-data/mac?x=/y", "", 200, "02:00");
    assert_get("/", "", 200, "\na/b/\nlatest/\nlist\nnumber\nyes");
    assert_non_null(strstr(answer.bytes, "Content-Type: text/plain\r\n"));
}

static void test_names_that_are_almost_right_are_nothing(void **state)
{
    (void)state;
    put("{\"list\":[\"zero\",\"one\"],\"a~\":\"1\",\"~\":\"2\",\"/\":\"3\",\"~2\":\"4\",\"~1\":\"5\"}");
    assert_get("/list/1", "", 200, "one");
    assert_get("/list/01", "", 404, NULL);
    assert_get("/list/+1", "", 404, NULL);
    assert_get("/list/1a", "", 404, NULL);
    assert_get("/list/:", "", 404, NULL);
    assert_get("/list/2", "", 404, NULL);
    assert_get("/list/-", "", 404, NULL);
    assert_get("/list/4294967296", "", 404, NULL);
    assert_get("/a~", "", 200, "1");
    assert_get("/~", "", 200, "2");
    assert_get("/~0", "", 200, "2");
    assert_get("/~1", "", 200, "3");
    assert_get("/~2", "", 200, "4");
    assert_get("/~01", "", 200, "5");
    assert_get("/~3", "", 404, NULL);
}

static void test_json_is_given_to_who_accepts_it(void **state)
{
    (void)state;
    assert_get("/latest/meta-data/network", JSON, 200, "{\"a\":1}");
    assert_non_null(strstr(answer.bytes, "Content-Type: application/json\r\n"));
    assert_get("/number", JSON, 200, "1.50e3");
    assert_get("/latest/user-data", "accept: Application/JSON;q=1, */*\r\n", 200, "\"line 1\\nline 2\"");
    assert_get("/list", JSON, 200, "[\"zero\",{\"one\":1}]");
    assert_get("/latest/meta-data/mac", "Accept: text/plain, application/json\r\n", 200, "02:00");
    assert_get("/latest/meta-data/mac", "Accept: image/png\r\n", 200, "02:00");
}

static void test_lists_and_escapes_are_walked_as_json_pointers(void **state)
{
    (void)state;
    assert_get("/list/0", "", 200, "zero");
    assert_get("/list/1", "", 200, "one");
    assert_get("/list/2", "", 404, "Not found: /list/2");
    assert_get("/list/00", "", 404, NULL);
    assert_get("/list/-1", "", 404, NULL);
    assert_get("/list/99999999999999999999", "", 404, NULL);
    assert_get("/a~1b/m~0n", "", 200, "escaped");
    assert_get("/latest/meta-data/ami-id/x", "", 404, NULL);
    assert_get("/lates", "", 404, NULL);
    assert_get("/latestt", "", 404, NULL);
}

static void test_values_that_no_list_can_show_are_not_implemented(void **state)
{
    (void)state;
    assert_get("/number", "", 501, NULL);
    assert_get("/list", "", 501, NULL);
    assert_get("/yes", "", 501, NULL);
    assert_get("/yes", JSON, 200, "true");
}

static void test_imds_compatibility_never_gives_json(void **state)
{
    (void)state;
    mmds.imds_compat = true;
    assert_get("/latest/meta-data/mac", JSON, 200, "02:00");
    assert_get("/number", JSON, 501, NULL);
}

static void test_nothing_is_found_before_something_is_put(void **state)
{
    (void)state;
    mmds_free(&mmds);
    assert_get("/", "", 200, "");
    assert_get("/", JSON, 200, "{}");
    assert_get("/latest", "", 404, NULL);
}

/* Methods and headers. */

static void test_other_methods_are_not_allowed(void **state)
{
    static const char *const methods[] = {"POST", "DELETE", "PATCH", "OPTIONS"};
    char request[64];

    (void)state;
    for (size_t i = 0; i < array_length(methods); i++) {
        snprintf(request, sizeof(request), "%s /latest HTTP/1.1\r\n\r\n", methods[i]);
        assert_answer(request, 405, NULL);
        assert_non_null(strstr(answer.bytes, "\r\nAllow: GET, PUT\r\n"));
    }
    assert_answer("HEAD /latest HTTP/1.1\r\n\r\n", 405, "");
}

static void test_connection_stays_as_http_has_it(void **state)
{
    (void)state;
    assert_get("/", "", 200, NULL);
    assert_false(answer.close);
    assert_get("/", "Connection: close\r\n", 200, NULL);
    assert_true(answer.close);
    assert_answer("GET / HTTP/1.0\r\n\r\n", 200, NULL);
    assert_true(answer.close);
    assert_answer("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, NULL);
    assert_false(answer.close);
}

static void test_request_is_taken_when_it_is_whole_and_by_itself(void **state)
{
    static const char two[] = "GET /number HTTP/1.1\r\n\r\nGET /yes HTTP/1.1\r\n\r\n";
    const size_t first = strlen("GET /number HTTP/1.1\r\n\r\n");

    (void)state;
    for (size_t length = 1; length < first; length++)
        assert_int_equal(mmds_http_serve(&mmds, two, length, false, now_us, &answer), 0);
    assert_int_equal(serve_at(two, now_us), first);
    assert_int_equal(serve_at(two + first, now_us), strlen(two) - first);
    assert_int_equal(serve_at("PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\n\r\n", now_us), 39);
}

static void test_nonsense_is_refused_and_ends_the_connection(void **state)
{
    static const char *const bad[] = {"hello\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/x\r\n\r\n",
                                      "GET / HTTP/1.1\r\n: x\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"};

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++) {
        assert_answer(bad[i], 400, NULL);
        assert_true(answer.close);
    }
}

static void test_request_without_an_end_is_too_long(void **state)
{
    (void)state;
    assert_int_equal(mmds_http_serve(&mmds, "GET / HTTP/1.1\r\nX: y", 19, true, now_us, &answer), 19);
    assert_non_null(strstr(answer.bytes, "HTTP/1.1 413 "));
    assert_true(answer.close);
}

/* Contents. */

static void assert_contents(const char *expected)
{
    char text[1024];

    text[mmds_value_json(mmds.contents, text)] = '\0';
    assert_string_equal(text, expected);
}

static void patch(const char *text)
{
    struct mmds_value *value = decode(text);

    assert_no_error(mmds_patch(&mmds, value));
    mmds_value_free(value);
}

/* RFC 7396, section 3 and appendix A. */
static void test_patch_merges(void **state)
{
    static const char *const cases[][3] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
        {"{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}"},
        {"{\"a\":\"foo\"}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
        {"{\"a\":1}", "{\"x\":null}", "{\"a\":1}"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        put(cases[i][0]);
        patch(cases[i][1]);
        assert_contents(cases[i][2]);
    }
}

static void test_contents_beyond_the_limit_change_nothing(void **state)
{
    struct mmds_value *value;

    (void)state;
    mmds.limit = 21;
    put("{\"a\":\"0123456789ab\"}");
    value = decode("{\"a\":\"0123456789abc\"}");
    assert_no_error(mmds_patch(&mmds, value));
    mmds_value_free(value);
    value = decode("{\"a\":\"0123456789abcd\"}");
    assert_error(mmds_put(&mmds, value), ERROR_TOO_LARGE, "22 bytes, expected at most 21");
    assert_error(mmds_patch(&mmds, value), ERROR_TOO_LARGE, "22 bytes, expected at most 21");
    mmds_value_free(value);
    assert_contents("{\"a\":\"0123456789abc\"}");
}

static void test_patch_needs_contents(void **state)
{
    struct mmds_value *value = decode("{}");

    (void)state;
    mmds_free(&mmds);
    assert_error(mmds_patch(&mmds, value), ERROR_INPUT, "the metadata was never put");
    mmds_value_free(value);
}

static void test_text_survives_as_it_is(void **state)
{
    static const char text[] =
        "{\"a\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f/\xc3\xa4\",\"n\":[-0,1e999,12345678901234567890],"
        "\"o\":{\"\\u0001\":[[],{},null,true,false]}}";

    (void)state;
    put(text);
    assert_contents(text);
    put("{\"b\":1,\"a\":2,\"b\":3}"); /* sorted; the last of two counts */
    assert_contents("{\"a\":2,\"b\":3}");
}

static void test_what_is_no_json_object_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "1",
                                      "[]",
                                      "null",
                                      "\"a\"",
                                      "{",
                                      "{\"a\":}",
                                      "{\"a\":1}}",
                                      "{\"a\":1} 2",
                                      "{\"a\":\"\xff\"}",
                                      "{\"\xff\":1}",
                                      "{\"a\":[1,]}"};
    char deep[512] = "";
    struct mmds_value *value = NULL;

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++) {
        struct error *error = mmds_json_decode(bad[i], strlen(bad[i]), &value);

        if (error == NULL)
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(error->kind, ERROR_INPUT);
        error_free(error);
        assert_null(value);
    }
    assert_error(mmds_json_decode("{\"a\": [1", 8, &value), ERROR_INPUT, "premature EOF, at byte 8");
    assert_error(mmds_json_decode("{'a': 1}", 8, &value), ERROR_INPUT, "invalid char in json text, at byte 2");
    strcat(deep, "{\"a\":");
    for (size_t i = 0; i < MMDS_DEPTH_MAX; i++)
        strcat(deep, "[");
    assert_error(mmds_json_decode(deep, strlen(deep), &value), ERROR_INPUT, "deeper than 100");
}

TEST_MAIN(mmds_test(test_names_are_listed_and_strings_are_given), mmds_test(test_json_is_given_to_who_accepts_it),
          mmds_test(test_lists_and_escapes_are_walked_as_json_pointers),
          mmds_test(test_values_that_no_list_can_show_are_not_implemented),
          mmds_test(test_imds_compatibility_never_gives_json), mmds_test(test_nothing_is_found_before_something_is_put),
          mmds_test(test_other_methods_are_not_allowed), mmds_test(test_connection_stays_as_http_has_it),
          mmds_test(test_request_is_taken_when_it_is_whole_and_by_itself),
          mmds_test(test_nonsense_is_refused_and_ends_the_connection),
          mmds_test(test_request_without_an_end_is_too_long), mmds_test(test_names_that_are_almost_right_are_nothing),
          mmds_test(test_patch_merges), mmds_test(test_contents_beyond_the_limit_change_nothing),
          mmds_test(test_patch_needs_contents), mmds_test(test_text_survives_as_it_is),
          mmds_test(test_what_is_no_json_object_is_refused))
