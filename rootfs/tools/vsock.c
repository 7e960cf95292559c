/*
 * `vsock` in the default guest: sockets between guest and host for shell scripts.
 *
 *   vsock listen PORT [COMMAND [ARG...]]   each connection gets a COMMAND, whose stdin and stdout it is; without one,
 *                                          the first connection gets this process's
 *   vsock connect PORT [CID]               connects to the host (or CID); stdin goes there, what comes to stdout
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

enum { HOST_CID = 2, BUFFER_SIZE = 65536 };

static int fail(const char *what)
{
    fprintf(stderr, "vsock: %s: %s\n", what, strerror(errno));
    exit(1);
}

static unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value > 0xffffffff) {
        fprintf(stderr, "vsock: \"%s\" is no port and no CID\n", text);
        exit(2);
    }
    return (unsigned)value;
}

/* Passes a part on; false at the end of `from`. */
static bool copy(int from, int to)
{
    static char buffer[BUFFER_SIZE];
    ssize_t length = read(from, buffer, sizeof(buffer));

    for (ssize_t done = 0; done < length;) {
        ssize_t written = write(to, buffer + done, (size_t)(length - done));

        if (written < 0)
            return false;
        done += written;
    }
    return length > 0;
}

/* The end of our input ends our side; the end of the peer's output ends all. */
static int relay(int fd)
{
    struct pollfd wait[] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};

    for (;;) {
        if (poll(wait, 2, -1) < 0)
            continue;
        if (wait[1].revents != 0 && !copy(STDIN_FILENO, fd)) {
            shutdown(fd, SHUT_WR);
            wait[1].fd = -1;
        }
        if (wait[0].revents != 0 && !copy(fd, STDOUT_FILENO))
            return 0;
    }
}

static int serve(int listener, char **command)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            continue;
        if (command[0] == NULL)
            return relay(fd);
        if (fork() == 0) {
            signal(SIGCHLD, SIG_DFL);
            dup2(fd, STDIN_FILENO);
            dup2(fd, STDOUT_FILENO);
            close(fd);
            close(listener);
            execvp(command[0], command);
            fail(command[0]);
        }
        close(fd);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
    bool listens = argc >= 3 && strcmp(argv[1], "listen") == 0;
    int fd;

    if (!listens && (argc < 3 || argc > 4 || strcmp(argv[1], "connect") != 0)) {
        fputs("Usage: vsock listen PORT [COMMAND [ARG...]]\n       vsock connect PORT [CID]\n", stderr);
        return 2;
    }
    address.svm_port = number(argv[2]);
    fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail("socket");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* children leave no trace */
    if (!listens) {
        address.svm_cid = argc == 4 ? number(argv[3]) : HOST_CID;
        return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? relay(fd) : fail("connect");
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 128) != 0)
        return fail("listen");
    return serve(fd, argv + 3);
}
