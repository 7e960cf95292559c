/*
 * The guest's init: the first and last process of a microVM. It mounts what is needed, enters the
 * root file system that the kernel command line names, runs one command, for the host over the ports
 * of rootfs/protocol.h or on the console, and resets the machine, or powers it off when its button was pressed.
 */
#include "button.h"
#include "clock.h"
#include "cmdline.h"
#include "command.h"
#include "control.h"
#include "failure.h"
#include "mounts.h"
#include "network.h"
#include "ports.h"
#include "relay.h"
#include "root.h"

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int cmdline_read(struct cmdline *cmdline, struct failure *failure)
{
    static char text[CMDLINE_MAX + 1];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, CMDLINE_MAX) : -1;

    if (got < 0) {
        return failure_errno(failure, "cannot read /proc/cmdline");
    }
    close(fd);
    text[got] = '\0';
    cmdline_parse(cmdline, text);
    return 0;
}

static void loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return;
    }
    if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) {
        console_say("the interface lo stays down");
    }
    close(fd);
}

/* The file systems, the root, the network: all that a command finds when it starts. */
static int guest_prepare(struct cmdline *cmdline, struct failure *failure)
{
    if (mounts_early(failure) != 0 || cmdline_read(cmdline, failure) != 0) {
        return -1;
    }
    if (cmdline->root != NULL && root_switch(cmdline, failure) != 0) {
        return -1;
    }
    mounts_late(cmdline->root == NULL, cmdline->root_writable || cmdline->overlay);
    for (size_t i = 0; i < cmdline->mount_count; i++) {
        if (mount_shared(cmdline->mounts[i], failure) != 0) {
            return -1;
        }
    }
    loopback_up();
    if (cmdline->network != NULL) {
        return network_up(cmdline->network, cmdline->root == NULL || cmdline->overlay, failure);
    }
    return 0;
}

