#include "tests/unit/harness.h"

#include "vmm/virtio/rate_limiter.h"

#define START 1000000ULL

static struct rate_limiter limiter;

static struct token_bucket_config bucket(uint64_t size, uint64_t refill_time)
{
    return (struct token_bucket_config){.present = true, .size = size, .refill_time = refill_time};
}

static void limit(struct token_bucket_config bandwidth, struct token_bucket_config ops)
{
    const struct rate_limiter_config config = {.present = true, .bandwidth = bandwidth, .ops = ops};

    rate_limiter_init(&limiter, &config, START);
}

static const struct token_bucket_config none = {0};

static void test_absent_limiter_lets_everything_through(void **state)
{
    const struct rate_limiter_config absent = {0};

    (void)state;
    rate_limiter_init(&limiter, &absent, START);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(rate_limiter_take(&limiter, UINT64_MAX, START), 0);
    limit(bucket(0, 100), bucket(100, 0));
    for (uint64_t i = 0; i < 200; i++)
        assert_int_equal(rate_limiter_take(&limiter, UINT64_MAX, START + i), 0);
}

static void test_full_bucket_empties_and_tells_when_to_try_again(void **state)
{
    (void)state;
    limit(bucket(1000, 100), none); /* 10 bytes a millisecond */
    assert_int_equal(rate_limiter_take(&limiter, 600, START), 0);
    assert_int_equal(rate_limiter_take(&limiter, 400, START), 0);
    assert_int_equal(rate_limiter_take(&limiter, 100, START), START + 10000);
    assert_int_equal(rate_limiter_take(&limiter, 100, START + 9999), START + 10000);
    assert_int_equal(rate_limiter_take(&limiter, 100, START + 10000), 0);
    assert_int_not_equal(rate_limiter_take(&limiter, 1, START + 10000), 0);
}

static void test_refused_request_takes_nothing_from_either_bucket(void **state)
{
    (void)state;
    limit(bucket(1000, 100), bucket(2, 1000));
    assert_int_equal(rate_limiter_take(&limiter, 900, START), 0);
    assert_true(rate_limiter_take(&limiter, 200, START) > START);
    assert_int_equal(rate_limiter_take(&limiter, 100, START), 0);
    /* Both are empty now; the slower decides. */
    assert_int_equal(rate_limiter_take(&limiter, 1, START), START + 500000);
}

static void test_request_larger_than_the_bucket_passes_when_full_and_leaves_a_debt(void **state)
{
    (void)state;
    limit(bucket(1000, 100), none);
    assert_int_equal(rate_limiter_take(&limiter, 1, START), 0);
    /* Not full: it waits for the one token. */
    assert_int_equal(rate_limiter_take(&limiter, 5000, START), START + 100);
    assert_int_equal(rate_limiter_take(&limiter, 5000, START + 100), 0);
    /* 4000 in debt: 400 ms, and a tenth more for the request itself. */
    assert_int_equal(rate_limiter_take(&limiter, 100, START + 100), START + 100 + 410000);
    assert_int_equal(rate_limiter_take(&limiter, 100, START + 100 + 410000), 0);
}

/* In however many parts it is paid back, and whatever is asked for meanwhile. */
static void test_debt_is_paid_back_to_the_microsecond(void **state)
{
    static const uint64_t moments[] = {1, 99, 100, 12345, 100000, 399999, 400000, 400001, 405000, 409999};

    (void)state;
    limit(bucket(1000, 100), none);
    assert_int_equal(rate_limiter_take(&limiter, 5000, START), 0);
    for (size_t i = 0; i < array_length(moments); i++) {
        assert_int_equal(rate_limiter_take(&limiter, 100, START + moments[i]), START + 410000);
        assert_true(limiter.bandwidth.debt == 0 || limiter.bandwidth.tokens == 0);
    }
    assert_int_equal(rate_limiter_take(&limiter, 100, START + 410000), 0);
    assert_int_equal(limiter.bandwidth.tokens, 0);
    /* All at once. */
    assert_int_equal(rate_limiter_take(&limiter, 3000, START + 510000), 0);
    assert_int_equal(limiter.bandwidth.debt, 2000);
    assert_int_equal(rate_limiter_take(&limiter, 500, START + 510000 + 250000), 0);
    assert_int_equal(limiter.bandwidth.debt, 0);
    assert_int_equal(limiter.bandwidth.tokens, 0);
}

static void test_bucket_never_holds_more_than_its_size(void **state)
{
    (void)state;
    limit(bucket(1000, 100), none);
    assert_int_equal(rate_limiter_take(&limiter, 500, START), 0);
    /* 300 are missing then, and 400 come. */
    assert_int_equal(rate_limiter_take(&limiter, 0, START + 20000), 0);
    assert_int_equal(rate_limiter_take(&limiter, 1000, START + 60000), 0);
    assert_int_equal(rate_limiter_take(&limiter, 1, START + 60000), START + 60100);
}

