/*
 * api_request SOCKET METHOD PATH [JSON]: one request to a VMM's API, as curl would send it; the emulated host has no
 * curl. Prints the body; exits 0 for an answer of 2xx, 1 for another, 2 when there is none.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_MAX = 65536 };

static void fail(const char *what)
{
    fprintf(stderr, "api_request: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
        fail("socket");
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail(path);
    return fd;
}

int main(int count, char **arguments)
{
    static char answer[ANSWER_MAX + 1];
    size_t length = 0;
    ssize_t got;

    if (count != 4 && count != 5) {
        fprintf(stderr, "usage: api_request SOCKET METHOD PATH [JSON]\n");
        return 2;
    }
    const char *json = count == 5 ? arguments[4] : "";
    int fd = dial(arguments[1]);
    dprintf(fd, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", arguments[2],
            arguments[3], strlen(json), json);
    while (length < ANSWER_MAX && (got = read(fd, answer + length, ANSWER_MAX - length)) > 0)
        length += (size_t)got;

    char *body = strstr(answer, "\r\n\r\n");
    if (strncmp(answer, "HTTP/1.1 ", 9) != 0 || body == NULL) {
        errno = EPROTO;
        fail("answer");
    }
    printf("%s\n", body + 4);
    return answer[9] == '2' ? 0 : 1;
}
