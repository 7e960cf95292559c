/* The metadata service's tokens: who has one, and who has not. */
#include "tests/unit/mmds_http_fixture.h"

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

TEST_MAIN(mmds_test(test_token_opens_version_2_until_it_expires), mmds_test(test_token_is_in_its_own_header_only),
          mmds_test(test_changed_token_is_not_valid), mmds_test(test_token_made_without_the_key_is_not_valid),
          mmds_test(test_no_two_services_share_a_key), mmds_test(test_token_is_written_in_one_way_only),
          mmds_test(test_version_1_serves_all_and_counts_who_has_no_token),
          mmds_test(test_token_is_refused_for_what_is_wrong_with_the_request),
          mmds_test(test_siphash_is_the_one_that_others_compute))