static void test_long_run_rate_is_exact(void **state)
{
    uint64_t now = START, taken = 0;

    (void)state;
    limit(bucket(7, 3), none); /* 7 bytes in 3 ms does not divide evenly */
    while (now < START + 3000000) {
        uint64_t retry = rate_limiter_take(&limiter, 1, now);

        if (retry == 0) {
            taken++;
            continue;
        }
        assert_true(retry > now);
        now = retry;
    }
    /* The full bucket, and 1000 refills of 7. */
    assert_in_range(taken, 7000, 7008);
}

static void test_frequent_questions_do_not_change_the_rate(void **state)
{
    uint64_t taken = 0;

    (void)state;
    limit(bucket(3, 1000), none);
    for (uint64_t now = START; now < START + 10000000; now += 7)
        taken += rate_limiter_take(&limiter, 1, now) == 0;
    assert_in_range(taken, 32, 33);
}

static void test_one_time_burst_is_spent_first_and_never_comes_back(void **state)
{
    struct token_bucket_config config = bucket(100, 100);

    (void)state;
    config.has_one_time_burst = true;
    config.one_time_burst = 500;
    limit(config, none);
    assert_int_equal(rate_limiter_take(&limiter, 500, START), 0);
    assert_int_equal(limiter.bandwidth.tokens, 100);
    assert_int_equal(rate_limiter_take(&limiter, 100, START), 0);
    assert_true(rate_limiter_take(&limiter, 1, START) > START);
    assert_int_equal(rate_limiter_take(&limiter, 100, START + 100000), 0);
    assert_true(rate_limiter_take(&limiter, 1, START + 100000) > START);
}

static void test_bucket_never_overflows(void **state)
{
    (void)state;
    limit(bucket(UINT64_MAX, 1), bucket(1, UINT64_MAX));
    assert_int_equal(rate_limiter_take(&limiter, UINT64_MAX, START), 0);
    assert_int_equal(rate_limiter_take(&limiter, 0, START), UINT64_MAX);
    assert_int_equal(rate_limiter_take(&limiter, 0, UINT64_MAX - 1), UINT64_MAX);
    limit(bucket(1000, 100), none);
    assert_int_equal(rate_limiter_take(&limiter, UINT64_MAX, START), 0);
    assert_true(rate_limiter_take(&limiter, UINT64_MAX, START) > START);
}

static void test_clock_that_stands_still_adds_nothing(void **state)
{
    (void)state;
    limit(none, bucket(1, 10));
    assert_int_equal(rate_limiter_take(&limiter, 0, START), 0);
    assert_int_equal(rate_limiter_take(&limiter, 0, START - 5), START - 5 + 10000);
    assert_int_equal(rate_limiter_take(&limiter, 0, START), START + 10000);
}

static void test_update_replaces_only_the_buckets_given(void **state)
{
    struct rate_limiter_config update = {.present = true, .ops = bucket(0, 0)};

    (void)state;
    limit(bucket(1000, 100), bucket(1, 1000));
    assert_int_equal(rate_limiter_take(&limiter, 1000, START), 0);
    rate_limiter_update(&limiter, &update, START);
    assert_false(limiter.ops.limited);
    assert_int_equal(rate_limiter_take(&limiter, 100, START), START + 10000);
    update = (struct rate_limiter_config){.present = true, .bandwidth = bucket(50, 1000)};
    rate_limiter_update(&limiter, &update, START);
    assert_int_equal(rate_limiter_take(&limiter, 50, START), 0);
    assert_int_equal(rate_limiter_take(&limiter, 50, START), START + 1000000);
}

static void test_lone_bucket_gives_what_it_has(void **state)
{
    const struct token_bucket_config config = bucket(10, 10);
    struct token_bucket lone;

    (void)state;
    token_bucket_init(&lone, &config, START);
    assert_int_equal(token_bucket_take(&lone, 7, START), 7);
    assert_int_equal(token_bucket_take(&lone, 7, START), 3);
    assert_int_equal(token_bucket_take(&lone, 7, START), 0);
    assert_int_equal(token_bucket_take(&lone, 7, START + 2500), 2);
    token_bucket_init(&lone, &none, START);
    assert_int_equal(token_bucket_take(&lone, UINT64_MAX, START), UINT64_MAX);
}

TEST_MAIN(cmocka_unit_test(test_absent_limiter_lets_everything_through),
          cmocka_unit_test(test_full_bucket_empties_and_tells_when_to_try_again),
          cmocka_unit_test(test_refused_request_takes_nothing_from_either_bucket),
          cmocka_unit_test(test_request_larger_than_the_bucket_passes_when_full_and_leaves_a_debt),
          cmocka_unit_test(test_debt_is_paid_back_to_the_microsecond),
          cmocka_unit_test(test_bucket_never_holds_more_than_its_size), cmocka_unit_test(test_long_run_rate_is_exact),
          cmocka_unit_test(test_frequent_questions_do_not_change_the_rate),
          cmocka_unit_test(test_one_time_burst_is_spent_first_and_never_comes_back),
          cmocka_unit_test(test_bucket_never_overflows), cmocka_unit_test(test_clock_that_stands_still_adds_nothing),
          cmocka_unit_test(test_update_replaces_only_the_buckets_given),
          cmocka_unit_test(test_lone_bucket_gives_what_it_has))
