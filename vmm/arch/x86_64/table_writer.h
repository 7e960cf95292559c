/* Writes little-endian tables (ACPI, AML, MP) into a buffer; what does not fit is not written and `full` is set. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_writer {
    uint8_t *buffer;
    size_t capacity;
    size_t length;
    bool full;
};

void put_bytes(struct table_writer *writer, const void *bytes, size_t count);
void put_zeros(struct table_writer *writer, size_t count);
void put_u8(struct table_writer *writer, uint8_t value);
void put_u16(struct table_writer *writer, uint16_t value);
void put_u32(struct table_writer *writer, uint32_t value);
void put_u64(struct table_writer *writer, uint64_t value);

/* Overwrites `count` bytes from `offset`, all of which must have been written before. */
void patch_bytes(struct table_writer *writer, size_t offset, const void *bytes, size_t count);

/* Sets the byte at `offset` so that `count` bytes from `start` add up to zero. */
void patch_checksum(struct table_writer *writer, size_t offset, size_t start, size_t count);
