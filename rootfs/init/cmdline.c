#include "cmdline.h"

#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

/*
 * Takes the next word from *text. Quotes protect spaces and are removed where the kernel removes
 * them: at the start of a word, or of the value after its first '='. Returns NULL at the end.
 */
static char *word_next(char **text)
{
    char *in = *text;
    char *out;
    char *word;
    bool quoted = false;
    bool at_value = true;
    bool value_seen = false;

    while (is_space(*in)) {
        in++;
    }
    if (*in == '\0') {
        return NULL;
    }
    word = out = in;
    bool stripped = false;
    for (; *in != '\0' && (quoted || !is_space(*in)); in++) {
        if (*in == '"') {
            quoted = !quoted;
            if (at_value) {
                stripped = true;
                at_value = false;
                continue;
            }
            if (stripped && !quoted && (in[1] == '\0' || is_space(in[1]))) {
                continue;
            }
        }
        at_value = *in == '=' && !value_seen && !stripped;
        value_seen = value_seen || *in == '=';
        *out++ = *in;
    }
    *text = *in == '\0' ? in : in + 1;
    *out = '\0';
    return word;
}

/* The text after `name` when `word` starts with it, else NULL. */
static const char *value_of(const char *word, const char *name)
{
    size_t length = strlen(name);

    return strncmp(word, name, length) == 0 ? word + length : NULL;
}

static void option_apply(struct cmdline *cmdline, const char *word)
{
    static const struct {
        const char *name;
        size_t offset;
    } values[] = {
        {"root=", offsetof(struct cmdline, root)},
        {"rootfstype=", offsetof(struct cmdline, root_type)},
        {"rootflags=", offsetof(struct cmdline, root_flags)},
        {"mayfly.net=", offsetof(struct cmdline, network)},
    };

    const char *mount = value_of(word, "mayfly.mount=");

    if (mount != NULL) {
        if (cmdline->mount_count < CMDLINE_MOUNTS_MAX) {
            cmdline->mounts[cmdline->mount_count++] = mount;
        }
        return;
    }
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        const char *value = value_of(word, values[i].name);

        if (value != NULL) {
            *(const char **)(void *)((char *)cmdline + values[i].offset) = *value ? value : NULL;
            return;
        }
    }
    if (strcmp(word, "rw") == 0) {
        cmdline->root_writable = true;
    } else if (strcmp(word, "ro") == 0) {
        cmdline->root_writable = false;
    } else if (strcmp(word, "mayfly.overlay") == 0) {
        cmdline->overlay = true;
    }
}

void cmdline_parse(struct cmdline *cmdline, char *text)
{
    char *word;

    *cmdline = (struct cmdline){0};
    while ((word = word_next(&text)) != NULL) {
        if (strcmp(word, "--") == 0) {
            break;
        }
        option_apply(cmdline, word);
    }
    while (cmdline->argc < CMDLINE_ARGUMENTS_MAX && (word = word_next(&text)) != NULL) {
        cmdline->argv[cmdline->argc++] = word;
    }
}
