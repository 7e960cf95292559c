"""Starts an emulated host, runs commands in it, copies files. scripts/testhost is this on the command line.

    host = Host()                      # the one named by MAYFLY_TESTHOST, else "default"
    host.start()
    result = host.run(["uname", "-r"], timeout=10)
    result.code, result.stdout, result.stderr, result.seconds
    host.put(["build/release/mayfly"], "/usr/bin/")
    host.stop()
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import stat
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from emulated_host import image, protocol as p
from emulated_host.broker import Broker

READ = 256 << 10
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "TERM": "dumb"}


class HostError(Exception):
    pass


class HostDied(HostError):
    """The emulated host ended under the command."""


class CommandTimeout(HostError):
    pass


@dataclass
class Result:
    code: int  # exit code; minus the signal's number when one killed it, as in subprocess
    stdout: bytes
    stderr: bytes
    seconds: float  # from fork to reaped, by the emulated host's clock: an instruction count with icount


@dataclass
class Options:
    kernel: str = "6.1"
    memory: str = "6G"
    cpus: int = 1  # more than one: for guests of several, which wait for each other; hangs now and then
    icount: bool = False
    parent_pid: int = 0
    idle_seconds: float = 900
    disks: tuple = ()
    append: str = ""


def qemu_argv(options, kernel_image, initramfs, plugin, console):
    # The clock is the count of instructions, one nanosecond each. A clock that runs on while the emulation is slow, or has no
    # processor of its own, has the next timer interrupt of host and guest due before the last one is served: they hang.
    # Idle time passes as ever; with icount it takes none, and a duration is the same on every machine and in every run.
    idle = "off" if options.icount else "on"
    accelerator = ["-accel", "tcg,thread=single", "-icount", f"shift=0,sleep={idle}", "-smp", "1"]
    if options.cpus > 1:  # which rules out such a clock
        accelerator = ["-accel", "tcg,thread=multi", "-smp", str(options.cpus)]
    # The self-tests of ciphers, address randomisation, mitigations and LSMs that nobody tests cost boot time.
    append = "console=ttyS0 panic=-1 quiet nokaslr mitigations=off cryptomgr.notests lsm=landlock,lockdown,yama"
    argv = ["qemu-system-x86_64", *accelerator, "-machine", "q35", "-cpu", "EPYC,+svm,+npt", "-m", options.memory]
    argv += ["-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"]
    argv += ["-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"]
    argv += ["-device", "virtio-serial-pci", "-chardev", "socket,id=agent,fd={agent_fd}"]
    argv += ["-device", "virtserialport,chardev=agent,name=mayfly.testhost"]
    if plugin:
        argv += ["-plugin", str(plugin)]
    for index, disk in enumerate(options.disks):
        argv += ["-drive", f"if=none,id=disk{index},format=raw,file={disk}", "-device", f"virtio-blk-pci,drive=disk{index}"]
    return argv + ["-kernel", str(kernel_image), "-initrd", str(initramfs), "-append", f"{append} {options.append}".strip()]


OUR_FOLDER = Path(f"/tmp/mayfly-testhost-{os.getuid()}")  # where there is no XDG_RUNTIME_DIR; gone with the last host


def state_directory(name):
    """Ours alone: nobody else may run commands in our host."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(base) if base and os.path.isdir(base) else OUR_FOLDER
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HostError(f"{base} is not a directory of ours")
    return base / f"testhost-{name}"


