#include "api/cli/tail.h"

#include <stdio.h>

void tail_add(struct tail *tail, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        tail->bytes[tail->total++ % TAIL_SIZE] = bytes[i];
}

static char byte_at(const struct tail *tail, uint64_t position)
{
    return tail->bytes[position % TAIL_SIZE];
}

/* Where the last `lines` lines begin. */
static uint64_t first_position(const struct tail *tail, size_t lines)
{
    uint64_t oldest = tail->total > TAIL_SIZE ? tail->total - TAIL_SIZE : 0;
    uint64_t position = tail->total;
    size_t found = 0;

    while (position > oldest) {
        if (byte_at(tail, position - 1) == '\n' && position != tail->total && ++found == lines)
            break;
        position--;
    }
    return position;
}

void tail_show(const struct tail *tail, int fd, const char *prefix, size_t lines)
{
    char line[256];
    size_t length = 0;

    for (uint64_t at = first_position(tail, lines); at < tail->total; at++) {
        char byte = byte_at(tail, at);

        if (byte == '\r')
            continue;
        if (byte != '\n')
            line[length++] = ((unsigned char)byte < 0x20 && byte != '\t') || byte == 0x7f ? '?' : byte;
        if (byte == '\n' || length == sizeof(line)) {
            dprintf(fd, "%s%.*s\n", prefix, (int)length, line);
            length = 0;
        }
    }
    if (length > 0)
        dprintf(fd, "%s%.*s\n", prefix, (int)length, line);
}
