#include "vmm/arch/x86_64/boot_cmdline.h"

#include <stdio.h>
#include <string.h>

/* The word that starts at or after `at`, its length in `*length`; NULL at the end. Blanks within quotes do not count.
 */
static const char *next_word(const char *at, size_t *length)
{
    bool quoted = false;
    size_t end = 0;

    at += strspn(at, " \t\n");
    for (; at[end] != '\0' && (quoted || strchr(" \t\n", at[end]) == NULL); end++) {
        if (at[end] == '"')
            quoted = !quoted;
    }
    *length = end;
    return end == 0 ? NULL : at;
}

static bool word_is(const char *word, size_t length, const char *expected)
{
    return length == strlen(expected) && memcmp(word, expected, length) == 0;
}

/* The "--" that ends what is for the kernel, or the end of the string. */
static const char *kernel_part_end(const char *cmdline)
{
    size_t length;

    for (const char *word = next_word(cmdline, &length); word != NULL; word = next_word(word + length, &length)) {
        if (word_is(word, length, "--"))
            return word;
    }
    return cmdline + strlen(cmdline);
}

bool boot_cmdline_has(const char *cmdline, const char *expected)
{
    const char *end = kernel_part_end(cmdline);
    size_t length;

    for (const char *word = next_word(cmdline, &length); word != NULL && word < end;
         word = next_word(word + length, &length)) {
        if (word_is(word, length, expected))
            return true;
    }
    return false;
}

struct error *boot_cmdline_write(const char *cmdline, const struct arch_virtio_slot *slots, size_t slot_count, char *to,
                                 size_t max)
{
    const char *init_part = kernel_part_end(cmdline);
    size_t kernel_part = (size_t)(init_part - cmdline);
    int used = snprintf(to, max, "%.*s", (int)kernel_part, cmdline);
    size_t length = (size_t)used;

    for (size_t i = 0; i < slot_count; i++) {
        const char *space = length == 0 || (i == 0 && length <= max && cmdline[kernel_part - 1] == ' ') ? "" : " ";

        used = snprintf(to + (length < max ? length : max), length < max ? max - length : 0,
                        "%svirtio_mmio.device=4K@0x%llx:%u", space, (unsigned long long)slots[i].gpa, slots[i].gsi);
        length += (size_t)used;
    }
    used = snprintf(to + (length < max ? length : max), length < max ? max - length : 0, "%s%s",
                    slot_count > 0 && *init_part != '\0' ? " " : "", init_part);
    length += (size_t)used;
    if (length >= max)
        return error_new(ERROR_INPUT,
                         "boot_args: the command line is %zu bytes with its %zu devices, expected at most %zu", length,
                         slot_count, max - 1);
    return NULL;
}
