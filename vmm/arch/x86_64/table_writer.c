#include "vmm/arch/x86_64/table_writer.h"

#include "vmm/base/checked.h"

#include <string.h>

/* Room for `count` bytes at the end, or NULL. */
static uint8_t *extend(struct table_writer *writer, size_t count)
{
    if (writer->full || !range_within(writer->length, count, writer->capacity)) {
        writer->full = true;
        return NULL;
    }

    uint8_t *room = writer->buffer + writer->length;
    writer->length += count;
    return room;
}

void put_bytes(struct table_writer *writer, const void *bytes, size_t count)
{
    uint8_t *room = extend(writer, count);

    if (room != NULL)
        memcpy(room, bytes, count);
}

void put_zeros(struct table_writer *writer, size_t count)
{
    uint8_t *room = extend(writer, count);

    if (room != NULL)
        memset(room, 0, count);
}

void put_u8(struct table_writer *writer, uint8_t value)
{
    put_bytes(writer, &value, sizeof(value));
}

void put_u16(struct table_writer *writer, uint16_t value)
{
    put_bytes(writer, &value, sizeof(value));
}

void put_u32(struct table_writer *writer, uint32_t value)
{
    put_bytes(writer, &value, sizeof(value));
}

void put_u64(struct table_writer *writer, uint64_t value)
{
    put_bytes(writer, &value, sizeof(value));
}

void patch_bytes(struct table_writer *writer, size_t offset, const void *bytes, size_t count)
{
    if (range_within(offset, count, writer->length))
        memcpy(writer->buffer + offset, bytes, count);
}

void patch_checksum(struct table_writer *writer, size_t offset, size_t start, size_t count)
{
    uint8_t sum = 0;

    if (writer->full || !range_within(start, count, writer->length) || !range_within(offset, 1, writer->length))
        return;
    writer->buffer[offset] = 0;
    for (size_t i = 0; i < count; i++)
        sum = (uint8_t)(sum + writer->buffer[start + i]);
    writer->buffer[offset] = (uint8_t)-sum;
}
