/* Command lines of `mayfly run`. */
#pragma once

#include "tests/unit/harness.h"

#include "api/cli/talk.h"

enum { ARGUMENTS_MAX = 32 };

/* Parses a command line given as words; the words must outlive `options`. */
static inline struct error *parse(struct run_options *options, const char *const *words)
{
    static char *argv[ARGUMENTS_MAX];
    int argc = 0;

    argv[argc++] = (char *)"run";
    for (; *words != NULL; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    argv[argc] = NULL;
    return run_options_parse(options, argc, argv);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
