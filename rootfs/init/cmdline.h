/*
 * What the kernel command line asks of init.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Linux on x86 takes 2,048 bytes; every word after "--" needs two of them. */
#define CMDLINE_MAX 2048
#define CMDLINE_ARGUMENTS_MAX (CMDLINE_MAX / 2)

/* More are not taken. */
#define CMDLINE_MOUNTS_MAX 8

struct cmdline {
    const char *root;                       /* root=: /dev/... or PARTUUID=...; NULL: stay in the initramfs */
    const char *root_type;                  /* rootfstype=; NULL: look at the superblock */
    const char *root_flags;                 /* rootflags=, as they go to mount(2); NULL: none */
    bool root_writable;                     /* the last of ro and rw; ro when neither is given, as in the kernel */
    bool overlay;                           /* mayfly.overlay: a tmpfs over the root takes the writes */
    const char *mounts[CMDLINE_MOUNTS_MAX]; /* mayfly.mount=TAG:ro:PATH or TAG:rw:PATH: what stands behind the '=' */
    size_t mount_count;
    const char *network;                   /* mayfly.net=: what stands behind the '='; NULL: none */
    size_t argc;                           /* words after "--" */
    char *argv[CMDLINE_ARGUMENTS_MAX + 1]; /* NULL-terminated */
};

/*
 * Reads `text`, which must be NUL-terminated, into `cmdline`, which then points into it: words are
 * unquoted in place as the kernel does it ("a b", name="a b"; a quote that is not closed ends with
 * the line). Words that are not init's are skipped; the last of several root= counts.
 */
void cmdline_parse(struct cmdline *cmdline, char *text);
