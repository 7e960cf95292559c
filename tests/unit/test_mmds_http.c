/* The metadata service's store, tokens and HTTP. */
#include "tests/unit/harness.h"

#include "api/mmds_json.h"
#include "vmm/metrics.h"
#include "vmm/mmds/mmds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not called: what these tests need of api/mmds_json.c does not ask a machine. */
struct error *machine_put_mmds(struct machine *machine, struct mmds_value *contents)
{
    (void)machine;
    (void)contents;
    return error_new(ERROR_INTERNAL, "there is no machine");
}

static const uint64_t now_us = 1000000;
static struct mmds mmds;
static struct mmds_answer answer;

static struct mmds_value *decode(const char *text)
{
    struct mmds_value *value = NULL;

    assert_no_error(mmds_json_decode(text, strlen(text), &value));
    return value;
}

static void put(const char *text)
{
    assert_no_error(mmds_put(&mmds, decode(text)));
}

static int setup(void **state)
{
    (void)state;
    mmds = (struct mmds){.limit = 51200};
    memset(&metrics.mmds, 0, sizeof(metrics.mmds));
    put("{\"latest\":{\"meta-data\":{\"ami-id\":\"ami-1\",\"mac\":\"02:00\",\"network\":{\"a\":1}},\"user-data\":"
        "\"line "
        "1\\nline "
        "2\"},\"number\":1.50e3,\"list\":[\"zero\",{\"one\":1}],\"a/b\":{\"m~n\":\"escaped\"},\"\":\"empty\",\"yes\":"
        "true}");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(answer.bytes);
    answer = (struct mmds_answer){0};
    mmds_free(&mmds);
    return 0;
}

static size_t serve_at(const char *request, uint64_t time_us)
{
    free(answer.bytes);
    return mmds_http_serve(&mmds, request, strlen(request), false, time_us, &answer);
}

static void assert_answer(const char *request, unsigned status, const char *body)
{
    char head[32];

    if (serve_at(request, now_us) != strlen(request) || answer.bytes == NULL)
        fail_msg("not all was taken of %s", request);
    snprintf(head, sizeof(head), "HTTP/1.1 %u ", status);
    if (strncmp(answer.bytes, head, strlen(head)) != 0)
        fail_msg("%s: %.*s, expected %u", request, (int)answer.length, answer.bytes, status);
    char *end = strstr(answer.bytes, "\r\n\r\n");
    assert_non_null(end);
    if (body != NULL)
        assert_string_equal(end + 4, body);
}

static void assert_get(const char *path, const char *headers, unsigned status, const char *body)
{
    char request[512];

    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n%s\r\n", path, headers);
    assert_answer(request, status, body);
}

#define JSON "Accept: application/json\r\n"

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

/* Tokens. */

static void take_token(const char *header, char token[MMDS_TOKEN_LENGTH + 1])
{
    char request[256];

    snprintf(request, sizeof(request), "PUT /latest/api/token HTTP/1.1\r\n%s: 60\r\n\r\n", header);
    assert_answer(request, 200, NULL);
    snprintf(request, sizeof(request), "\r\n%s: 60\r\n", header);
    assert_non_null(strstr(answer.bytes, request));
    snprintf(token, MMDS_TOKEN_LENGTH + 1, "%s", strstr(answer.bytes, "\r\n\r\n") + 4);
    assert_int_equal(strlen(token), MMDS_TOKEN_LENGTH);
}

static unsigned get_with(const char *header, const char *token, uint64_t time_us)
{
    char request[256];
    unsigned status;

    snprintf(request, sizeof(request), "GET /yes HTTP/1.1\r\nAccept: application/json\r\n%s: %s\r\n\r\n", header,
             token);
    serve_at(request, time_us);
    assert_int_equal(sscanf(answer.bytes, "HTTP/1.1 %u", &status), 1);
    return status;
}

