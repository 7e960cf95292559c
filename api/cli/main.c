/* `mayfly`: runs commands in microVMs. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/cli/commands.h"
#include "vmm/base/cleanup.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", command_run, "run a command in a new microVM"},
    {"connect", command_connect, "reach a port of a guest that has a vsock device"},
    {"doctor", command_doctor, "tell whether this host is fit to run microVMs, and what mends it"},
    {"gc", command_gc, "remove what microVMs that died left on the host"},
    {"version", command_version, "print the version"},
};

static void print_help(FILE *to)
{
    fputs("Usage: mayfly COMMAND [OPTION...]\n\nCommands:\n", to);
    for (size_t i = 0; i < array_length(commands); i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("  help       print this text\n\n\"mayfly COMMAND --help\" says more about each.\n", to);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < array_length(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0)
        return command_version(argc, argv);
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (argc > 1)
        fprintf(stderr, "mayfly: unknown command \"%s\"\n", name);
    print_help(stderr);
    return EXIT_MAYFLY_FAILED;
}
