/* Keeps the last bytes of a stream: enough to show why a guest died, however much it said. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { TAIL_SIZE = 8192 };

struct tail {
    char bytes[TAIL_SIZE];
    uint64_t total; /* bytes that ever came */
};

void tail_add(struct tail *tail, const char *bytes, size_t length);
/*
 * Writes what is kept to `fd`, each line after `prefix`, control characters other than tab as '?', so that a guest
 * cannot drive the user's terminal. At most `lines` lines.
 */
void tail_show(const struct tail *tail, int fd, const char *prefix, size_t lines);