static void test_token_opens_version_2_until_it_expires(void **state)
{
    char token[MMDS_TOKEN_LENGTH + 1];

    (void)state;
    mmds.version = MMDS_V2;
    assert_get("/yes", JSON, 401, NULL);
    assert_int_equal(metrics.mmds.rx_no_token, 1);
    assert_int_equal(get_with("X-metadata-token", "none", now_us), 401);
    assert_int_equal(metrics.mmds.rx_invalid_token, 1);
    take_token("X-metadata-token-ttl-seconds", token);
    assert_int_equal(get_with("X-metadata-token", token, now_us), 200);
    assert_int_equal(get_with("x-METADATA-token", token, now_us), 200);
    assert_int_equal(get_with("X-aws-ec2-metadata-token", token, now_us), 200);
    assert_int_equal(get_with("X-metadata-token", token, now_us + 59999999), 200);
    assert_int_equal(get_with("X-metadata-token", token, now_us + 60000000), 401);
    take_token("X-aws-ec2-metadata-token-ttl-seconds", token);
    assert_int_equal(get_with("X-aws-ec2-metadata-token", token, now_us), 200);
}

static void test_changed_token_is_not_valid(void **state)
{
    char token[MMDS_TOKEN_LENGTH + 1];

    (void)state;
    mmds.version = MMDS_V2;
    take_token("X-metadata-token-ttl-seconds", token);
    for (size_t i = 0; i < MMDS_TOKEN_LENGTH; i++) {
        char kept = token[i];

        token[i] = kept == '0' ? '1' : '0';
        assert_int_equal(get_with("X-metadata-token", token, now_us), 401);
        token[i] = 'G';
        assert_int_equal(get_with("X-metadata-token", token, now_us), 401);
        token[i] = kept;
    }
    token[MMDS_TOKEN_LENGTH - 1] = '\0';
    assert_int_equal(get_with("X-metadata-token", token, now_us), 401);
}

/* Only the header's whole name counts, and no other header. */
static void test_token_is_in_its_own_header_only(void **state)
{
    static const char *const others[] = {"X-metadata-toke", "X-metadata-token2", "Y-metadata-token", "X", "Cookie"};
    char token[MMDS_TOKEN_LENGTH + 1];

    (void)state;
    mmds.version = MMDS_V2;
    take_token("X-metadata-token-ttl-seconds", token);
    for (size_t i = 0; i < array_length(others); i++)
        assert_int_equal(get_with(others[i], token, now_us), 401);
    assert_int_equal(get_with("X-metadata-token", token, now_us), 200);
}

/* Before the first token there is no key; one made with no key at all must not do. */
static void test_token_made_without_the_key_is_not_valid(void **state)
{
    struct mmds forger = {.has_key = true};
    char token[MMDS_TOKEN_LENGTH + 2] = {0};

    (void)state;
    mmds.version = MMDS_V2;
    assert_true(mmds_token_make(&forger, 60, now_us, token));
    assert_true(mmds_token_is_valid(&forger, token, MMDS_TOKEN_LENGTH, now_us));
    assert_int_equal(get_with("X-metadata-token", token, now_us), 401);
    assert_false(mmds_token_is_valid(&mmds, token, MMDS_TOKEN_LENGTH, now_us));
    /* Longer or shorter by what is not looked at. */
    assert_false(mmds_token_is_valid(&forger, token, MMDS_TOKEN_LENGTH - 1, now_us));
    assert_false(mmds_token_is_valid(&forger, token, MMDS_TOKEN_LENGTH + 1, now_us));
    assert_false(mmds_token_is_valid(&forger, token, 0, now_us));
}

/* Keys are random, and each service has one for all of its tokens. */
static void test_no_two_services_share_a_key(void **state)
{
    struct mmds other = {0};
    char first[MMDS_TOKEN_LENGTH + 1], second[MMDS_TOKEN_LENGTH + 1];

    (void)state;
    assert_true(mmds_token_make(&mmds, 60, now_us, first));
    assert_true(mmds_token_make(&mmds, 61, now_us, second));
    assert_true(mmds_token_is_valid(&mmds, first, MMDS_TOKEN_LENGTH, now_us));
    assert_true(mmds_token_make(&other, 60, now_us, second));
    assert_string_not_equal(first, second);
    assert_false(mmds_token_is_valid(&mmds, second, MMDS_TOKEN_LENGTH, now_us));
}

