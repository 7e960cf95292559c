#include "api/cli/session.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "api/cli/commands.h"
#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum { LAST_WORDS_LINES = 40, MOUNT_END_MS = 200, SILENCE_S = 10 };

static const int passed_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

struct error *session_take_signals(int *signal_fd)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < array_length(passed_signals); i++)
        sigaddset(&set, passed_signals[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    *signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *signal_fd >= 0 ? NULL : error_errno(errno, "signalfd");
}

void session_init(struct session *session, struct vmm_process *process, struct run_mounts *mounts, struct run_net *net,
                  struct timeline *timeline, int signal_fd, int console_fd)
{
    *session = (struct session){.process = process,
                                .mounts = mounts,
                                .net = net,
                                .timeline = timeline,
                                .signal_fd = signal_fd,
                                .console_fd = console_fd,
                                .in = {.from = -1, .to = -1},
                                .out = {.from = -1, .to = -1},
                                .err = {.from = -1, .to = -1}};
    for (size_t i = 0; i < RUN_PORT_COUNT; i++)
        session->ports[i] = -1;
}

void session_free(struct session *session)
{
    for (size_t i = 0; i < RUN_PORT_COUNT; i++)
        fd_close(&session->ports[i]);
    fd_close(&session->signal_fd);
    fd_close(&session->console_fd);
    pump_free(&session->in);
    pump_free(&session->out);
    pump_free(&session->err);
    free(session->run_frame);
    free(session->outgoing);
    session->run_frame = session->outgoing = NULL;
}

/* --- To the guest --- */

static void send_frame(struct session *session, const uint8_t *frame, size_t length)
{
    size_t pending = session->outgoing_end - session->outgoing_start;
    uint8_t *grown = malloc(pending + length);

    if (grown == NULL)
        abort();
    if (pending > 0)
        memcpy(grown, session->outgoing + session->outgoing_start, pending);
    memcpy(grown + pending, frame, length);
    free(session->outgoing);
    session->outgoing = grown;
    session->outgoing_start = 0;
    session->outgoing_end = pending + length;
}

/* The command, once. */
static void send_run(struct session *session)
{
    if (session->run_frame == NULL)
        return;
    send_frame(session, session->run_frame, session->run_frame_length);
    free(session->run_frame);
    session->run_frame = NULL;
}

static void send_signal(struct session *session, int signal)
{
    uint8_t frame[TALK_SIGNAL_FRAME_SIZE];

    talk_signal_frame(signal, frame);
    send_frame(session, frame, sizeof(frame));
}

static void flush_outgoing(struct session *session)
{
    ssize_t sent = send(session->ports[RUN_PORT_CONTROL], session->outgoing + session->outgoing_start,
                        session->outgoing_end - session->outgoing_start, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent > 0)
        session->outgoing_start += (size_t)sent;
    else if (sent < 0 && errno != EAGAIN && errno != EINTR)
        session->outgoing_start = session->outgoing_end; /* the end shows in what we receive */
}

/* --- From the guest --- */

static uint64_t difference_us(uint64_t later_ns, uint64_t earlier_ns)
{
    return later_ns > earlier_ns ? (later_ns - earlier_ns) / 1000 : 0;
}

static void note_progress(struct session *session, enum talk_state before)
{
    const struct talk *talk = &session->talk;

    if (talk->state == before)
        return;
    switch (talk->state) {
    case TALK_EXPECTS_START:
        timeline_end_ago(session->timeline, STAGE_KERNEL,
                         difference_us(talk->hello.hello_ns, talk->hello.init_start_ns));
        break;
    case TALK_EXPECTS_EXIT:
        timeline_end(session->timeline, STAGE_INIT);
        break;
    case TALK_EXITED:
        timeline_end_ago(session->timeline, STAGE_COMMAND, difference_us(talk->exited.time_ns, talk->exited.exit_ns));
        break;
    default:
        break;
    }
}

static struct error *receive_control(struct session *session)
{
    uint8_t bytes[4096];
    ssize_t got = recv(session->ports[RUN_PORT_CONTROL], bytes, sizeof(bytes), MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return NULL;
    if (got <= 0) {
        fd_close(&session->ports[RUN_PORT_CONTROL]);
        return NULL;
    }
    for (size_t at = 0, taken; at < (size_t)got; at += taken) {
        enum talk_state before = session->talk.state;
        struct error *error = talk_receive(&session->talk, bytes + at, (size_t)got - at, &taken);

        if (error != NULL)
            return error;
        note_progress(session, before);
        if (before == TALK_EXPECTS_HELLO && session->talk.state == TALK_EXPECTS_START)
            error = run_net_let_go(session->net);
        if (error != NULL)
            return error;
    }
    return NULL;
}

/* Reads what there is from a pipe of the VMM into its tail; closes it at its end. False when there was nothing. */
static bool receive_tail(int *fd, struct tail *tail, int copy_fd)
{
    char bytes[4096];
    ssize_t got = *fd < 0 ? 0 : read(*fd, bytes, sizeof(bytes));

    if (got > 0) {
        tail_add(tail, bytes, (size_t)got);
        if (copy_fd >= 0 && write(copy_fd, bytes, (size_t)got) < 0)
            return true; /* a full disk costs the copy, not the command */
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        fd_close(fd);
    }
    return got > 0;
}

/* --- Signals --- */

/* As long as there is no command that could mind a signal, one does what it does to a process that does not. */
static void receive_signal(struct session *session)
{
    bool runs = session->talk.state == TALK_EXPECTS_EXIT || session->talk.state == TALK_EXITED;
    struct signalfd_siginfo info;

    if (read(session->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (!runs || (session->signals_seen & 1ull << info.ssi_signo) != 0)
        session->killed_by = (int)info.ssi_signo;
    session->signals_seen |= 1ull << info.ssi_signo;
    send_signal(session, (int)info.ssi_signo);
}

/* --- Mounts --- */

/* What serves them ends with the VMM, perhaps a moment before it: then there is nothing to say. */
static void lose_mount(struct session *session)
{
    struct pollfd process = {.fd = session->process->process_fd, .events = POLLIN};

    if (poll(&process, 1, MOUNT_END_MS) > 0)
        session->process_ended = true;
    else
        run_mounts_tend(session->mounts);
}

/* --- The network --- */

/* Nothing runs before its network is there; the guest waits for its command. */
static struct error *tend_network(struct session *session, const struct pollfd wait[RUN_NET_POLL_COUNT])
{
    if (!session->net->awaited || session->process_ended)
        return NULL;

    struct error *error = run_net_check(session->net, wait);
    if (error != NULL || session->net->awaited)
        return error;
    timeline_end(session->timeline, STAGE_NETWORK);
    send_run(session);
    return NULL;
}

/* --- Time --- */

static void set_deadline(struct session *session, uint64_t timeout_ms)
{
    uint64_t timeout_us;

    session->timeout_ms = timeout_ms;
    if (timeout_ms == 0 || !checked_mul(timeout_ms, 1000, &timeout_us) ||
        !checked_add(clock_monotonic_us(), timeout_us, &session->deadline_us))
        session->deadline_us = UINT64_MAX;
}

/* What is left, as poll(2) takes it, rounded up; -1: no end. */
static int time_left_ms(uint64_t deadline_us)
{
    uint64_t now = clock_monotonic_us(), left_ms;

    if (deadline_us == UINT64_MAX)
        return -1;
    if (now >= deadline_us)
        return 0;
    left_ms = (deadline_us - now + 999) / 1000;
    return left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

static uint64_t next_deadline_us(const struct session *session)
{
    uint64_t next = session->deadline_us;

    if (session->net->deadline_us < next)
        next = session->net->deadline_us;
    return session->silence_end_us < next ? session->silence_end_us : next;
}

static void show_serial(const struct session *session, const char *title)
{
    if (session->serial.total == 0)
        return;
    dprintf(STDERR_FILENO, "mayfly: %s:\n", title);
    tail_show(&session->serial, STDERR_FILENO, "  ", LAST_WORDS_LINES);
}

/* A guest whose initrd does not hold Mayfly's init may run for ever, and never say a word to us. */
static void mind_silence(struct session *session)
{
    if (session->talk.state != TALK_EXPECTS_HELLO)
        session->silence_end_us = UINT64_MAX;
    if (time_left_ms(session->silence_end_us) != 0 || session->process_ended || session->timed_out)
        return;
    session->silence_end_us = UINT64_MAX;
    dprintf(
        STDERR_FILENO,
        "mayfly: nothing was heard from the guest's init in %d s; waiting on (--timeout TIME ends a wait). Does the "
        "initrd hold Mayfly's init, and does the kernel have drivers for virtio-mmio and virtio-console?\n",
        SILENCE_S);
    show_serial(session, "the guest said on the serial port");
}

/* --- The loop --- */

static bool guest_gone(const struct session *session)
{
    return session->ports[RUN_PORT_CONTROL] < 0 && pump_done(&session->out) && pump_done(&session->err);
}

static bool output_complete(const struct session *session)
{
    const struct protocol_exited *exited = &session->talk.exited;

    return session->out.taken >= exited->stdout_bytes && pump_empty(&session->out) &&
           session->err.taken >= exited->stderr_bytes && pump_empty(&session->err);
}

static bool finished(const struct session *session)
{
    if (session->killed_by != 0 || session->timed_out)
        return true;
    if (session->talk.state == TALK_FAILED)
        return true;
    if (session->talk.state == TALK_EXITED && output_complete(session))
        return true;
    return guest_gone(session);
}

/* What a write to our stdout or stderr ran into: EPIPE kills a command (unless it minds), the rest is our failure. */
static struct error *check_output(struct session *session, const struct pump *pump, const char *name)
{
    if (pump->error == 0)
        return NULL;
    if (pump->error != EPIPE)
        return error_errno(pump->error, "cannot write to %s", name);
    if (!session->told_broken_pipe)
        send_signal(session, SIGPIPE);
    session->told_broken_pipe = true;
    return NULL;
}

static void run_stdin(struct session *session, const struct pollfd wait[2])
{
    struct pump *in = &session->in;

    pump_run(in, wait);
    if (in->error != 0)
        in->from = -1; /* nobody reads it: leave the rest to whom it belongs */
    if (pump_done(in) && in->to >= 0) {
        shutdown(in->to, SHUT_WR);
        in->to = -1;
    }
}

static struct error *turn(struct session *session)
{
    enum { SIGNAL, PROCESS, CONTROL, SERIAL, LOG, MOUNTS, NET };
    enum { IN = NET + RUN_NET_POLL_COUNT, OUT = IN + 2, ERR = OUT + 2, COUNT = ERR + 2 };
    bool pending = session->outgoing_start < session->outgoing_end;
    struct pollfd wait[COUNT] = {
        [SIGNAL] = {.fd = session->signal_fd, .events = POLLIN},
        [PROCESS] = {.fd = session->process_ended ? -1 : session->process->process_fd, .events = POLLIN},
        [CONTROL] = {.fd = session->ports[RUN_PORT_CONTROL], .events = (short)(pending ? POLLIN | POLLOUT : POLLIN)},
        [SERIAL] = {.fd = session->process->serial_fd, .events = POLLIN},
        [LOG] = {.fd = session->process->log_fd, .events = POLLIN},
        [MOUNTS] = {.fd = session->process_ended ? -1 : session->mounts->ended_fd, .events = POLLIN},
    };
    struct error *error = NULL;

    run_net_poll(session->net, &wait[NET]);
    pump_poll(&session->in, &wait[IN]);
    pump_poll(&session->out, &wait[OUT]);
    pump_poll(&session->err, &wait[ERR]);
    if (poll(wait, COUNT, time_left_ms(next_deadline_us(session))) < 0)
        return errno == EINTR ? NULL : error_errno(errno, "poll");
    session->timed_out = time_left_ms(session->deadline_us) == 0;
    if (wait[PROCESS].revents != 0)
        session->process_ended = true;
    if (wait[SERIAL].revents != 0)
        receive_tail(&session->process->serial_fd, &session->serial, session->console_fd);
    if (wait[LOG].revents != 0)
        receive_tail(&session->process->log_fd, &session->log, -1);
    if (wait[MOUNTS].revents != 0)
        lose_mount(session);
    error = tend_network(session, &wait[NET]);
    if ((wait[CONTROL].revents & POLLOUT) != 0)
        flush_outgoing(session);
    if (error == NULL && (wait[CONTROL].revents & ~POLLOUT) != 0)
        error = receive_control(session);
    mind_silence(session);
    if (wait[SIGNAL].revents != 0)
        receive_signal(session); /* to whom it may concern by now */
    run_stdin(session, &wait[IN]);
    pump_run(&session->out, &wait[OUT]);
    pump_run(&session->err, &wait[ERR]);
    if (error == NULL)
        error = check_output(session, &session->out, "stdout");
    if (error == NULL)
        error = check_output(session, &session->err, "stderr");
    return error;
}

/* --- Before and after --- */

/* Both names of one pipe, file or terminal: the guest may keep the order in which the command wrote. */
static bool same_output(void)
{
    struct stat out, err;

    return fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &err) == 0 && out.st_dev == err.st_dev &&
           out.st_ino == err.st_ino && out.st_rdev == err.st_rdev;
}

/* /dev/null has nothing to say; a terminal that we are not in front of would stop us for reading. */
static bool stdin_is_of_use(void)
{
    struct stat status;

    if (fstat(STDIN_FILENO, &status) != 0)
        return false;
    if (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3))
        return false;
    return !isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static struct error *begin(struct session *session, const struct run_options *options, bool has_stdin)
{
    bool merge = same_output();
    uint32_t flags = merge ? PROTOCOL_RUN_MERGE_STDERR : 0;
    struct error *error;

    has_stdin = has_stdin && stdin_is_of_use();
    if (!has_stdin)
        flags |= PROTOCOL_RUN_NO_STDIN;
    error = talk_run_frame(options, flags, &session->run_frame, &session->run_frame_length);
    if (error == NULL)
        error = configure_connect_ports(session->process, session->ports);
    if (error != NULL)
        return error;
    /* The guest finds its command waiting. */
    if (!session->net->awaited)
        send_run(session);
    if (has_stdin)
        pump_init(&session->in, STDIN_FILENO, session->ports[RUN_PORT_STDIN]);
    pump_init(&session->out, session->ports[RUN_PORT_STDOUT], STDOUT_FILENO);
    pump_init(&session->err, session->ports[RUN_PORT_STDERR], STDERR_FILENO);
    return NULL;
}

static struct error *outcome(struct session *session, int *exit_code)
{
    static const char *const moments[] = {
        [TALK_EXPECTS_HELLO] = "before its init was up",
        [TALK_EXPECTS_START] = "before the command ran",
        [TALK_EXPECTS_EXIT] = "before the command was over",
        [TALK_EXITED] = "before all of the command's output had come",
    };
    const struct talk *talk = &session->talk;

    if (session->killed_by != 0) {
        *exit_code = 128 + session->killed_by;
        return NULL;
    }
    if (talk->state == TALK_FAILED) {
        *exit_code = (int)talk->failed.exit_code;
        dprintf(STDERR_FILENO, "mayfly: %s\n", talk->failed_text);
        return NULL;
    }
    if (talk->state == TALK_EXITED && output_complete(session)) {
        timeline_end(session->timeline, STAGE_EXIT);
        *exit_code = (int)(talk->exited.kind == PROTOCOL_EXIT_SIGNAL ? 128 + talk->exited.code : talk->exited.code);
        return NULL;
    }
    if (session->timed_out) {
        *exit_code = EXIT_TIMED_OUT;
        return error_new(ERROR_HOST, "the time of %llu.%03llu s was up %s",
                         (unsigned long long)session->timeout_ms / 1000, (unsigned long long)session->timeout_ms % 1000,
                         moments[talk->state]);
    }
    return vmm_process_explain_end(session->process, moments[talk->state], &session->vmm_failed);
}

struct error *session_run(struct session *session, const struct run_options *options, bool has_stdin, int *exit_code)
{
    struct error *error = begin(session, options, has_stdin);

    /* A guest may be quicker to fail than we are to connect: how it ended tells more than what was not there. */
    if (error != NULL && vmm_process_has_ended(session->process)) {
        error_free(error);
        return vmm_process_explain_end(session->process, "before its init was up", &session->vmm_failed);
    }
    set_deadline(session, options->timeout_ms);
    session->silence_end_us = clock_monotonic_us() + SILENCE_S * 1000000ull;
    while (error == NULL && !finished(session))
        error = turn(session);
    if (error != NULL)
        return error;
    return outcome(session, exit_code);
}

void session_show_last_words(struct session *session)
{
    while (receive_tail(&session->process->serial_fd, &session->serial, session->console_fd))
        ;
    while (receive_tail(&session->process->log_fd, &session->log, -1))
        ;
    if (session->log.total > 0) {
        dprintf(STDERR_FILENO, "mayfly: mayfly-vmm's log:\n");
        tail_show(&session->log, STDERR_FILENO, "  ", LAST_WORDS_LINES);
    }
    show_serial(session, "the guest's last words on the serial port");
}
