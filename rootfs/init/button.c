#include "button.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

enum {
    SIGNAL_POWER_BUTTON = 38, /* as in rootfs/kernel/config */
    PATIENCE_SECONDS = 5,
};

static volatile sig_atomic_t pressed;

static void end_processes(int signo)
{
    pressed = 1;
    kill(-1, signo == SIGALRM ? SIGKILL : SIGTERM);
    /* Again: a process may have been on its way into the world. */
    alarm(PATIENCE_SECONDS);
}

void button_watch(void)
{
    struct sigaction action = {.sa_handler = end_processes, .sa_flags = SA_RESTART};

    sigfillset(&action.sa_mask);
    sigaction(SIGNAL_POWER_BUTTON, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
}

bool button_was_pressed(void)
{
    return pressed != 0;
}