/* The terminal behind /dev/console, so that the command gets job control; else the console. */
static int console_open(void)
{
    char active[128] = "";
    char path[160];
    char *name = active;
    int fd = open("/sys/class/tty/console/active", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, active, sizeof(active) - 1) : -1;

    close(fd);
    if (got > 0) {
        active[got] = '\0';
        active[strcspn(active, "\n")] = '\0';
        /* The last one named is the one that /dev/console stands for. */
        name = strrchr(active, ' ') != NULL ? strrchr(active, ' ') + 1 : active;
    }
    snprintf(path, sizeof(path), "/dev/%s", *name != '\0' ? name : "console");
    fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return fd >= 0 ? fd : open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* Runs the words after "--" of the kernel command line, or a shell, on the console. */
static int run_on_console(struct cmdline *cmdline, struct failure *failure)
{
    static char *shell[] = {"/bin/sh", NULL};
    static char *environment[] = {NULL};
    int console = console_open();
    struct command command = {
        .arguments = cmdline->argc > 0 ? cmdline->argv : shell,
        .environment = environment,
        .terminal = true,
    };
    struct ending ending;
    pid_t pid;
    char text[96];

    if (console < 0) {
        console = open("/dev/null", O_RDWR | O_CLOEXEC);
        command.terminal = false;
    } else {
        /* Ours: the end of the process that leads the session hangs its terminal up, and what it still has to send is
         * lost. */
        setsid();
        ioctl(console, TIOCSCTTY, 0);
        signal(SIGTTOU, SIG_IGN);
    }
    for (int i = 0; i < 3; i++) {
        command.stdio[i] = console;
    }
    pid = command_start(&command, failure);
    if (pid < 0) {
        return -1;
    }
    ending = command_wait(pid);
    if (ending.status != 0) {
        snprintf(text, sizeof(text), "the command %s %d",
                 WIFSIGNALED(ending.status) ? "was killed by signal" : "exited with code",
                 WIFSIGNALED(ending.status) ? WTERMSIG(ending.status) : WEXITSTATUS(ending.status));
        console_say(text);
    }
    return 0;
}

/* Takes RUN from the control port; false when the host went away instead. */
static bool run_receive(struct control *control, struct run *run, struct failure *failure)
{
    struct frame frame;
    const char *wrong;

    if (!control_wait(control, &frame)) {
        failure_set(failure, FAILURE_OTHER, "the host closed the control port before a RUN frame");
        return false;
    }
    if (frame.type != PROTOCOL_RUN) {
        failure_set(failure, FAILURE_OTHER, "expected a RUN frame, got type %u", frame.type);
        return false;
    }
    wrong = run_decode(run, &frame);
    if (wrong != NULL) {
        failure_set(failure, FAILURE_OTHER, "%s", wrong);
        return false;
    }
    if (run->hostname[0] != '\0' && sethostname(run->hostname, strlen(run->hostname)) != 0) {
        failure_errno(failure, "cannot set the host name '%s'", run->hostname);
        return false;
    }
    return true;
}

static void ending_send(struct control *control, const struct ending *ending)
{
    bool signaled = WIFSIGNALED(ending->status);
    struct protocol_exited exited = {
        .kind = signaled ? PROTOCOL_EXIT_SIGNAL : PROTOCOL_EXIT_CODE,
        .code = (uint32_t)(signaled ? WTERMSIG(ending->status) : WEXITSTATUS(ending->status)),
        .stdout_bytes = ending->stdout_bytes,
        .stderr_bytes = ending->stderr_bytes,
        .exit_ns = ending->exit_ns,
        .time_ns = clock_boottime(),
    };

    control_send(control, PROTOCOL_EXITED, &exited, sizeof(exited), NULL);
}

/* Runs the command that the host names, leaves the guest clean, and only then tells the end. */
static int run_for_host(struct control *control, const struct ports *ports, struct failure *failure)
{
    struct ending ending = {0};
    struct run run;

    if (!run_receive(control, &run, failure) || relay_run(control, ports, &run, &ending, failure) != 0) {
        return -1;
    }
    processes_end();
    mounts_finish();
    ending_send(control, &ending);
    return 0;
}

static void failure_tell(struct control *control, const struct failure *failure)
{
    struct protocol_failed failed = {
        .exit_code = (uint32_t)failure->exit_code,
        .time_ns = clock_boottime(),
    };

    if (control->fd < 0) {
        console_say(failure->text);
    }
    control_send(control, PROTOCOL_FAILED, &failed, sizeof(failed), failure->text);
}

/* The host reads on until it has all the output, then says BYE or closes the port. */
static void host_leave(struct control *control)
{
    struct frame frame;

    while (control->fd >= 0 && control_wait(control, &frame) && frame.type != PROTOCOL_BYE) {
    }
}

/* A serial port may still have to send what was last written; the reset would cut it off. */
static void console_drain(void)
{
    int fd = console_open();

    if (fd >= 0) {
        tcdrain(fd);
        close(fd);
    }
}

static _Noreturn void machine_reset(void)
{
    processes_end();
    console_drain();
    mounts_finish();
    if (button_was_pressed()) {
        reboot(RB_POWER_OFF);
    }
    reboot(RB_AUTOBOOT);
    console_say("the reset did not work");
    for (;;) {
        pause();
    }
}

int main(void)
{
    static struct control control;
    static struct cmdline cmdline;
    uint64_t start = clock_boottime();
    struct failure failure = {0};
    struct ports ports;
    int rc;

    if (getpid() != 1) {
        fputs("init: not process 1: I only run as a guest's init\n", stderr);
        return 1;
    }
    control.fd = -1;
    button_watch();
    rc = guest_prepare(&cmdline, &failure);
    if (ports_find(&ports) && control_open(&control, ports.paths[PORT_CONTROL], start) != 0) {
        console_say("cannot open the control port");
    }
    if (rc == 0) {
        rc = control.fd >= 0 ? run_for_host(&control, &ports, &failure) : run_on_console(&cmdline, &failure);
    }
    if (rc != 0) {
        failure_tell(&control, &failure);
    }
    host_leave(&control);
    machine_reset();
}
