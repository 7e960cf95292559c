#include "vmm/signals.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/base/seccomp.h"
#include "vmm/exit_code.h"
#include "vmm/mapped_file.h"
#include "vmm/metrics.h"
#include "vmm/syscall_name.h"
#include "vmm/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct deadly_signal {
    int signal;
    enum exit_code exit_code;
    char name[8]; /* no pointers in here: CONTRIBUTING.md tells why */
    size_t metric;
};

#define SIGNAL(name, member)                                                                                           \
    {                                                                                                                  \
        name, EXIT_CODE_##name, #name, offsetof(struct metrics, signals.member)                                        \
    }

static const struct deadly_signal deadly_signals[] = {
    SIGNAL(SIGSYS, sigsys),   SIGNAL(SIGBUS, sigbus), SIGNAL(SIGSEGV, sigsegv), SIGNAL(SIGXFSZ, sigxfsz),
    SIGNAL(SIGXCPU, sigxcpu), SIGNAL(SIGHUP, sighup), SIGNAL(SIGILL, sigill),
};

static int metrics_fd = -1;
static int termination; /* the signal taken */

void signals_set_metrics_fd(int fd)
{
    __atomic_store_n(&metrics_fd, fd, __ATOMIC_RELAXED);
}

static const struct deadly_signal *find(int signal)
{
    for (size_t i = 0; i < array_length(deadly_signals); i++)
        if (deadly_signals[i].signal == signal)
            return &deadly_signals[i];
    return &deadly_signals[0];
}

/* The line's prefix tells the thread. */
static void log_forbidden(const siginfo_t *info)
{
    if (info->si_arch != SECCOMP_ARCH_HERE)
        log_error("SIGSYS: system call %d of architecture %#x, forbidden by a seccomp filter", info->si_syscall,
                  info->si_arch);
    else
        log_error("SIGSYS: system call %d (%s), forbidden by a seccomp filter", info->si_syscall,
                  syscall_name(info->si_syscall));
}

static void log_cause(const struct deadly_signal *deadly, const siginfo_t *info)
{
    const char *file = deadly->signal == SIGBUS ? mapped_file_truncated() : NULL;

    if (file != NULL)
        log_error("SIGBUS: '%s' was truncated while mapped into guest memory", file);
    else if (deadly->signal == SIGSYS)
        log_forbidden(info);
    else if (deadly->signal == SIGHUP || deadly->signal == SIGXCPU || deadly->signal == SIGXFSZ)
        log_error("%s (code %d, sent by process %d)", deadly->name, info->si_code, (int)info->si_pid);
    else
        log_error("%s (code %d) at address %p", deadly->name, info->si_code, info->si_addr);
}

/* Async-signal-safe throughout: the log formats on the stack, the metrics without printf. */
static void die(int signal, siginfo_t *info, void *context)
{
    const struct deadly_signal *deadly = find(signal);
    int fd = __atomic_load_n(&metrics_fd, __ATOMIC_RELAXED);

    (void)context;
    __atomic_store_n((uint64_t *)(void *)((char *)&metrics + deadly->metric), 1, __ATOMIC_RELAXED);
    log_cause(deadly, info);
    if (fd >= 0)
        metrics_write_at_end(fd);
    terminal_restore();
    _exit((int)deadly->exit_code);
}

static void count_sigpipe(int signal)
{
    (void)signal;
    METRIC_INCREMENT(sigpipe);
}

/* The sanitizers report these with far more to say. */
static bool is_left_to_sanitizer(int signal)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return signal == SIGSEGV || signal == SIGILL;
#else
    (void)signal;
    return false;
#endif
}

void signals_install(void)
{
    struct sigaction dying = {.sa_sigaction = die, .sa_flags = SA_SIGINFO};
    struct sigaction counting = {.sa_handler = count_sigpipe, .sa_flags = SA_RESTART};

    sigemptyset(&dying.sa_mask);
    sigemptyset(&counting.sa_mask);
    for (size_t i = 0; i < array_length(deadly_signals); i++)
        if (!is_left_to_sanitizer(deadly_signals[i].signal))
            sigaction(deadly_signals[i].signal, &dying, NULL);
    sigaction(SIGPIPE, &counting, NULL);
}

static void termination_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGQUIT);
}

struct error *signals_termination_watch(struct event_loop *loop, struct event_source *source)
{
    sigset_t set;

    termination_set(&set);
    source->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (source->fd < 0)
        return error_errno(errno, "cannot make a signalfd");

    struct error *error = event_source_add(loop, source, EPOLLIN);
    if (error != NULL) {
        fd_close(&source->fd);
        return error;
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    return NULL;
}

void signals_termination_take(int fd)
{
    struct signalfd_siginfo info;

    if (read(fd, &info, sizeof(info)) == sizeof(info))
        termination = (int)info.ssi_signo;
}

int signals_termination(void)
{
    return termination;
}

void signals_die_of_termination(void)
{
    sigset_t set;

    if (termination == 0)
        return;
    signal(termination, SIG_DFL);
    termination_set(&set);
    raise(termination);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + termination);
}
