/*
 * Both ends of the vsock tests, in the guest and on the host: an echo server, and clients that check what comes back.
 *
 *   vsock_peer echo ADDRESS                  serves any number of connections until killed
 *   vsock_peer exchange ADDRESS COUNT BYTES  COUNT connections at once send BYTES each, end their input, get it back
 *   vsock_peer connect ADDRESS COUNT         one after the other: connect, a byte there and back, close
 *   vsock_peer sink ADDRESS                  as echo, but only reads
 *   vsock_peer send ADDRESS BYTES            sends BYTES to a sink, ends its input and waits for the end
 *   vsock_peer refused ADDRESS               succeeds when nobody takes the connection
 *
 * The clients print a line when they are done; with a last word "stay" they stay after that, for the bench.
 *
 * ADDRESS: vsock:CID:PORT, unix:PATH, or mux:PATH:PORT (connect to PATH, say CONNECT PORT, hear OK). In front of it,
 * "seq:" asks for messages in place of a stream; then BYTES go in messages of 1 to MESSAGE_MAX bytes, each of which
 * must come back as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

enum { CONNECTIONS_MAX = 1100, CHUNK = 65536, MESSAGE_MAX = 40000, PATIENCE_MS = 60000 };

struct address {
    bool messages;
    const char *mux_port; /* NULL: no greeting */
    socklen_t size;
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_vm vm;
    };
};

struct connection {
    int fd;
    unsigned seed;
    uint64_t sent, received;
    bool input_ended;
    uint8_t *kept; /* echo: read, not yet written */
    size_t kept_length, kept_done;
};

static struct connection connections[CONNECTIONS_MAX];
static struct pollfd polled[CONNECTIONS_MAX + 1];
static size_t connection_count;

static void fail(const char *what)
{
    fprintf(stderr, "vsock_peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void must(bool condition, const char *what)
{
    if (!condition)
        fail(what);
}

static void parse(struct address *address, char *text)
{
    char *port;

    memset(address, 0, sizeof(*address));
    address->messages = strncmp(text, "seq:", 4) == 0;
    text += address->messages ? 4 : 0;
    port = strrchr(text, ':') + 1;
    if (strncmp(text, "vsock:", 6) == 0) {
        address->vm.svm_family = AF_VSOCK;
        address->vm.svm_cid = (unsigned)strtoul(text + 6, NULL, 10);
        address->vm.svm_port = (unsigned)strtoul(port, NULL, 10);
        address->size = sizeof(address->vm);
        return;
    }
    address->local.sun_family = AF_UNIX;
    address->size = sizeof(address->local);
    if (strncmp(text, "mux:", 4) == 0) {
        address->mux_port = port;
        port[-1] = '\0';
        text--;
    }
    snprintf(address->local.sun_path, sizeof(address->local.sun_path), "%s", text + 5);
}

static int make_socket(const struct address *address)
{
    const struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    int fd = socket(address->any.sa_family, (address->messages ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0);

    must(fd >= 0, "socket");
    /* Two seconds otherwise, which an emulated host under load may need. */
    if (address->any.sa_family == AF_VSOCK)
        must(setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience)) == 0, "setsockopt");
    return fd;
}

/* A connected descriptor, or -1. */
static int try_connect(const struct address *address)
{
    char text[64];
    int fd = make_socket(address);
    size_t length = 0;

    if (connect(fd, &address->any, address->size) < 0) {
        close(fd);
        return -1;
    }
    if (address->mux_port == NULL)
        return fd;
    must(send(fd, text, (size_t)snprintf(text, sizeof(text), "CONNECT %s\n", address->mux_port), 0) > 0, "greeting");
    do {
        ssize_t got = recv(fd, text + length, address->messages ? sizeof(text) : 1, 0);

        if (got <= 0) {
            close(fd);
            return -1;
        }
        length += (size_t)got;
    } while (text[length - 1] != '\n');
    must(strncmp(text, "OK ", 3) == 0, "answer to the greeting");
    return fd;
}

static int must_connect(const struct address *address)
{
    int fd = try_connect(address);

    must(fd >= 0, "connect");
    return fd;
}

/*
 * Messages are sent blocking: Linux sends a part of one that the peer has not enough credit for, and then says EAGAIN
 * all the same.
 */
static struct connection *add(int fd, bool messages)
{
    struct connection *connection = &connections[connection_count++];

    must(connection_count <= CONNECTIONS_MAX, "too many connections");
    if (!messages)
        fcntl(fd, F_SETFL, O_NONBLOCK);
    *connection = (struct connection){.fd = fd, .seed = (unsigned)connection_count};
    return connection;
}

static void drop(size_t index)
{
    close(connections[index].fd);
    free(connections[index].kept);
    connections[index] = connections[--connection_count];
}

/* --- Echo --- */

/* False when the connection is over. */
static bool echo(struct connection *connection, short events)
{
    ssize_t length;

    if (connection->kept_length > 0) {
        length = send(connection->fd, connection->kept + connection->kept_done,
                      connection->kept_length - connection->kept_done, MSG_NOSIGNAL);
        if (length < 0)
            return errno == EAGAIN;
        connection->kept_done += (size_t)length;
        if (connection->kept_done < connection->kept_length)
            return true;
        connection->kept_length = connection->kept_done = 0;
    }
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0)
        return true;
    if (connection->kept == NULL)
        connection->kept = malloc(CHUNK);
    must(connection->kept != NULL, "memory");
    length = recv(connection->fd, connection->kept, CHUNK, 0);
    if (length < 0)
        return errno == EAGAIN;
    if (length == 0)
        return false;
    connection->kept_length = (size_t)length;
    return echo(connection, 0);
}

