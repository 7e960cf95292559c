/* `mayfly connect`: from standard input and output to a port of a guest, by way of its vsock device's socket. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/cli/commands.h"
#include "api/cli/option_next.h"
#include "api/cli/pump.h"
#include "api/client/connect.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/error.h"

enum { WAIT_SECONDS_DEFAULT = 10, WAIT_SECONDS_MAX = 86400, RETRY_US = 20000 };

static const char help[] =
    "Usage: mayfly connect [OPTION...] SOCKET PORT\n"
    "\n"
    "Connects to PORT of the guest whose vsock device has SOCKET (mayfly run --vsock, PUT /vsock); passes standard\n"
    "input on to it, and what it says to standard output. Ends when the guest has closed the connection.\n"
    "\n"
    "Options:\n"
    "  --wait SECONDS  how long to wait until the guest listens there (default 10)\n"
    "  -h, --help      print this text\n";

struct connect_options {
    uint64_t wait_seconds;
    const char *path;
    uint32_t port;
    bool help;
};

static bool parse_number(const char *text, uint64_t maximum, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *value <= maximum;
}

static struct error *parse(struct connect_options *options, int argc, char **argv)
{
    static const struct option long_options[] = {
        {"wait", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct error *error = NULL;
    uint64_t port = 0;

    *options = (struct connect_options){.wait_seconds = WAIT_SECONDS_DEFAULT};
    opterr = 0;
    for (;;) {
        int option = option_next("mayfly connect", argc, argv, "+:h", long_options, &error);

        if (error != NULL)
            return error;
        if (option == -1)
            break;
        if (option == 'w' && !parse_number(optarg, WAIT_SECONDS_MAX, &options->wait_seconds))
            return error_new(ERROR_INPUT, "--wait \"%s\": expected seconds, at most %d", optarg, WAIT_SECONDS_MAX);
        options->help |= option == 'h';
    }
    if (options->help)
        return NULL;
    if (argc - optind != 2)
        return error_new(ERROR_INPUT, "expected a socket and a port; see mayfly connect --help");
    if (!parse_number(argv[optind + 1], UINT32_MAX, &port))
        return error_new(ERROR_INPUT, "port \"%s\": expected 0 to %u", argv[optind + 1], UINT32_MAX);
    options->path = argv[optind];
    options->port = (uint32_t)port;
    return NULL;
}

enum answer { AGREES, REFUSES, SILENT, SOMEBODY_ELSE };

/* Reads the answer to CONNECT, "OK" and the guest's port, and no byte of what follows it. */
static enum answer read_answer(int fd, uint64_t deadline_us)
{
    static const char agreement[] = "OK ";
    char byte = '\0';

    for (size_t at = 0; byte != '\n';) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        uint64_t now = clock_monotonic_us();

        if (now >= deadline_us)
            return SILENT;
        if (poll(&wait, 1, (int)((deadline_us - now) / 1000 + 1)) == 0)
            continue;
        if (recv(fd, &byte, 1, 0) <= 0)
            return REFUSES;
        if (at < strlen(agreement) && byte != agreement[at++])
            return SOMEBODY_ELSE;
    }
    return AGREES;
}

/* Tries until the guest agrees. */
static struct error *reach(const struct connect_options *options, int *fd)
{
    uint64_t deadline_us = clock_monotonic_us() + options->wait_seconds * 1000000;
    char line[32];
    int length = snprintf(line, sizeof(line), "CONNECT %u\n", options->port);

    for (;;) {
        cleanup_fd int made = -1;
        struct error *error = socket_connect_when_ready(options->path, -1, deadline_us, &made);
        enum answer answer = REFUSES;

        if (error != NULL)
            return error;
        if (send(made, line, (size_t)length, MSG_NOSIGNAL) == length)
            answer = read_answer(made, deadline_us);
        if (answer == AGREES) {
            *fd = take_fd(&made);
            return NULL;
        }
        if (answer == SOMEBODY_ELSE)
            return error_new(ERROR_INPUT, "%s: does not answer as a guest's socket, expected that of a vsock device",
                             options->path);
        if (answer == SILENT || clock_monotonic_us() + RETRY_US > deadline_us)
            return error_new(ERROR_HOST, "port %u: the guest %s", options->port,
                             answer == SILENT ? "does not answer" : "does not listen there");
        nanosleep(&(struct timespec){.tv_nsec = RETRY_US * 1000}, NULL);
    }
}

/* The connection's end ends this; that of the input is passed on. */
static int relay(int fd)
{
    struct pump to_guest, from_guest;
    bool told_end = false;

    pump_init(&to_guest, STDIN_FILENO, fd);
    pump_init(&from_guest, fd, STDOUT_FILENO);
    while (!pump_done(&from_guest)) {
        struct pollfd wait[4];

        if (pump_done(&to_guest) && !told_end) {
            told_end = true;
            shutdown(fd, SHUT_WR);
        }
        pump_poll(&to_guest, wait);
        pump_poll(&from_guest, wait + 2);
        if (poll(wait, 4, -1) < 0)
            continue;
        pump_run(&to_guest, wait);
        pump_run(&from_guest, wait + 2);
    }
    int code = from_guest.error;
    pump_free(&to_guest);
    pump_free(&from_guest);
    return code;
}

static struct error *connect_and_relay(const struct connect_options *options)
{
    cleanup_fd int fd = -1;
    struct error *error = reach(options, &fd);

    if (error != NULL)
        return error;

    int code = relay(fd);
    return code != 0 ? error_errno(code, "standard output") : NULL;
}

int command_connect(int argc, char **argv)
{
    struct connect_options options;
    cleanup_error struct error *error = parse(&options, argc, argv);

    if (error == NULL && options.help) {
        fputs(help, stdout);
        return 0;
    }
    if (error == NULL)
        error = connect_and_relay(&options);
    if (error == NULL)
        return 0;
    fprintf(stderr, "mayfly: %s\n", error->message);
    return EXIT_MAYFLY_FAILED;
}
