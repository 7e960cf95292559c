/* `mayfly`: runs commands in microVMs. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

/* `words` begin with the command's name. Returns false when there is none of that name. */
static bool run_command(int count, char **words, int *exit_code)
{
    for (size_t i = 0; i < array_length(commands); i++)
        if (strcmp(words[0], commands[i].name) == 0) {
            *exit_code = commands[i].run(count, words);
            return true;
        }
    return false;
}

static int dispatch(int argc, char **argv)
{
    char *name = argc > 1 ? argv[1] : NULL;
    bool help = name != NULL && (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0);
    int exit_code;

    if (name != NULL && run_command(argc - 1, argv + 1, &exit_code))
        return exit_code;
    if (name != NULL && strcmp(name, "--version") == 0)
        return command_version(argc - 1, argv + 1);
    if (help && argc > 2) {
        char *words[] = {name = argv[2], (char[]){"--help"}, NULL};

        if (run_command(2, words, &exit_code))
            return exit_code;
    } else if (help) {
        print_help(stdout);
        return 0;
    }
    if (name != NULL)
        fprintf(stderr, "mayfly: unknown command \"%s\"\n", name);
    print_help(stderr);
    return EXIT_MAYFLY_FAILED;
}

/* What a script reads must not be cut off without a word, as by a full disk. */
int main(int argc, char **argv)
{
    int exit_code = dispatch(argc, argv);

    if (fflush(stdout) == 0 && !ferror(stdout))
        return exit_code;
    fprintf(stderr, "mayfly: cannot write to stdout: %s\n", strerror(errno));
    return EXIT_MAYFLY_FAILED;
}
