#include "api/cli/option_next.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A dash and letters, one of them what getopt did not know. */
static bool has_letter(const char *word)
{
    return word != NULL && word[0] == '-' && word[1] != '-' && strchr(word + 1, optopt) != NULL;
}

/* What is wrong with what getopt_long has just returned ':' or '?' for. */
static struct error *wrong_option(const char *command, int option, char *const *argv)
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

/* The one option that getopt would take `word` for though it is not its whole name, or NULL. */
static const struct option *abbreviated(const char *word, const struct option *options)
{
    const struct option *found = NULL;
    size_t length;

    if (word == NULL || strncmp(word, "--", 2) != 0)
        return NULL;
    word += 2;
    length = strcspn(word, "=");
    for (const struct option *option = options; length > 0 && option->name != NULL; option++) {
        if (strncmp(option->name, word, length) != 0)
            continue;
        if (found != NULL || option->name[length] == '\0')
            return NULL;
        found = option;
    }
    return found;
}

/* A script that abbreviates would change its meaning, or fail, the day another option begins like that. */
int option_next(const char *command, int argc, char *const *argv, const char *letters, const struct option *options,
                struct error **error)
{
    const char *word = argv[optind > 0 ? optind : 1];
    const struct option *meant = abbreviated(word, options);
    int code = getopt_long(argc, argv, letters, options, NULL);
    struct error *wrong = NULL;

    if (meant != NULL)
        wrong =
            error_new(ERROR_INPUT, "%.*s: no such option, expected --%s", (int)strcspn(word, "="), word, meant->name);
    else if (code == ':' || code == '?')
        wrong = wrong_option(command, code, argv);
    if (wrong == NULL)
        return code;
    if (*error == NULL)
        *error = wrong;
    else
        error_free(wrong);
    return '?';
}
