#include "vmm/terminal.h"

#include <errno.h>
#include <termios.h>
#include <unistd.h>

static struct {
    int fd;
    bool raw;
    struct termios saved;
} terminal;

bool terminal_make_raw(int fd)
{
    struct termios raw;

    if (tcgetattr(fd, &terminal.saved) < 0)
        return errno == ENOTTY || errno == EINVAL; /* not a terminal, fine; anything else (EBADF, EIO): no input */
    if (tcgetpgrp(fd) != getpgrp())
        return false;

    raw = terminal.saved;
    /* Output processing stays: the log shares this terminal. */
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INLCR | ISTRIP | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    terminal.fd = fd;
    if (tcsetattr(fd, TCSANOW, &raw) < 0)
        return false;
    __atomic_store_n(&terminal.raw, true, __ATOMIC_RELEASE);
    return true;
}

void terminal_restore(void)
{
    if (__atomic_exchange_n(&terminal.raw, false, __ATOMIC_ACQ_REL))
        tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
}
