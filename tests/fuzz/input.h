/* A fuzzer's bytes, taken from the front; past their end everything is zero. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* Takes up to `length` bytes; returns how many there were. */
static inline size_t fuzz_bytes(struct fuzz_input *input, void *to, size_t length)
{
    size_t taken = length < input->left ? length : input->left;

    memset(to, 0, length);
    memcpy(to, input->at, taken);
    input->at += taken;
    input->left -= taken;
    return taken;
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
    uint8_t value;

    fuzz_bytes(input, &value, sizeof(value));
    return value;
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
    uint16_t value;

    fuzz_bytes(input, &value, sizeof(value));
    return value;
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
    uint32_t value;

    fuzz_bytes(input, &value, sizeof(value));
    return value;
}

static inline uint64_t fuzz_u64(struct fuzz_input *input)
{
    uint64_t value;

    fuzz_bytes(input, &value, sizeof(value));
    return value;
}
