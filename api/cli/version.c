#include <stdio.h>
#include <string.h>

#include "api/cli/commands.h"

int command_version(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") != 0 && strcmp(argv[1], "-h") != 0) {
        fprintf(stderr, "mayfly: \"%s\": mayfly version expects no further words\n", argv[1]);
        return EXIT_MAYFLY_FAILED;
    }
    puts(argc > 1 ? "Usage: mayfly version\n\nPrints the version." : "mayfly " MAYFLY_VERSION);
    return 0;
}