/* Digits that stand for the same numbers, or are none. */
static void test_token_is_written_in_one_way_only(void **state)
{
    char token[MMDS_TOKEN_LENGTH + 1], other[MMDS_TOKEN_LENGTH + 1];
    static const char wrong[] = {'/', ':', '`', 'g', ' ', '\xff'};
    struct mmds known = {.has_key = true};

    (void)state;
    assert_true(mmds_token_make(&known, 60, now_us, token));
    for (size_t i = 0; i < MMDS_TOKEN_LENGTH; i++)
        if (token[i] >= 'a') {
            memcpy(other, token, sizeof(other));
            other[i] = (char)(token[i] - 'a' + 'A');
            assert_false(mmds_token_is_valid(&known, other, MMDS_TOKEN_LENGTH, now_us));
        }
    for (size_t i = 0; i < MMDS_TOKEN_LENGTH; i++)
        for (size_t j = 0; j < array_length(wrong); j++) {
            memcpy(other, token, sizeof(other));
            other[i] = wrong[j];
            assert_false(mmds_token_is_valid(&known, other, MMDS_TOKEN_LENGTH, now_us));
        }
}

static void test_version_1_serves_all_and_counts_who_has_no_token(void **state)
{
    char token[MMDS_TOKEN_LENGTH + 1];

    (void)state;
    assert_get("/yes", JSON, 200, "true");
    assert_int_equal(get_with("X-metadata-token", "none", now_us), 200);
    assert_int_equal(metrics.mmds.rx_no_token, 1);
    assert_int_equal(metrics.mmds.rx_invalid_token, 1);
    take_token("X-metadata-token-ttl-seconds", token);
    assert_int_equal(get_with("X-metadata-token", token, now_us), 200);
    assert_int_equal(metrics.mmds.rx_invalid_token, 1);
}

static void test_token_is_refused_for_what_is_wrong_with_the_request(void **state)
{
    static const char *const times[] = {"0", "21601", "-1", "", "1x", "4294967297", "99999999999999999999"};
    char request[256];

    (void)state;
    for (size_t i = 0; i < array_length(times); i++) {
        snprintf(request, sizeof(request), "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: %s\r\n\r\n",
                 times[i]);
        assert_answer(request, 400, NULL);
    }
    assert_answer("PUT /latest/api/token HTTP/1.1\r\n\r\n", 400, NULL);
    assert_answer("PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 21600\r\n\r\n", 200, NULL);
    assert_answer("PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: a\r\n\r\n",
                  400, NULL);
    assert_answer("PUT /latest/api HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n", 404, NULL);
}

/* Made with OpenSSL's SipHash of the bytes 0 to 7 under the key of bytes 0 to 15. */
static void test_siphash_is_the_one_that_others_compute(void **state)
{
    static const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    static const uint64_t word = 0x0706050403020100;
    uint64_t result[2];

    (void)state;
    mmds_siphash(key, NULL, 0, result);
    assert_true(result[0] == 0xe6a825ba047f81a3 && result[1] == 0x930255c71472f66d);
    mmds_siphash(key, &word, 1, result);
    assert_true(result[0] == 0x61f55862baa9623b && result[1] == 0xb49714f364e2830f);
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

#define mmds_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(mmds_test(test_names_are_listed_and_strings_are_given), mmds_test(test_json_is_given_to_who_accepts_it),
          mmds_test(test_lists_and_escapes_are_walked_as_json_pointers),
          mmds_test(test_values_that_no_list_can_show_are_not_implemented),
          mmds_test(test_imds_compatibility_never_gives_json), mmds_test(test_nothing_is_found_before_something_is_put),
          mmds_test(test_other_methods_are_not_allowed), mmds_test(test_connection_stays_as_http_has_it),
          mmds_test(test_request_is_taken_when_it_is_whole_and_by_itself),
          mmds_test(test_nonsense_is_refused_and_ends_the_connection),
          mmds_test(test_request_without_an_end_is_too_long), mmds_test(test_token_opens_version_2_until_it_expires),
          mmds_test(test_token_is_in_its_own_header_only), mmds_test(test_names_that_are_almost_right_are_nothing),
          mmds_test(test_changed_token_is_not_valid), mmds_test(test_token_made_without_the_key_is_not_valid),
          mmds_test(test_no_two_services_share_a_key), mmds_test(test_token_is_written_in_one_way_only),
          mmds_test(test_version_1_serves_all_and_counts_who_has_no_token),
          mmds_test(test_token_is_refused_for_what_is_wrong_with_the_request),
          mmds_test(test_siphash_is_the_one_that_others_compute), mmds_test(test_patch_merges),
          mmds_test(test_contents_beyond_the_limit_change_nothing), mmds_test(test_patch_needs_contents),
          mmds_test(test_text_survives_as_it_is), mmds_test(test_what_is_no_json_object_is_refused))
