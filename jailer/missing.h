/* The walls that a reduced jail lacks: gathered while it is built, and told on stderr before the VMM starts. */
#pragma once

enum { MISSING_TEXT_MAX = 2048 };

struct missing {
    char text[MISSING_TEXT_MAX];
};

/* Adds a wall, printf-style. A NULL `missing` is fine: nothing is noted. */
void missing_add(struct missing *missing, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line on stderr, when there is anything to tell. */
void missing_print(const struct missing *missing);
