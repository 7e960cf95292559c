/*
 * The metadata service: what the host lets a guest know, as a tree of values that it reads by HTTP at a link-local
 * address. This is the store, its tokens and its HTTP; mmds_net.h is the network that it is reached by.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/config.h"
#include "vmm/mmds/value.h"

struct mmds {
    size_t limit; /* of the contents as JSON, in bytes */
    enum mmds_version version;
    bool imds_compat;
    struct mmds_value *contents; /* an object; NULL: never put */
    bool has_key;
    uint64_t key[2]; /* of the tokens */
};

/* Replaces the contents by `contents`, an object, which it takes on success. ERROR_TOO_LARGE beyond the limit. */
struct error *mmds_put(struct mmds *mmds, struct mmds_value *contents);
/* Merges `patch`, an object, into the contents. On failure nothing has changed. */
struct error *mmds_patch(struct mmds *mmds, const struct mmds_value *patch);
void mmds_free(struct mmds *mmds); /* what it has, not itself */

/*
 * token.c: a token is an expiry and its MAC, in hexadecimal: it is checked without being remembered, and is good for
 * as long as this process lives. Times are CLOCK_MONOTONIC.
 */
enum { MMDS_TOKEN_LENGTH = 48, MMDS_TTL_MIN = 1, MMDS_TTL_MAX = 21600 };
/* False when there is no randomness for the key. */
bool mmds_token_make(struct mmds *mmds, uint32_t ttl_seconds, uint64_t now_us, char token[MMDS_TOKEN_LENGTH + 1]);
bool mmds_token_is_valid(const struct mmds *mmds, const char *token, size_t length, uint64_t now_us);
/* SipHash-2-4 with 128 bits of result, of whole 64-bit words. */
void mmds_siphash(const uint64_t key[2], const uint64_t *words, size_t count, uint64_t result[2]);

/* http.c */
struct mmds_answer {
    char *bytes; /* owned */
    size_t length;
    bool close; /* nothing may follow on the connection */
};

/*
 * Answers the first request in request[0..length), the guest's words. Returns how many bytes it took; 0: it is not all
 * there yet. With `full` there is no room for more, and what is not complete is refused. Without memory the answer is
 * empty and `close` is set.
 */
size_t mmds_http_serve(struct mmds *mmds, const char *request, size_t length, bool full, uint64_t now_us,
                       struct mmds_answer *answer);
