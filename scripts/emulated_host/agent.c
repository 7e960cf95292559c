/*
 * Process 1 of the emulated host: runs the commands that the broker sends over one virtio-serial port, several at a
 * time, and sends back what they print and how they end. protocol.py describes the frames and the flow control.
 *
 * One thread, one poll loop, nothing blocks. A command is a stream: a process group of its own with up to three pipes.
 * It is over when its first process has ended; what that had written by then is still read and sent, but nothing
 * waits for background processes that keep the pipes open.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT_NAME "mayfly.testhost"
#define PAYLOAD_MAX (64u << 10)
#define WINDOW (256u << 10)
#define STREAMS_MAX 64

enum frame_type {
    FRAME_OPEN = 1,
    FRAME_INPUT = 2,
    FRAME_INPUT_END = 3,
    FRAME_SIGNAL = 4,
    FRAME_CLOSE = 5,
    FRAME_CREDIT = 6,
    FRAME_HELLO = 16,
    FRAME_STDOUT = 17,
    FRAME_STDERR = 18,
    FRAME_EXITED = 19,
};

enum { OPEN_STDIN = 1 };
enum { EXIT_CODE = 0, EXIT_SIGNAL = 1 };

struct header {
    uint32_t stream;
    uint32_t type;
    uint32_t length;
} __attribute__((packed));

struct stream {
    uint32_t id;
    pid_t pid; /* 0: this slot is free */
    int in;    /* pipe ends, -1 when closed */
    int out;
    int err;
    uint8_t *input; /* WINDOW bytes, allocated when the first input comes; filled from 0 to input_length */
    size_t input_length;
    bool input_ended;
    uint32_t credit; /* bytes of output that the client will take */
    bool exited;
    int status;
    uint64_t start_ns;
    uint64_t end_ns;
};

static struct stream streams[STREAMS_MAX];

/* To the port: frames are appended at output_end, and written from output_start. */
static uint8_t output[8 * PAYLOAD_MAX];
static size_t output_start;
static size_t output_end;

static void die(const char *what)
{
    fprintf(stderr, "testhost-agent: %s: %s\n", what, strerror(errno));
    sync();
    exit(1); /* process 1: the kernel panics, and QEMU ends */
}

static uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static size_t output_room(void)
{
    return sizeof(output) - output_end;
}

/* The caller has made sure of the room. */
static void output_frame(uint32_t stream, enum frame_type type, const void *payload, size_t length)
{
    struct header header = {stream, type, (uint32_t)length};

    memcpy(output + output_end, &header, sizeof(header));
    memcpy(output + output_end + sizeof(header), payload, length);
    output_end += sizeof(header) + length;
}

static void output_flush(int port)
{
    while (output_start < output_end) {
        ssize_t n = write(port, output + output_start, output_end - output_start);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0)
            die("write to the port");
        output_start += (size_t)n;
    }
    memmove(output, output + output_start, output_end - output_start);
    output_end -= output_start;
    output_start = 0;
}

static struct stream *stream_find(uint32_t id)
{
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        if (streams[i].pid != 0 && streams[i].id == id)
            return &streams[i];
    }
    return NULL;
}

static void close_pipe(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void stream_kill(struct stream *stream, int signo)
{
    /* Once reaped, the number may be another's; but a group that still has members keeps it. */
    kill(-stream->pid, signo);
}

static void stream_free(struct stream *stream)
{
    close_pipe(&stream->in);
    close_pipe(&stream->out);
    close_pipe(&stream->err);
    free(stream->input);
    *stream = (struct stream){.in = -1, .out = -1, .err = -1};
}

/* In the child, until exec. */
static void command_exec(char **argv, char **envp, const char *cwd, int in, int out, int err)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (in < 0)
        in = open("/dev/null", O_RDONLY);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    if (chdir(cwd) != 0) {
        fprintf(stderr, "testhost: cannot change to %s: %s\n", cwd, strerror(errno));
        _exit(126);
    }
    environ = envp;
    execvp(argv[0], argv);
    fprintf(stderr, "testhost: cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

static bool pipe_open(int *mine, int *theirs, bool mine_reads)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    *mine = ends[mine_reads ? 0 : 1];
    *theirs = ends[mine_reads ? 1 : 0];
    fcntl(*mine, F_SETFL, O_NONBLOCK);
    return true;
}

/* Cuts `count` strings off the payload; false when it holds fewer. */
static bool strings_take(char **cursor, const char *end, char **strings, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char *nul = memchr(*cursor, 0, (size_t)(end - *cursor));

        if (nul == NULL)
            return false;
        strings[i] = *cursor;
        *cursor = nul + 1;
    }
    strings[count] = NULL;
    return true;
}