class Host:
    def __init__(self, name=None):
        self.use(name)

    def use(self, name):
        """From now on this is the host of that name."""
        self.name = name or os.environ.get("MAYFLY_TESTHOST") or "default"
        if "/" in self.name or len(self.name) > 40:
            raise HostError(f'name "{self.name}": expected at most 40 characters without a slash')
        self.directory = state_directory(self.name)

    @property
    def console(self):
        return self.directory / "console.log"

    def console_tail(self, lines=100):  # a panic with its call trace
        try:
            text = self.console.read_bytes().decode(errors="replace").replace("\r", "")
        except OSError:
            text = ""
        try:
            warnings = (self.directory / "qemu.log").read_text(errors="replace").splitlines()
        except OSError:
            warnings = []
        # What TCG always says about the CPU model.
        said = [line for line in warnings if "TCG doesn't support" not in line]
        return "\n".join(said + text.splitlines()[-lines:]) or "(its console log is empty)"

    # The host itself.

    def start(self, options=None):
        """Returns the seconds it took; 0 when it was up already."""
        options = options or Options()
        if shutil.which("qemu-system-x86_64") is None:
            raise HostError("no qemu-system-x86_64: run scripts/setup --for run")
        with image.locked(self.directory, mode=0o700):
            if self.status() is not None:
                return 0.0
            kernel, initramfs = image.emulated_host_image(options.kernel)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            self.console.unlink(missing_ok=True)
            argv = qemu_argv(options, kernel.image, initramfs, image.delivery_plugin(), self.console)
            began = time.monotonic()
            problem = self._spawn_broker(argv, options)
            if problem:
                raise HostError(f"the emulated host did not start: {problem}\n{self.console_tail()}")
            return time.monotonic() - began

    def _spawn_broker(self, argv, options, patience=120):
        """Returns None when the agent has said hello, else the reason."""
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(read_end)
                os.setsid()
                if os.fork() == 0:
                    self._broker_main(argv, options, write_end)
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        os.waitpid(child, 0)
        with selectors.DefaultSelector() as selector, open(read_end, "rb", 0) as pipe:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(patience):
                self._ask(p.STOP)
                return f"no sign of life in {patience} s"
            said = pipe.read(4096).decode(errors="replace")
        return None if said == "up" else said or "the broker died"

    def _broker_main(self, argv, options, write_end):
        """In the grandchild: a daemon that keeps nothing of the caller's."""

        def report(problem):
            nonlocal write_end
            if write_end >= 0:
                os.write(write_end, (problem or "up").encode())
                os.close(write_end)
                write_end = -1

        try:
            null = os.open("/dev/null", os.O_RDWR)
            log = os.open(self.directory / "broker.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            for target, source in ((0, null), (1, log), (2, log)):
                os.dup2(source, target)
            keep = write_end
            os.closerange(3, keep)
            os.closerange(keep + 1, 1 << 16)
            os.chdir("/")
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            Broker(self.directory, argv, options.parent_pid, options.idle_seconds, report).serve()
        except BaseException as problem:
            report(f"{type(problem).__name__}: {problem}")
            raise
        finally:
            os._exit(0)

    def _connect(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(self.directory / "socket"))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        return sock

    def _ask(self, kind):
        """One question to the broker; None when there is none."""
        sock = self._connect()
        if sock is None:
            return None
        with sock:
            try:
                sock.sendall(p.frame(kind))
                reader = p.Reader()
                while data := sock.recv(READ):
                    for _, answered, payload in reader.feed(data):
                        if answered == kind:
                            return payload
            except ConnectionError:
                pass
        return None

    def status(self):
        """A dictionary, or None when it does not run."""
        answer = self._ask(p.STATUS)
        return json.loads(answer) if answer is not None else None

    def stop(self):
        """True when there was one to stop; QEMU is gone on return, and so is its folder, unless another starts it again."""
        stopped = self._ask(p.STOP) is not None
        try:
            with image.locked(self.directory, mode=0o700, wait=False) as lock:
                if self.status() is None:
                    shutil.rmtree(self.directory, ignore_errors=True)
                    lock.unlink()
        except BlockingIOError:
            return stopped
        if self.directory.parent == OUR_FOLDER:
            with contextlib.suppress(OSError):  # other hosts are in it
                self.directory.parent.rmdir()
        return stopped

    # Commands.

    def run(self, argv, stdin=None, timeout=None, cwd="/root", env=None, stdout=None, stderr=None):
        """Runs a command to its end. `stdin`: bytes, or an object with a file descriptor (read as it goes), or None.
        `stdout`, `stderr`: called with each piece of output as it comes; what has none is in the result."""
        sock = self._connect()
        if sock is None:
            raise HostError(f'no emulated host "{self.name}" is running: scripts/testhost start')
        with sock:
            return Command(self, sock, stdout, stderr).run(argv, stdin, timeout, cwd, {**ENVIRONMENT, **(env or {})})

    def check(self, argv, **options):
        """run(), and an exception unless the command exits with 0."""
        result = self.run(argv, **options)
        if result.code != 0:
            text = (result.stderr or result.stdout).decode(errors="replace").strip()
            raise HostError(f"{' '.join(map(str, argv))}: exit code {result.code}: {text[-2000:]}")
        return result

    # Files.

    def put(self, sources, target, timeout=120):
        """Copies files and directories, with their permission bits; a source that is a link is followed, links in a
        directory stay links. A target that ends in / is a directory to put them
        into, and is made; otherwise it is the new name of the one source."""
        sources = [Path(source) for source in sources]
        into = str(target).endswith("/")
        if not into and len(sources) != 1:
            raise HostError(f'target "{target}": expected a directory ending in "/" for {len(sources)} sources')
        directory = str(target) if into else os.path.dirname(target) or "/"
        read_end, write_end = os.pipe()
        problems = []

        def write():
            try:
                with open(write_end, "wb") as stream, tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar:
                    for source in sources:
                        name = (source.name or source.resolve().name) if into else os.path.basename(target)
                        tar.add(source.resolve(), name, filter=as_root)
            except BrokenPipeError:
                pass
            except OSError as problem:
                problems.append(problem)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        with open(read_end, "rb") as stream:
            script = 'mkdir -p "$0" && exec tar -x -C "$0" -f -'
            result = self.run(["sh", "-c", script, directory], stdin=stream, timeout=timeout)
        writer.join()
        if problems:
            raise HostError(f"put: {problems[0]}")
        if result.code != 0:
            raise HostError(f"put {target}: {result.stderr.decode(errors='replace').strip()}")

    def get(self, source, target, timeout=120):
        """Copies one file."""
        with open(target, "wb") as stream:
            result = self.run(["cat", source], stdout=stream.write, timeout=timeout)
        if result.code != 0:
            os.unlink(target)
            raise HostError(f"get {source}: {result.stderr.decode(errors='replace').strip()}")

    def read(self, path):
        return self.check(["cat", path]).stdout

    def write(self, path, data):
        self.check(["sh", "-c", 'exec cat >"$0"', path], stdin=data)


def as_root(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


class Command:
    """One command's conversation with the broker."""

    def __init__(self, host, sock, stdout, stderr):
        self.host, self.socket = host, sock
        self.kept = {p.STDOUT: bytearray(), p.STDERR: bytearray()}
        self.sinks = {p.STDOUT: stdout or self.kept[p.STDOUT].extend, p.STDERR: stderr or self.kept[p.STDERR].extend}
        self.window = p.WINDOW  # bytes of stdin that may be sent
        self.result = None

    def run(self, argv, stdin, timeout, cwd, env):
        self.argv = argv
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout if timeout else None
        self._send(p.OPEN, p.open_payload(argv, env, cwd, stdin is not None))
        source = None
        if isinstance(stdin, (bytes, bytearray, memoryview)):
            self.input, self.input_open = memoryview(stdin), True
        elif stdin is not None:
            source, self.input, self.input_open = stdin.fileno(), memoryview(b""), True
        else:
            self.input, self.input_open = memoryview(b""), False
        reader = p.Reader()
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            while self.result is None:
                self._feed(source is None)
                reading = source is not None and self.input_open and not self.input
                if reading:
                    readable = self._readable_or_file(selector, source)
                else:
                    readable = {key.fd for key, _ in selector.select(self._left())}
                if reading and source in readable:
                    data = os.read(source, p.WINDOW)
                    self.input = memoryview(data)
                    if not data:
                        self._end_input()
                if self.socket.fileno() in readable:
                    self._receive(reader)
        return self.result

    def _readable_or_file(self, selector, source):
        """Waits for the socket and stdin. A regular file cannot be waited for: it is always readable."""
        try:
            selector.register(source, selectors.EVENT_READ)
        except PermissionError:
            return {source} | {key.fd for key, _ in selector.select(0)}
        try:
            return {key.fd for key, _ in selector.select(self._left())}
        finally:
            selector.unregister(source)

    def _left(self):
        """Seconds to the deadline; past it the command is killed, by the broker, as this client goes."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise CommandTimeout(f"{' '.join(map(str, self.argv))}: killed after {self.timeout} s")
        return left

    def _send(self, kind, payload=b""):
        try:
            self.socket.sendall(p.frame(kind, payload))
        except ConnectionError:
            pass  # what the broker last said is still to be read

    def _feed(self, all_there):
        while self.input and self.window:
            part = self.input[: min(self.window, p.PAYLOAD_MAX)]
            self._send(p.INPUT, bytes(part))
            self.window -= len(part)
            self.input = self.input[len(part) :]
        if all_there and self.input_open and not self.input:
            self._end_input()

    def _end_input(self):
        self.input_open = False
        self._send(p.INPUT_END)

    def _receive(self, reader):
        try:
            data = self.socket.recv(READ)
        except ConnectionError:
            data = b""
        if not data:
            raise HostDied(f"the emulated host is gone\n{self.host.console_tail()}")
        for _, kind, payload in reader.feed(data):
            if kind in self.sinks:
                self.sinks[kind](payload)
                self._send(p.CREDIT, p.U32.pack(len(payload)))
            elif kind == p.CREDIT:
                self.window += p.U32.unpack(payload)[0]
            elif kind == p.DIED:
                raise HostDied(f"{payload.decode()}\n{self.host.console_tail()}")
            elif kind == p.EXITED:
                how, number, nanoseconds = p.EXIT.unpack(payload)
                code = -number if how == p.EXIT_SIGNAL else number
                self.result = Result(code, bytes(self.kept[p.STDOUT]), bytes(self.kept[p.STDERR]), nanoseconds / 1e9)
