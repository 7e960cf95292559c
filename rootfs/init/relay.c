#include "relay.h"

#include "clock.h"
#include "command.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Indices into struct relay's streams: those of the command's descriptors. */
enum {
    IN = STDIN_FILENO,
    OUT = STDOUT_FILENO,
    ERR = STDERR_FILENO,
    STREAMS,
};

struct relay {
    struct stream streams[STREAMS];
    int child_stdio[STREAMS]; /* the command's ends, open only until it runs */
    int child_events;         /* signalfd for SIGCHLD */
    int events;               /* epoll */
};

/*
 * Everything is watched edge-triggered. A port that the host has closed hangs up for ever, and one
 * that is full is not writable: with level triggering the first would spin and the second need
 * arming and disarming. The price is that every pump goes on until it blocks.
 */
static int relay_watch(struct relay *relay, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLET};

    return epoll_ctl(relay->events, EPOLL_CTL_ADD, fd, &event);
}

/* Joins descriptor `i` of the command to the port at `path` by a pipe. */
static int relay_join(struct relay *relay, int i, const char *path, struct failure *failure)
{
    struct stream *stream = &relay->streams[i];
    bool input = i == IN;
    int ends[2];
    int port = open(path, (input ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_CLOEXEC);

    if (port < 0 || pipe2(ends, O_CLOEXEC) != 0) {
        return failure_errno(failure, "cannot open the port %s", path);
    }
    stream->from = input ? port : ends[0];
    stream->to = input ? ends[1] : port;
    relay->child_stdio[i] = input ? ends[0] : ends[1];
    /* The port of an output stays open after its end: the host knows by EXITED that it is over. */
    stream->keep_to = !input;
    stream->limit = UINT64_MAX;
    if (fcntl(input ? ends[1] : ends[0], F_SETFL, O_NONBLOCK) != 0 || relay_watch(relay, stream->from, EPOLLIN) != 0 ||
        relay_watch(relay, stream->to, EPOLLOUT) != 0) {
        return failure_errno(failure, "cannot watch the port %s", path);
    }
    return 0;
}

static int relay_open(struct relay *relay, const struct control *control, const struct ports *ports, uint32_t flags,
                      struct failure *failure)
{
    sigset_t child;

    for (int i = 0; i < STREAMS; i++) {
        relay->streams[i].from = relay->streams[i].to = relay->child_stdio[i] = -1;
    }
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    relay->child_events = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    relay->events = epoll_create1(EPOLL_CLOEXEC);
    if (relay->child_events < 0 || relay->events < 0 || relay_watch(relay, relay->child_events, EPOLLIN) != 0 ||
        relay_watch(relay, control->fd, EPOLLIN) != 0) {
        return failure_errno(failure, "cannot make the relay");
    }
    if (relay_join(relay, OUT, ports->paths[PORT_STDOUT], failure) != 0) {
        return -1;
    }
    if ((flags & PROTOCOL_RUN_MERGE_STDERR) != 0) {
        relay->child_stdio[ERR] = fcntl(relay->child_stdio[OUT], F_DUPFD_CLOEXEC, 3);
    } else if (relay_join(relay, ERR, ports->paths[PORT_STDERR], failure) != 0) {
        return -1;
    }
    if ((flags & PROTOCOL_RUN_NO_STDIN) != 0) {
        relay->child_stdio[IN] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } else if (relay_join(relay, IN, ports->paths[PORT_STDIN], failure) != 0) {
        return -1;
    }
    return 0;
}

/* Reaps all that has ended; returns whether `pid` was among them, with its status. */
static bool reap(pid_t pid, int *status)
{
    bool found = false;
    int any;
    pid_t ended;

    while ((ended = waitpid(-1, &any, WNOHANG)) > 0) {
        if (ended == pid) {
            *status = any;
            found = true;
        }
    }
    return found;
}

/* Hands SIGNAL frames on to the command's process group; to nobody when `pid` is 0. */
static void signals_forward(struct control *control, pid_t pid)
{
    struct frame frame;

    while (control_receive(control, &frame) == FRAME_COMPLETE) {
        int signo = frame.type == PROTOCOL_SIGNAL ? signal_decode(&frame) : 0;

        if (signo != 0 && pid > 0) {
            kill(-pid, signo);
        } else if (frame.type == PROTOCOL_BYE) {
            control->closed = true;
        }
    }
}

/* Until the command has exited, or the host is gone: then all are killed. */
static void relay_until_exit(struct relay *relay, struct control *control, pid_t pid, struct ending *ending)
{
    struct signalfd_siginfo discard;
    struct epoll_event event;
    bool exited = false;

    while (!exited) {
        bool more = false;

        for (int i = 0; i < STREAMS; i++) {
            more |= stream_pump(&relay->streams[i]);
        }
        signals_forward(control, pid);
        if (control->closed) {
            kill(-1, SIGKILL);
        }
        /* Emptied before looking, so that a child that ends meanwhile makes a new edge. */
        while (read(relay->child_events, &discard, sizeof(discard)) > 0) {
        }
        exited = reap(pid, &ending->status);
        if (!exited) {
            epoll_wait(relay->events, &event, 1, more ? 0 : -1);
        }
    }
    ending->exit_ns = clock_boottime();
}

/* Until all that the command left in its pipes is queued. Processes that it left behind may still
 * hold the pipes and write: that is not waited for. */
static void relay_until_drained(struct relay *relay, struct control *control)
{
    struct epoll_event event;

    stream_close(&relay->streams[IN]);
    stream_finish(&relay->streams[OUT]);
    stream_finish(&relay->streams[ERR]);
    while (!control->closed) {
        bool more = stream_pump(&relay->streams[OUT]);

        more |= stream_pump(&relay->streams[ERR]);
        if (stream_ended(&relay->streams[OUT]) && stream_ended(&relay->streams[ERR])) {
            return;
        }
        signals_forward(control, 0);
        if (!more && !control->closed) {
            epoll_wait(relay->events, &event, 1, -1);
        }
    }
}

int relay_run(struct control *control, const struct ports *ports, const struct run *run, struct ending *ending,
              struct failure *failure)
{
    static struct relay relay;
    struct command command = {
        .directory = run->directory,
        .arguments = run->arguments,
        .environment = run->environment,
    };
    struct protocol_started started;
    pid_t pid;

    if (relay_open(&relay, control, ports, run->flags, failure) != 0) {
        return -1;
    }
    memcpy(command.stdio, relay.child_stdio, sizeof(command.stdio));
    pid = command_start(&command, failure);
    for (int i = 0; i < STREAMS; i++) {
        close(relay.child_stdio[i]);
    }
    if (pid < 0) {
        return -1;
    }
    started = (struct protocol_started){.pid = (uint32_t)pid, .time_ns = clock_boottime()};
    control_send(control, PROTOCOL_STARTED, &started, sizeof(started), NULL);
    relay_until_exit(&relay, control, pid, ending);
    relay_until_drained(&relay, control);
    ending->stdout_bytes = relay.streams[OUT].total;
    ending->stderr_bytes = relay.streams[ERR].total;
    return 0;
}

struct ending command_wait(int pid)
{
    struct ending ending = {0};
    pid_t ended;

    do {
        ended = waitpid(-1, &ending.status, 0);
    } while (ended != pid && (ended > 0 || errno == EINTR));
    ending.exit_ns = clock_boottime();
    return ending;
}

void processes_end(void)
{
    if (kill(-1, SIGKILL) == 0) {
        while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
        }
    }
}
