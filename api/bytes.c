#include "api/bytes.h"

#include "vmm/base/checked.h"

#include <stdlib.h>
#include <string.h>

enum { CAPACITY_MIN = 256 };

static bool reserve(struct bytes *bytes, size_t length)
{
    size_t needed, capacity = bytes->capacity < CAPACITY_MIN ? CAPACITY_MIN : bytes->capacity;

    if (!checked_add(bytes->length, length, &needed) || !checked_add(needed, 1, &needed))
        return false;
    while (capacity < needed)
        if (!checked_mul(capacity, 2, &capacity))
            return false;
    if (capacity == bytes->capacity)
        return true;

    char *data = realloc(bytes->data, capacity);
    if (data == NULL)
        return false;
    bytes->data = data;
    bytes->capacity = capacity;
    return true;
}

bool bytes_append(struct bytes *bytes, const char *data, size_t length)
{
    if (!reserve(bytes, length))
        return false;
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
    bytes->data[bytes->length] = '\0';
    return true;
}

void bytes_drop(struct bytes *bytes, size_t length)
{
    bytes->length -= length;
    if (bytes->length == 0)
        bytes_free(bytes);
    else
        memmove(bytes->data, bytes->data + length, bytes->length + 1);
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}
