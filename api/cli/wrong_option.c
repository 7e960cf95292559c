#include "api/cli/wrong_option.h"

#include <getopt.h>
#include <stdbool.h>
#include <string.h>

/* A dash and letters, one of them what getopt did not know. */
static bool has_letter(const char *word)
{
    return word != NULL && word[0] == '-' && word[1] != '-' && strchr(word + 1, optopt) != NULL;
}

struct error *wrong_option(const char *command, int option, char *const *argv)
{
    const char *word = argv[optind - 1];

    if (option == ':')
        return error_new(ERROR_INPUT, "%s: expected a value", word);
    if (optopt == 0)
        return error_new(ERROR_INPUT, "%s: no such option; see %s --help", word, command);
    /* Of letters like -it getopt has not taken the last: the word before them is innocent. */
    if (has_letter(word) || has_letter(argv[optind]))
        return error_new(ERROR_INPUT, "-%c: no such option; see %s --help", optopt, command);
    return error_new(ERROR_INPUT, "%s: this option takes no value; see %s --help", word, command);
}
