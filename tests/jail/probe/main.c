/*
 * Runs in a jail in place of the VMM. The last argument says what to do: report what it sees, or try to get out
 * (probe.h).
 */
#include "tests/jail/probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static int count;
static char **words;

/* What a VMM needs. */

static int attempt_kvm(void)
{
    return stopped(open("/dev/kvm", O_RDWR));
}

static int attempt_tun(void)
{
    return stopped(open("/dev/net/tun", O_RDWR));
}

static int attempt_urandom(void)
{
    return stopped(open("/dev/urandom", O_RDONLY));
}

static int attempt_listen(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/x.socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0)
        return errno;
    return stopped(bind(fd, (struct sockaddr *)&address, sizeof(address)));
}

/* What it was given: arguments, environment, ids, descriptors. */
static int report(void)
{
    for (int i = 0; i < count; i++)
        printf("argument %s\n", words[i]);
    for (char **variable = environ; *variable != NULL; variable++)
        printf("environment %s\n", *variable);
    printf("uid %u %u gid %u %u groups %d\n", getuid(), geteuid(), getgid(), getegid(), getgroups(0, NULL));
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("descriptor %d\n", fd);
    printf("umask %04o\n", umask(077));
    printf("pid %d session %d\n", getpid(), getsid(0));
    for (int resource = 0; resource < 16; resource++) {
        struct rlimit limit;

        if (getrlimit(RESOURCE(resource), &limit) == 0)
            printf("limit %d %lld %lld\n", resource, (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    fflush(stdout);
    return 0;
}

/* Prints the file that the word before names, and whether it may be written. */
static int show(void)
{
    char text[4096];
    int fd = open(words[count - 2], O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text));

    if (got < 0)
        return errno;
    printf("%.*s%s\n", (int)got, text, open(words[count - 2], O_WRONLY) < 0 ? "read-only" : "writable");
    return 0;
}

/* Prints the number of the device that the word before names. */
static int number(void)
{
    struct stat status;
    int fd = open(words[count - 2], O_RDWR);

    if (fd < 0 || fstat(fd, &status) < 0)
        return errno;
    printf("number %llx\n", (unsigned long long)status.st_rdev);
    fflush(stdout);
    return 0;
}

/* Exits with the code that the argument before says. */
static int leave(void)
{
    return atoi(words[count - 2]);
}

static int die(void)
{
    return stopped(kill(getpid(), SIGKILL));
}

/* Says so and waits until stdin ends, or for a signal. */
static int wait_for_end(void)
{
    char byte;

    write(1, "ready\n", 6);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}

static const struct command others[] = {
    {"kvm", attempt_kvm},       {"tun", attempt_tun}, {"urandom", attempt_urandom},
    {"listen", attempt_listen}, {"report", report},   {"show", show},
    {"number", number},         {"leave", leave},     {"die", die},
    {"wait", wait_for_end},     {NULL, NULL},
};

int main(int argc, char *argv[])
{
    static const struct command *const groups[] = {attempts_on_files,
                                                   attempts_on_processes,
                                                   attempts_on_the_network,
                                                   attempts_by_ring,
                                                   attempts_on_rights,
                                                   attempts_on_the_kernel,
                                                   others};

    count = argc;
    words = argv;
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        for (const struct command *command = groups[i]; command->name != NULL; command++)
            if (strcmp(command->name, argv[argc - 1]) == 0)
                return command->run();
    fprintf(stderr, "probe: no command \"%s\"\n", argv[argc - 1]);
    return 255;
}
