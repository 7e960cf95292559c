#include "vmm/mmds/mmds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { SECOND_US = 1000000, DIGITS = 16 /* of a word */ };

struct sip {
    uint64_t v[4];
};

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static void sip_rounds(struct sip *sip, unsigned rounds)
{
    uint64_t *v = sip->v;

    while (rounds-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void sip_word(struct sip *sip, uint64_t word)
{
    sip->v[3] ^= word;
    sip_rounds(sip, 2);
    sip->v[0] ^= word;
}

/* Aumasson and Bernstein, "SipHash: a fast short-input PRF", and the 128-bit variant of their reference code. */
void mmds_siphash(const uint64_t key[2], const uint64_t *words, size_t count, uint64_t result[2])
{
    struct sip sip = {{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d ^ 0xee, key[0] ^ 0x6c7967656e657261,
                       key[1] ^ 0x7465646279746573}};

    for (size_t i = 0; i < count; i++)
        sip_word(&sip, words[i]);
    sip_word(&sip, (uint64_t)(count * sizeof(*words)) << 56);
    for (unsigned half = 0; half < 2; half++) {
        if (half == 0)
            sip.v[2] ^= 0xee;
        else
            sip.v[1] ^= 0xdd;
        sip_rounds(&sip, 4);
        result[half] = sip.v[0] ^ sip.v[1] ^ sip.v[2] ^ sip.v[3];
    }
}

bool mmds_token_make(struct mmds *mmds, uint32_t ttl_seconds, uint64_t now_us, char token[MMDS_TOKEN_LENGTH + 1])
{
    uint64_t expiry_us = now_us + (uint64_t)ttl_seconds * SECOND_US;
    uint64_t mac[2];

    /* As few bytes as this come whole. */
    if (!mmds->has_key && getrandom(mmds->key, sizeof(mmds->key), 0) != sizeof(mmds->key))
        return false;
    mmds->has_key = true;
    mmds_siphash(mmds->key, &expiry_us, 1, mac);
    snprintf(token, MMDS_TOKEN_LENGTH + 1, "%016llx%016llx%016llx", (unsigned long long)expiry_us,
             (unsigned long long)mac[0], (unsigned long long)mac[1]);
    return true;
}

static bool parse_word(const char *text, uint64_t *word)
{
    *word = 0;
    for (size_t i = 0; i < DIGITS; i++) {
        char c = text[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                                                : 16;

        if (digit == 16)
            return false;
        *word = *word << 4 | digit;
    }
    return true;
}

bool mmds_token_is_valid(const struct mmds *mmds, const char *token, size_t length, uint64_t now_us)
{
    uint64_t words[3], mac[2];

    if (!mmds->has_key || length != MMDS_TOKEN_LENGTH)
        return false;
    for (size_t i = 0; i < 3; i++)
        if (!parse_word(token + i * DIGITS, &words[i]))
            return false;
    mmds_siphash(mmds->key, words, 1, mac);
    /* No early end that would tell how much of it was right. */
    return ((mac[0] ^ words[1]) | (mac[1] ^ words[2])) == 0 && words[0] > now_us;
}
