"""Runs one test program to its end, and tells truthfully what it did, however it ended. tests/run has the rest."""

import ctypes
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from dialects import Case, Subunit, Tap

ROOT = Path(__file__).resolve().parent.parent

# A finding of a sanitizer ends the program: no test passes over it.
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    # At the end of a program that has other threads it sleeps for a second, unless told otherwise.
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:atexit_sleep_ms=20",
}

libc = ctypes.CDLL(None)


def die_with_parent(number=signal.SIGKILL):
    PR_SET_PDEATHSIG = 1
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def begin():
    """What a test program is before it runs: signals that a shell ignores in what it runs beside itself end it again."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def adopt_orphans():
    """Whatever our descendants start becomes our child when its parent dies, so nothing is left behind unseen."""
    PR_SET_CHILD_SUBREAPER = 36
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def living_children():
    """{process id: command line} of our children that have not ended; those that have are reaped."""
    found = {}
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            try:
                os.waitpid(int(pid), os.WNOHANG)
            except ChildProcessError:
                pass
            continue
        found[int(pid)] = command
    return found


def sweep(patience):
    """Waits for our children to end; kills those that do not and returns their command lines."""
    deadline = time.monotonic() + patience
    while True:
        left = living_children()
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(0.01)
    killed = [command for command in left.values() if command]  # without one it is dying
    while left:  # killing one may hand us its children
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        left = living_children()
    return killed


@dataclass
class FileResult:
    suite: object  # a Suite of tests/run
    name: str
    cases: list
    seconds: float

    def count(self, result):
        return sum(case.result == result for case in self.cases)


def describe_exit(status):
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exited with {status}"


def run_file(suite, program, case_pattern, options, host, status):
    """
    Runs a test program to its end, in a process that has no other children; says with status(text) what runs now. `host` is
    the emulated one's name.
    """
    dialect = Subunit() if suite.dialect == "cmocka" else Tap()
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="subunit")
    environment["MAYFLY_BUILD"] = str(options.build)
    environment["MAYFLY_VMM"] = str(options.build / suite.vmm / "mayfly-vmm")
    environment.pop("MAYFLY_TEST_FILTER", None)
    environment.pop("MAYFLY_JAILED", None)
    if suite.jailed:
        environment["MAYFLY_JAILED"] = "1"
    if suite.emulated_host:
        environment["MAYFLY_TESTHOST"] = host
    if case_pattern:
        environment["MAYFLY_TEST_FILTER"] = case_pattern
    for name, value in SANITIZER_ENVIRONMENT.items():
        environment.setdefault(name, value)
    limit = options.timeout or suite.timeout
    start = time.monotonic()
    status("")
    try:
        process = subprocess.Popen(
            [str(program)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, cwd=ROOT, start_new_session=True, preexec_fn=begin,
        )  # fmt: skip
    except OSError as problem:
        return FileResult(suite, program.name, [Case("start", "failed", [str(problem)])], 0.0)

    timed_out = False
    rest = b""
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    ended = None
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        try:
            while True:
                left = start + limit - time.monotonic()
                if left <= 0:
                    timed_out = True
                    break
                chunk = None
                if selector.select(min(left, 0.1)):
                    chunk = os.read(descriptor, 1 << 16)
                    if not chunk:
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        dialect.line(line.decode(errors="replace").rstrip("\r"))
                    running = dialect.cases[-1].name if dialect.cases else ""
                    status(f" {running} {time.monotonic() - start:.0f} s")
                elif process.poll() is not None:
                    # Something that it started still holds the pipe: do not wait for that.
                    ended = ended or time.monotonic()
                    if time.monotonic() - ended > 1:
                        break
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            sweep(0)
            raise
    if rest:
        dialect.line(rest.decode(errors="replace"))
    if timed_out:
        os.killpg(process.pid, signal.SIGKILL)
    elif ended is None:
        # The output has ended; the program has as long as the file has left.
        try:
            process.wait(max(0.1, start + limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
    exit_status = process.wait()
    process.stdout.close()
    left_behind = sweep(2)

    cases = dialect.cases
    conversation = dialect.finish()
    died = f"timed out after {limit} s" if timed_out else describe_exit(exit_status)
    unfinished = [case for case in cases if case.result == "running"]
    for case in unfinished:
        case.result = "failed"
        case.output.append(f"the test program {died} in this test")
    failed = any(case.result == "failed" for case in cases)
    whole = Case("program", "failed", dialect.outside[-200:])
    if timed_out and not unfinished:
        whole.output.append(f"the test program {died}")
    elif exit_status < 0 and not unfinished:
        whole.output.append(f"the test program was {died} outside a test")
    elif exit_status != 0 and not failed:
        whole.output.append(f"the test program {died} though no test failed")
    elif exit_status == 0 and failed:
        whole.output.append("the test program exited with 0 though a test failed")
    elif conversation and not failed:
        whole.output.append(f"the test program did not keep to the protocol: {conversation}")
    elif left_behind:
        whole.output.append("it left processes behind: " + "; ".join(left_behind))
    elif not cases and not case_pattern:
        whole.output.append("the test program ran no test")
    else:
        whole = None
    if whole:
        cases.append(whole)
    return FileResult(suite, program.name, cases, time.monotonic() - start)
