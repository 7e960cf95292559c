"""No process of the bench's outlives it: neither those that it started nor what they started in turn."""
import ctypes
import os
import signal
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked for the end; what is on the stack cleans up."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def interrupt(number, _frame):
    # Once: a second signal must not cut the cleaning up short.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def children():
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def end_all():
    """As the reaper of what its children leave, this process has all of them below itself, sooner or later."""
    while pids := children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run(function):
    """Calls what starts processes. On a signal that ends the bench they end, and it dies of that signal."""
    number = None
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, interrupt)
    try:
        return function()
    except Interrupted as interrupted:
        number = interrupted.number
    finally:
        end_all()
    # Not earlier: the exception holds the stack, and that the temporary folders.
    signal.signal(number, signal.SIG_DFL)
    return os.kill(os.getpid(), number)
