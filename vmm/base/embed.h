/* Files that become part of the binary. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Defines `name` and `name_end` around the bytes of the file at `path`, read when this is compiled. File scope. */
#define EMBED_FILE(name, path)                                                                                         \
    __asm__(".section .rodata\n"                                                                                       \
            ".balign 8\n"                                                                                              \
            ".type " #name ", @object\n" #name ":\n"                                                                   \
            ".incbin \"" path "\"\n" #name "_end:\n"                                                                   \
            ".byte 0\n"                                                                                                \
            ".previous\n");                                                                                            \
    extern const uint8_t name[];                                                                                       \
    extern const uint8_t name##_end[]