static void command_start(uint32_t id, char *payload, size_t length)
{
    static char *argv[PAYLOAD_MAX];
    static char *envp[PAYLOAD_MAX];
    char *cwd[2];
    uint32_t counts[3]; /* flags, argc, envc */
    struct stream *stream = NULL;
    int in = -1, out = -1, err = -1;

    memcpy(counts, payload, sizeof(counts));
    char *cursor = payload + sizeof(counts);
    const char *end = payload + length;

    for (size_t i = 0; i < STREAMS_MAX && stream == NULL; i++) {
        if (streams[i].pid == 0)
            stream = &streams[i];
    }
    if (stream == NULL || length < sizeof(counts) || counts[1] == 0 || counts[1] >= PAYLOAD_MAX ||
        counts[2] >= PAYLOAD_MAX || !strings_take(&cursor, end, cwd, 1) ||
        !strings_take(&cursor, end, argv, counts[1]) || !strings_take(&cursor, end, envp, counts[2])) {
        struct {
            uint32_t kind, code;
            uint64_t ns;
        } refused = {EXIT_CODE, 125, 0};

        output_frame(id, FRAME_EXITED, &refused, sizeof(refused));
        return;
    }

    *stream = (struct stream){.id = id, .in = -1, .out = -1, .err = -1, .credit = WINDOW};
    if (((counts[0] & OPEN_STDIN) && !pipe_open(&stream->in, &in, false)) || !pipe_open(&stream->out, &out, true) ||
        !pipe_open(&stream->err, &err, true))
        die("pipe");
    stream->start_ns = now_ns();
    stream->pid = fork();
    if (stream->pid < 0)
        die("fork");
    if (stream->pid == 0)
        command_exec(argv, envp, cwd[0], in, out, err);
    close_pipe(&in);
    close_pipe(&out);
    close_pipe(&err);
}

/* Hands waiting input to the command, and acknowledges what it took. */
static void stream_feed(struct stream *stream)
{
    while (stream->in >= 0 && stream->input_length > 0 && output_room() >= PAYLOAD_MAX) {
        ssize_t n = write(stream->in, stream->input, stream->input_length);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            /* Nobody reads it any more: swallow the rest, so that the client need not care. */
            close_pipe(&stream->in);
            break;
        }
        uint32_t taken = (uint32_t)n;

        memmove(stream->input, stream->input + n, stream->input_length - (size_t)n);
        stream->input_length -= (size_t)n;
        output_frame(stream->id, FRAME_CREDIT, &taken, sizeof(taken));
    }
    if (stream->in < 0 && stream->input_length > 0) {
        uint32_t taken = (uint32_t)stream->input_length;

        stream->input_length = 0;
        output_frame(stream->id, FRAME_CREDIT, &taken, sizeof(taken));
    }
    if (stream->input_ended && stream->input_length == 0)
        close_pipe(&stream->in);
}

static void stream_input(struct stream *stream, const uint8_t *data, size_t length)
{
    if (stream->input == NULL)
        stream->input = malloc(WINDOW);
    if (stream->input == NULL || length > WINDOW - stream->input_length)
        die("input beyond the window");
    memcpy(stream->input + stream->input_length, data, length);
    stream->input_length += length;
    stream_feed(stream);
}

static void frame_handle(const struct header *header, uint8_t *payload)
{
    struct stream *stream = stream_find(header->stream);
    uint32_t number = 0;

    if (header->type == FRAME_OPEN) {
        command_start(header->stream, (char *)payload, header->length);
        return;
    }
    if (stream == NULL)
        return; /* it has ended meanwhile */
    if (header->length >= sizeof(number))
        memcpy(&number, payload, sizeof(number));
    switch (header->type) {
    case FRAME_INPUT:
        stream_input(stream, payload, header->length);
        break;
    case FRAME_INPUT_END:
        stream->input_ended = true;
        stream_feed(stream);
        break;
    case FRAME_SIGNAL:
        stream_kill(stream, (int)number);
        break;
    case FRAME_CLOSE:
        stream_kill(stream, SIGKILL);
        stream->credit = 0;
        close_pipe(&stream->out);
        close_pipe(&stream->err);
        break;
    case FRAME_CREDIT:
        stream->credit += number;
        break;
    }
}

/* Reads frames as long as there are any, and room for what they make us answer. */
static void port_read(int port)
{
    static uint8_t buffer[sizeof(struct header) + PAYLOAD_MAX];
    static size_t filled;

    while (output_room() >= 2 * PAYLOAD_MAX) {
        struct header header;
        size_t want = sizeof(header);

        if (filled >= sizeof(header)) {
            memcpy(&header, buffer, sizeof(header));
            if (header.length > PAYLOAD_MAX)
                die("a frame that is too long");
            want += header.length;
        }
        if (filled == want) {
            filled = 0;
            frame_handle(&header, buffer + sizeof(header));
            continue;
        }
        ssize_t n = read(port, buffer + filled, want - filled);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0)
            die("read from the port");
        filled += (size_t)n;
    }
}