/* As echo, for a sink. */
static bool swallow(struct connection *connection)
{
    static uint8_t bytes[CHUNK];
    ssize_t length = recv(connection->fd, bytes, CHUNK, 0);

    return length > 0 || (length < 0 && errno == EAGAIN);
}

static void serve(const struct address *address, bool sink)
{
    int listener = make_socket(address);

    must(bind(listener, &address->any, address->size) == 0, "bind");
    must(listen(listener, 1024) == 0, "listen");
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        size_t count = connection_count;

        for (size_t i = 0; i < count; i++)
            polled[i] = (struct pollfd){connections[i].fd, connections[i].kept_length > 0 ? POLLOUT : POLLIN, 0};
        polled[count] = (struct pollfd){listener, POLLIN, 0};
        must(poll(polled, count + 1, -1) > 0, "poll");
        if (polled[count].revents != 0)
            add(accept(listener, NULL, NULL), address->messages);
        for (size_t i = count; i-- > 0;)
            if (polled[i].revents != 0 && !(sink ? swallow(&connections[i]) : echo(&connections[i], polled[i].revents)))
                drop(i);
    }
}

/* --- Exchange --- */

static uint8_t pattern(unsigned seed, uint64_t at)
{
    return (uint8_t)(at * 7 + at / 251 + seed);
}

/* Message boundaries follow from where a message begins. */
static size_t message_at(const struct connection *connection, uint64_t at, uint64_t total)
{
    uint64_t length = 1 + (at * 31 + connection->seed * 977) % MESSAGE_MAX;

    return (size_t)(length < total - at ? length : total - at);
}

static void send_some(struct connection *connection, bool messages, uint64_t total)
{
    static uint8_t bytes[CHUNK];
    size_t length = messages ? message_at(connection, connection->sent, total) : CHUNK;

    if (length > total - connection->sent)
        length = (size_t)(total - connection->sent);
    for (size_t i = 0; i < length; i++)
        bytes[i] = pattern(connection->seed, connection->sent + i);

    ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
    must(sent >= 0 || errno == EAGAIN, "send");
    if (sent > 0)
        connection->sent += (uint64_t)sent;
    if (connection->sent == total)
        must(shutdown(connection->fd, SHUT_WR) == 0, "shutdown");
}

