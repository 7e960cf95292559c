/*
 * Token buckets that slow a device down: one for bytes, one for operations (the API's RateLimiter object). Time is
 * handed in, so a test needs no clock; the device owns the timer that resumes it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/config.h"

struct token_bucket {
    bool limited;
    uint64_t size;           /* tokens */
    uint64_t refill_us;      /* time in which `size` tokens are added */
    uint64_t tokens;         /* now, at most `size` */
    uint64_t debt;           /* taken beyond what there was; refills pay it back first */
    uint64_t remainder;      /* of a token not yet added, in 1/refill_us tokens */
    uint64_t one_time_burst; /* extra tokens, never refilled */
    uint64_t last_refill_us;
};

struct rate_limiter {
    struct token_bucket bandwidth;
    struct token_bucket ops;
};

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_us);
/* PATCH: buckets that `config` has are replaced (size and refill_time 0: unlimited), others stay. */
void rate_limiter_update(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_us);

/* A lone bucket, as the serial port has one. */
void token_bucket_init(struct token_bucket *bucket, const struct token_bucket_config *config, uint64_t now_us);
/* Takes up to `tokens`; returns how many there were. An unlimited bucket has as many as asked for. */
uint64_t token_bucket_take(struct token_bucket *bucket, uint64_t tokens, uint64_t now_us);

/*
 * Takes one operation of `bytes`, all or nothing. A request larger than the bucket passes when the bucket is full
 * (or nothing ever would) and leaves a debt. Returns 0 when taken, else the CLOCK_MONOTONIC microsecond at which to
 * try again.
 */
uint64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, uint64_t now_us);
