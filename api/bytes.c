#include "api/bytes.h"

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CAPACITY_MIN = 256, READ_SIZE = 4096 };

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

struct error *bytes_read_file(struct bytes *bytes, const char *path, size_t limit)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char part[READ_SIZE];
    ssize_t count;

    if (fd < 0)
        return error_errno(errno, "cannot open it");
    while ((count = read(fd, part, sizeof(part))) != 0) {
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_errno(errno, "cannot read it");
        if (bytes->length + (size_t)count > limit)
            return error_new(ERROR_INPUT, "it has more than %zu bytes, expected fewer", limit);
        if (!bytes_append(bytes, part, (size_t)count))
            return error_new(ERROR_INTERNAL, "out of memory");
    }
    return NULL;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}