/* False when all has come back, and the end. */
static bool receive_some(struct connection *connection, bool messages, uint64_t total)
{
    static uint8_t bytes[CHUNK];
    ssize_t length = recv(connection->fd, bytes, CHUNK, 0);

    if (length < 0 && errno == EAGAIN)
        return true;
    must(length >= 0, "recv");
    if (length == 0) {
        must(connection->received == total, "the end came too early");
        return false;
    }
    if (messages)
        must((size_t)length == message_at(connection, connection->received, total), "a message of another length");
    for (ssize_t i = 0; i < length; i++)
        must(bytes[i] == pattern(connection->seed, connection->received + (uint64_t)i), "other bytes came back");
    connection->received += (uint64_t)length;
    return true;
}

/* Each connection has a process of its own that sends, and waits while it cannot. */
static void send_apart(uint64_t total)
{
    for (size_t i = 0; i < connection_count; i++) {
        pid_t pid = fork();

        must(pid >= 0, "fork");
        if (pid == 0) {
            while (connections[i].sent < total)
                send_some(&connections[i], true, total);
            _exit(0);
        }
        connections[i].sent = total;
    }
}

static void exchange(const struct address *address, size_t count, uint64_t total)
{
    for (size_t i = 0; i < count; i++)
        add(must_connect(address), address->messages);
    if (address->messages)
        send_apart(total);
    while (connection_count > 0) {
        size_t now = connection_count;

        for (size_t i = 0; i < now; i++)
            polled[i] =
                (struct pollfd){connections[i].fd, (short)(POLLIN | (connections[i].sent < total ? POLLOUT : 0)), 0};
        must(poll(polled, now, PATIENCE_MS) > 0, "nothing moves");
        for (size_t i = now; i-- > 0;) {
            if ((polled[i].revents & POLLOUT) != 0)
                send_some(&connections[i], address->messages, total);
            if ((polled[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
                !receive_some(&connections[i], address->messages, total))
                drop(i);
        }
    }
    printf("%zu connections exchanged %llu bytes each\n", count, (unsigned long long)total);
}

static double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void send_all(const struct address *address, uint64_t total)
{
    static uint8_t bytes[CHUNK];
    int fd = must_connect(address);
    double from = now_seconds();

    for (uint64_t sent = 0; sent < total;) {
        ssize_t length = send(fd, bytes, total - sent < CHUNK ? (size_t)(total - sent) : CHUNK, MSG_NOSIGNAL);

        must(length > 0, "send");
        sent += (uint64_t)length;
    }
    must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    must(recv(fd, bytes, 1, 0) == 0, "recv");
    printf("%llu bytes in %.6f s\n", (unsigned long long)total, now_seconds() - from);
}

static void connect_many(const struct address *address, size_t count)
{
    double from = now_seconds();

    for (size_t i = 0; i < count; i++) {
        int fd = must_connect(address);
        char byte = 'x';

        must(send(fd, &byte, 1, MSG_NOSIGNAL) == 1, "send");
        must(recv(fd, &byte, 1, 0) == 1 && byte == 'x', "recv");
        close(fd);
    }
    printf("%zu connections in %.6f s\n", count, now_seconds() - from);
}

int main(int argc, char **argv)
{
    struct address address;
    bool stay = argc > 3 && strcmp(argv[argc - 1], "stay") == 0;

    argc -= stay;
    if (argc < 3)
        return 2;
    parse(&address, argv[2]);
    if (strcmp(argv[1], "echo") == 0)
        serve(&address, false);
    else if (strcmp(argv[1], "sink") == 0)
        serve(&address, true);
    else if (strcmp(argv[1], "send") == 0 && argc == 4)
        send_all(&address, strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[1], "exchange") == 0 && argc == 5)
        exchange(&address, strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    else if (strcmp(argv[1], "connect") == 0 && argc == 4)
        connect_many(&address, strtoul(argv[3], NULL, 10));
    else if (strcmp(argv[1], "refused") == 0)
        return try_connect(&address) >= 0;
    else
        return 2;
    fflush(stdout);
    if (stay)
        pause();
    return 0;
}
