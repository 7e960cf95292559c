/*
 * Overflow-checked arithmetic for lengths, offsets and guest addresses. Each returns true and stores the result when
 * it fits the result's type; false otherwise, and then the result must not be used.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define checked_add(a, b, result) (!__builtin_add_overflow(a, b, result))
#define checked_mul(a, b, result) (!__builtin_mul_overflow(a, b, result))

/* Whether [offset, offset + length) lies within [0, size). An empty range at `size` does. */
static inline bool range_within(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

/* `value` rounded down or up to a multiple of `alignment`, a power of two. align_up may wrap: check before. */
static inline uint64_t align_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return align_down(value + alignment - 1, alignment);
}
