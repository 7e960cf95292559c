"""The peer that is a Debian package: QEMU's microvm machine, spoken to over QMP."""
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

QEMU = "qemu-system-x86_64"
MACHINE = ["-M", "microvm,x-option-roms=off,rtc=off,pic=off,pit=off", "-nodefaults", "-no-user-config", "-display", "none",
           "-m", "128", "-no-reboot"]


class Qemu:
    """One QEMU, stopped before its first instruction (-S), with a QMP connection that has been greeted."""

    def __init__(self, scratch, arguments, within=()):
        path = str(Path(scratch) / "qmp")
        if os.path.exists(path):
            os.unlink(path)
        accel = ["-accel", "kvm" if os.access("/dev/kvm", os.W_OK) else "tcg"]
        self.path = path
        self.started = time.monotonic()
        self.process = subprocess.Popen([*within, QEMU, *MACHINE, *accel, "-S", "-qmp", f"unix:{path},server=on,wait=off", *arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.connect()

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(self.path)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > self.started + 20:
                    raise RuntimeError("QEMU did not start")
        self.stream = self.socket.makefile("rw")
        self.stream.readline()  # the greeting
        self.ask("qmp_capabilities")

    def connect_again(self):
        self.stream.close()
        self.socket.close()
        self.connect()

    def ask(self, command):
        self.stream.write(json.dumps({"execute": command}) + "\n")
        self.stream.flush()
        while "return" not in json.loads(self.stream.readline()):
            pass

    def cpu_us(self):
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1000

    def private_dirty_kib(self):
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1])
        return 0

    def end(self):
        self.process.kill()
        self.process.wait()
        self.socket.close()


def api(runs):
    """exec to a served query-status."""
    if shutil.which(QEMU) is None:
        return None
    lines = []
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        for _ in range(min(runs, 11)):
            qemu = Qemu(scratch, [])
            qemu.ask("query-status")
            wall = time.monotonic() - qemu.started
            lines.append({"wall_us": wall * 1e6, "cpu_us": qemu.cpu_us(), "private_dirty_kib": qemu.private_dirty_kib()})
            qemu.end()
    return lines


def start(kernel, runs):
    """`cont` to the guest's first byte, in milliseconds; None where QEMU cannot run it on this KVM."""
    if shutil.which(QEMU) is None or not kernel.exists():
        return None
    times = []
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        for _ in range(min(runs, 11)):
            qemu = Qemu(scratch, ["-kernel", str(kernel), "-serial", "stdio"])
            time.sleep(0.02)
            asked = time.monotonic()
            qemu.ask("cont")
            os.set_blocking(qemu.process.stdout.fileno(), False)
            deadline = asked + 5
            said = None
            while said is None and time.monotonic() < deadline:
                said = qemu.process.stdout.read(1)
            times.append((time.monotonic() - asked) * 1000)
            qemu.end()
            if not said:
                return None
    return statistics.median(times)
