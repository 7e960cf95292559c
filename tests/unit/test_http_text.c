#include "tests/unit/harness.h"

#include "vmm/base/http_text.h"

#include <string.h>

static void test_target_without_an_origin_is_all_path(void **state)
{
    static const char *const targets[] = {"", "/", "/version", "http:/", "https://a/b", "htt", "*"};

    (void)state;
    for (size_t i = 0; i < array_length(targets); i++)
        assert_int_equal(http_origin_length(targets[i], strlen(targets[i])), 0);
}

static void test_origin_ends_where_the_path_begins(void **state)
{
    (void)state;
    assert_int_equal(http_origin_length("http://localhost/version", 24), 16);
    assert_int_equal(http_origin_length("HTTP://a:80//b", 14), 11);
    assert_int_equal(http_origin_length("http:///b", 9), 7);
    assert_int_equal(http_origin_length("http://localhost", 16), 16);
    assert_int_equal(http_origin_length("http://localhost/version", 10), 10); /* no further than told */
}

static void test_every_status_that_is_answered_has_its_reason(void **state)
{
    static const unsigned answered[] = {200, 204, 400, 401, 404, 405, 413, 501};

    (void)state;
    assert_string_equal(http_reason(500), "Internal Server Error");
    assert_string_equal(http_reason(204), "No Content");
    for (size_t i = 0; i < array_length(answered); i++)
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(http_reason(answered[i]), http_reason(answered[j]));
}

TEST_MAIN(cmocka_unit_test(test_target_without_an_origin_is_all_path),
          cmocka_unit_test(test_origin_ends_where_the_path_begins),
          cmocka_unit_test(test_every_status_that_is_answered_has_its_reason))
