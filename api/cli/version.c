#include <stdio.h>

#include "api/cli/commands.h"

int command_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("mayfly " MAYFLY_VERSION);
    return 0;
}
