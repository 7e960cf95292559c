#include "vmm/syscall_name.h"

#include "vmm/base/embed.h"

#include <string.h>

/* The names by number, each with a NUL, made by the build from the kernel's headers; empty where there is none. */
EMBED_FILE(names, SYSCALL_NAMES_PATH);

const char *syscall_name(int number)
{
    const char *name = (const char *)names;
    const char *end = (const char *)names_end;

    for (int i = 0; i < number && name < end; i++)
        name += strlen(name) + 1;
    return number < 0 || name >= end || *name == '\0' ? "unknown" : name;
}