/* Sends what one pipe of the command holds. A command that has exited writes no more: empty then means done. */
static void stream_drain(struct stream *stream, int *fd, enum frame_type type)
{
    static uint8_t data[PAYLOAD_MAX];

    while (*fd >= 0 && stream->credit > 0 && output_room() >= sizeof(struct header) + 2 * PAYLOAD_MAX) {
        size_t want = stream->credit < sizeof(data) ? stream->credit : sizeof(data);
        ssize_t n = read(*fd, data, want);

        if (n < 0 && errno == EAGAIN && !stream->exited)
            return;
        if (n <= 0) {
            close_pipe(fd);
            return;
        }
        stream->credit -= (uint32_t)n;
        output_frame(stream->id, type, data, (size_t)n);
    }
}

static void stream_advance(struct stream *stream)
{
    stream_feed(stream);
    stream_drain(stream, &stream->out, FRAME_STDOUT);
    stream_drain(stream, &stream->err, FRAME_STDERR);
    if (stream->exited && stream->out < 0 && stream->err < 0 && output_room() >= PAYLOAD_MAX) {
        struct {
            uint32_t kind, code;
            uint64_t ns;
        } exited = {.ns = stream->end_ns - stream->start_ns};

        exited.kind = WIFSIGNALED(stream->status) ? EXIT_SIGNAL : EXIT_CODE;
        exited.code = (uint32_t)(WIFSIGNALED(stream->status) ? WTERMSIG(stream->status) : WEXITSTATUS(stream->status));
        output_frame(stream->id, FRAME_EXITED, &exited, sizeof(exited));
        stream_free(stream);
    }
}

static void children_reap(int signals)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(signals, &info, sizeof(info)) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < STREAMS_MAX; i++) {
            if (streams[i].pid == pid && !streams[i].exited) {
                streams[i].exited = true;
                streams[i].status = status;
                streams[i].end_ns = now_ns();
            }
        }
    }
}

static int port_open(void)
{
    char path[512], name[64];
    struct dirent *entry;
    DIR *ports = opendir("/sys/class/virtio-ports");

    while (ports != NULL && (entry = readdir(ports)) != NULL) {
        snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
        FILE *file = fopen(path, "re");

        if (file == NULL)
            continue;
        bool named = fscanf(file, "%63s", name) == 1 && strcmp(name, PORT_NAME) == 0;

        fclose(file);
        if (!named)
            continue;
        snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
        closedir(ports);
        return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    errno = ENODEV;
    return -1;
}

static int signals_open(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* What to wait for, given the room and the credit there is. */
static nfds_t poll_collect(struct pollfd *fds, int port, int signals)
{
    bool room = output_room() >= sizeof(struct header) + 2 * PAYLOAD_MAX;
    nfds_t count = 0;

    fds[count++] = (struct pollfd){.fd = signals, .events = POLLIN};
    fds[count++] = (struct pollfd){.fd = port, .events = (short)((room ? POLLIN : 0) | (output_end > 0 ? POLLOUT : 0))};
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        const struct stream *stream = &streams[i];

        if (stream->pid == 0 || !room)
            continue;
        if (stream->in >= 0 && stream->input_length > 0)
            fds[count++] = (struct pollfd){.fd = stream->in, .events = POLLOUT};
        if (stream->credit == 0)
            continue;
        if (stream->out >= 0)
            fds[count++] = (struct pollfd){.fd = stream->out, .events = POLLIN};
        if (stream->err >= 0)
            fds[count++] = (struct pollfd){.fd = stream->err, .events = POLLIN};
    }
    return count;
}

int main(void)
{
    static struct pollfd fds[2 + 3 * STREAMS_MAX];
    struct utsname host;

    for (size_t i = 0; i < STREAMS_MAX; i++)
        streams[i] = (struct stream){.in = -1, .out = -1, .err = -1};
    int signals = signals_open();
    int port = port_open();

    if (signals < 0 || port < 0)
        die("open port " PORT_NAME);
    uname(&host);
    output_frame(0, FRAME_HELLO, host.release, strlen(host.release));
    for (;;) {
        output_flush(port);
        if (poll(fds, poll_collect(fds, port, signals), -1) < 0 && errno != EINTR)
            die("poll");
        children_reap(signals);
        port_read(port);
        for (size_t i = 0; i < STREAMS_MAX; i++) {
            if (streams[i].pid != 0)
                stream_advance(&streams[i]);
        }
    }
}
