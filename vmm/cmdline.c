#include "vmm/cmdline.h"

#include "vmm/arch/arch.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/*
 * No driver for hardware that is not there, a reboot through the i8042, none of the keyboard's slow probing, and no
 * bounce buffers (64 MiB of a guest with more than 3 GiB) for devices that reach all memory.
 */
static const char default_boot_args[] =
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd swiotlb=noforce";

/* The first word of `text` that is `word`, or starts with it when that ends in '='; NULL when there is none. */
static const char *word_find(const char *text, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = text; (at = strstr(at, word)) != NULL; at++) {
        bool starts = at == text || at[-1] == ' ';
        bool ends = word[length - 1] == '=' || at[length] == ' ' || at[length] == '\0';

        if (starts && ends)
            return at;
    }
    return NULL;
}

struct text {
    char *start;
    size_t size, used;
    bool overflowed;
};

static void append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(struct text *text, const char *format, ...)
{
    size_t room = text->size - text->used;
    va_list args;

    va_start(args, format);
    int wanted = vsnprintf(text->start + text->used, room, format, args);
    va_end(args);
    if (wanted < 0 || (size_t)wanted >= room)
        text->overflowed = true;
    else
        text->used += (size_t)wanted;
}

static void append_root(struct text *text, const struct vm_config *config)
{
    const struct drive_config *root = &config->drives[0];

    if (config->pmem_count > 0 && config->pmem[0].root_device) {
        append(text, " root=/dev/pmem0 %s", config->pmem[0].read_only ? "ro" : "rw");
        return;
    }
    if (config->drive_count == 0 || !root->is_root_device)
        return;
    if (root->partuuid != NULL)
        append(text, " root=PARTUUID=%s", root->partuuid);
    else
        append(text, " root=/dev/vda");
    append(text, root->is_read_only ? " ro" : " rw");
}

struct error *cmdline_build(const struct vm_config *config, char *text, size_t size)
{
    const char *args = config->boot_source.boot_args != NULL ? config->boot_source.boot_args : default_boot_args;
    const char *init_args = word_find(args, "--");
    size_t kernel_length = init_args != NULL ? (size_t)(init_args - args) : strlen(args);
    const char *pci = word_find(args, "pci=");
    struct text line = {.start = text, .size = size};

    while (kernel_length > 0 && args[kernel_length - 1] == ' ')
        kernel_length--;
    append(&line, "%.*s", (int)kernel_length, args);
    if (pci == NULL || pci >= args + kernel_length)
        append(&line, "%spci=off", kernel_length > 0 ? " " : "");
    append_root(&line, config);
    if (init_args != NULL)
        append(&line, " %s", init_args);
    if (line.overflowed)
        return error_new(ERROR_INPUT, "boot_args: the kernel command line is longer than %zu bytes", size - 1);
    return NULL;
}

struct error *cmdline_check(const char *boot_args)
{
    size_t length = strlen(boot_args);

    if (length >= ARCH_CMDLINE_MAX)
        return error_new(ERROR_INPUT, "boot_args: %zu bytes, expected at most %d", length, ARCH_CMDLINE_MAX - 1);
    for (size_t i = 0; i < length; i++)
        if (boot_args[i] < ' ' || boot_args[i] > '~')
            return error_new(ERROR_INPUT, "boot_args: byte 0x%02x at offset %zu, expected printable ASCII",
                             (unsigned char)boot_args[i], i);
    return NULL;
}
