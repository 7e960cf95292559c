"""One microVM with a freestanding guest of the bench, of ours or a peer's, and what its VMM did while it ran."""
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_tool import qemu
from bench_tool.idle import Connection
from bench_tool.row import Row

PATIENCE = 60


class Count:
    """The counts of a process from now on; None in place of them where the host tells no trace points."""

    def __init__(self, build, pid):
        self.tool = subprocess.Popen([build / "release/count", str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     text=True)
        if self.tool.stdout.readline() != "counting\n":
            raise SystemExit("bench: counting takes root and trace points (tracefs)")

    def read(self):
        self.tool.stdin.write("\n")
        self.tool.stdin.flush()
        return json.loads(self.tool.stdout.readline())

    def end(self):
        self.tool.stdin.close()
        self.tool.wait()


def can_count(build):
    """Whether trace points can be had; says so when not."""
    counter = build / "release/count"
    if not counter.exists():
        raise SystemExit(f"bench: there is no {counter}; `make bench` builds it")
    tool = subprocess.run([counter, str(os.getpid())], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if tool.returncode != 0:
        print(f"bench: {tool.stderr.strip()}", file=sys.stderr)
    return tool.returncode == 0


class Serial:
    """What a guest says on its serial port, the VMM's stdout."""

    def __init__(self, process):
        self.output = process.stdout
        self.said = b""

    def wait_for(self, word):
        while word not in self.said:
            ready, _, _ = select.select([self.output], [], [], PATIENCE)
            more = os.read(self.output.fileno(), 4096) if ready else b""
            self.said += more
            if not more or b"FAIL" in self.said:
                raise SystemExit(f"bench: the guest never said {word!r}, but {self.said.decode(errors='replace')!r}")


class Mayfly:
    """Mayfly, or a firecracker: `requests` are (path, body), put before the guest starts."""

    def __init__(self, build, vmm, guest, cmdline, requests, within=()):
        self.folder = tempfile.TemporaryDirectory(prefix="mayfly-bench-")
        api = Path(self.folder.name) / "api.sock"
        self.process = subprocess.Popen([*within, str(vmm), "--api-sock", str(api), "--id", "bench"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.connection = Connection(str(api))
        self.connect(time.monotonic() + PATIENCE)
        self.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
        self.put("/boot-source", {"kernel_image_path": str(guest), "boot_args": cmdline})
        for path, body in requests:
            self.put(path, body)
        self.count = Count(build, self.process.pid)

    def connect(self, deadline):
        while True:
            try:
                return self.connection.connect()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"bench: {self.process.args[-5]} did not start")
                time.sleep(0.005)

    def put(self, path, body):
        self.connection.request("PUT", path, json.dumps(body))
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 204:
            raise SystemExit(f"bench: PUT {path}: {answer.status} {text.decode()}")

    def go(self):
        self.put("/actions", {"action_type": "InstanceStart"})

    def end(self):
        self.count.end()
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.folder.cleanup()


class Microvm:
    """QEMU's microvm machine; `arguments` are its devices."""

    def __init__(self, build, guest, cmdline, arguments, within=()):
        self.folder = tempfile.TemporaryDirectory(prefix="mayfly-bench-")
        self.qemu = qemu.Qemu(self.folder.name, ["-name", "bench,debug-threads=on", "-kernel", str(guest), "-append", cmdline,
                                                 "-serial", "stdio", "-global", "virtio-mmio.force-legacy=false", *arguments],
                              within)
        self.process = self.qemu.process
        self.count = Count(build, self.process.pid)

    def go(self):
        self.qemu.ask("cont")

    def end(self):
        self.count.end()
        self.qemu.end()
        self.folder.cleanup()


def run(machine, work=None):
    """
    Lets the guest run until it is done; the counts of its life, not of what came before: a QEMU takes 30 ms to get there,
    more or less. `work` is the host's part, once the guest is ready.
    """
    serial = Serial(machine.process)
    try:
        before = machine.count.read()
        machine.go()
        if work is not None:
            serial.wait_for(b"ready")
            work()
        serial.wait_for(b"done")
        after = machine.count.read()
        return {name: after[name] - before[name] for name in after}
    finally:
        machine.end()


def per_unit(measure, units, runs=1, first=0):
    """
    What one unit takes: measure(n) gives the counts of a life with n units. What a life takes without any, or with the
    `first` ones, which touch the guest's memory for the first time, is not counted.
    """
    none = measure(first)
    lives = [measure(first + units) for _ in range(runs)]
    return {name: (statistics.median(life[name] for life in lives) - none[name]) / units for name in none}


def rows(what, unit, values):
    """Three rows of the table; `values` are what per_unit gave of ours, a firecracker and QEMU (None: not there)."""
    titles = (("syscalls", f"system calls/{unit}"), ("exits", f"exits/{unit}"), ("cpu_us", f"us CPU/{unit}"))
    return [Row(what if key == "syscalls" else "the same", title, **{
        name: value and round(value[key], 3) for name, value in zip(("mayfly", "firecracker", "qemu"), values)})
        for key, title in titles]
