#include "vmm/virtio/rate_limiter.h"

#include "vmm/base/checked.h"

/* Products of two 64-bit numbers, exactly. */
typedef unsigned __int128 wide;

void token_bucket_init(struct token_bucket *bucket, const struct token_bucket_config *config, uint64_t now_us)
{
    uint64_t refill_us;

    *bucket = (struct token_bucket){0};
    if (!config->present || config->size == 0 || config->refill_time == 0)
        return;
    if (!checked_mul(config->refill_time, 1000ULL, &refill_us))
        refill_us = UINT64_MAX;
    *bucket = (struct token_bucket){
        .limited = true,
        .size = config->size,
        .refill_us = refill_us,
        .tokens = config->size,
        .one_time_burst = config->has_one_time_burst ? config->one_time_burst : 0,
        .last_refill_us = now_us,
    };
}

/* Adds what the time since the last call is worth; the fraction of a token is kept, so that no rounding adds up. */
static void refill(struct token_bucket *bucket, uint64_t now_us)
{
    if (now_us <= bucket->last_refill_us)
        return;

    wide worth = (wide)(now_us - bucket->last_refill_us) * bucket->size + bucket->remainder;
    wide added = worth / bucket->refill_us;
    wide missing = (wide)(bucket->size - bucket->tokens) + bucket->debt;

    bucket->last_refill_us = now_us;
    bucket->remainder = (uint64_t)(worth % bucket->refill_us);
    if (added >= missing) {
        bucket->tokens = bucket->size;
        bucket->debt = 0;
        bucket->remainder = 0;
    } else if (added <= bucket->debt) {
        bucket->debt -= (uint64_t)added;
    } else {
        bucket->tokens += (uint64_t)(added - bucket->debt);
        bucket->debt = 0;
    }
}

/* How many tokens are missing until `tokens` can be taken: 0 now. One that never fits waits for a full bucket. */
static wide missing(const struct token_bucket *bucket, uint64_t tokens)
{
    uint64_t needed = tokens > bucket->one_time_burst ? tokens - bucket->one_time_burst : 0;

    if (!bucket->limited || needed == 0)
        return 0;
    if (needed > bucket->size)
        needed = bucket->size;
    return needed > bucket->tokens ? (wide)(needed - bucket->tokens) + bucket->debt : 0;
}

static void take(struct token_bucket *bucket, uint64_t tokens)
{
    uint64_t burst = tokens < bucket->one_time_burst ? tokens : bucket->one_time_burst;

    if (!bucket->limited)
        return;
    bucket->one_time_burst -= burst;
    tokens -= burst;
    if (tokens > bucket->tokens) {
        bucket->debt += tokens - bucket->tokens;
        bucket->tokens = 0;
    } else {
        bucket->tokens -= tokens;
    }
}

/* The moment at which `tokens` more will have come. */
static uint64_t due_us(const struct token_bucket *bucket, wide tokens, uint64_t now_us)
{
    wide wait = (tokens * bucket->refill_us - bucket->remainder + bucket->size - 1) / bucket->size;

    return wait > UINT64_MAX - now_us ? UINT64_MAX : now_us + (uint64_t)wait;
}

uint64_t token_bucket_take(struct token_bucket *bucket, uint64_t tokens, uint64_t now_us)
{
    uint64_t available;

    if (!bucket->limited)
        return tokens;
    refill(bucket, now_us);
    if (!checked_add(bucket->tokens, bucket->one_time_burst, &available))
        available = UINT64_MAX;
    if (tokens > available)
        tokens = available;
    take(bucket, tokens);
    return tokens;
}

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_us)
{
    *limiter = (struct rate_limiter){0};
    rate_limiter_update(limiter, config, now_us);
}

void rate_limiter_update(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_us)
{
    if (!config->present)
        return;
    if (config->bandwidth.present)
        token_bucket_init(&limiter->bandwidth, &config->bandwidth, now_us);
    if (config->ops.present)
        token_bucket_init(&limiter->ops, &config->ops, now_us);
}

uint64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, uint64_t now_us)
{
    const struct {
        struct token_bucket *bucket;
        uint64_t tokens;
    } wanted[] = {{&limiter->bandwidth, bytes}, {&limiter->ops, 1}};
    uint64_t retry_us = 0;

    for (int i = 0; i < 2; i++) {
        if (wanted[i].bucket->limited)
            refill(wanted[i].bucket, now_us);

        wide lacking = missing(wanted[i].bucket, wanted[i].tokens);
        uint64_t due = lacking > 0 ? due_us(wanted[i].bucket, lacking, now_us) : 0;
        if (due > retry_us)
            retry_us = due;
    }
    if (retry_us == 0)
        for (int i = 0; i < 2; i++)
            take(wanted[i].bucket, wanted[i].tokens);
    return retry_us;
}
