/*
 * The rule language. A line is one of
 *
 *   filter NAME                     begins a filter; what follows is what it allows
 *   include NAME                    all rules of an earlier filter
 *   SYSCALL                         any use of the system call
 *   SYSCALL argN OP VALUE ...       only when every condition holds; OP is == != < <= > >=,
 *                                   or "& MASK ==" for some bits
 *   # text                          a comment, also behind a rule
 *
 * VALUE and MASK are numbers or names of constants (constants.c), joined by '|'. Several lines for one system call
 * allow what any of them allows. Whatever is not allowed gets the action of the compiler's command line.
 */
#pragma once

#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { RULE_CONDITIONS_MAX = 6, FILTER_NAME_SIZE = 24 };

struct rule {
    int syscall;
    unsigned condition_count;
    struct scmp_arg_cmp conditions[RULE_CONDITIONS_MAX];
};

struct filter {
    char name[FILTER_NAME_SIZE];
    struct rule *rules;
    size_t count;
    bool borrowed; /* there to be included, not written */
};

struct filter_set {
    struct filter *filters;
    size_t count;
};

/* Reads `file` (called `name` in messages) to its end. False after a message "name:line: ..." on stderr for each wrong
 * line. */
bool rules_read(FILE *file, const char *name, struct filter_set *set);

/* Prints the rules that are not borrowed as they were understood, a line each: filter, system call, its number,
 * conditions in hexadecimal. */
void rules_print(const struct filter_set *set, FILE *to);

/* The value of a constant; false when there is none of that name. */
bool constant_find(const char *name, uint64_t *value);
