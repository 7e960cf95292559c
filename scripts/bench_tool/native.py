"""What is measured on this machine's own KVM: process start, API, InstanceStart, many at once, system calls."""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench_tool import qemu
from bench_tool.row import Row


FIRST_BYTE = re.compile(r'write\w*\(1, .*"!"')


def measure(build, mode, *words):
    """The lines that the stop-watch prints, decoded."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        out = subprocess.run([build / "release" / "measure", mode, *map(str, words)], check=True, capture_output=True, text=True,
                             env={**os.environ, "TMPDIR": scratch})
    return [json.loads(line) for line in out.stdout.splitlines()]


def median(lines, key):
    return statistics.median(line[key] for line in lines)


def vmms(build):
    """Ours, and the firecracker on PATH or None."""
    return build / "release" / "mayfly-vmm", shutil.which("firecracker")


def size(build, runs):
    out = subprocess.run(["size", build / "release" / "mayfly-vmm"], check=True, capture_output=True, text=True)
    text, data = out.stdout.splitlines()[1].split()[:2]
    return [Row("mayfly-vmm, text and data", "KiB", (int(text) + int(data)) / 1024, goal=512)]


def api(build, runs):
    ours, peer = vmms(build)
    mine = measure(build, "api", ours, runs)
    theirs = measure(build, "api", peer, runs) if peer else None
    other = qemu.api(runs)
    rows = []
    for what, unit, key, scale, goal in (
        ("exec to a served GET /, wall", "ms", "wall_us", 1000, 0.7),
        ("exec to a served GET /, CPU", "ms", "cpu_us", 1000, 0.5),
        ("private dirty memory then", "KiB", "private_dirty_kib", 1, 64),
    ):
        rows.append(Row(what, unit, median(mine, key) / scale, goal,
                        median(theirs, key) / scale if theirs else None,
                        median(other, key) / scale if other else None))
    return rows


def start(build, runs):
    ours, peer = vmms(build)
    kernel = build / "guests" / "first_byte_14m.elf"
    rows = []
    for what, pause, goal in (("InstanceStart to first byte, configured 20 ms before", 20, 0.8),
                              ("InstanceStart to first byte, back to back", 0, 2.0)):
        mine = measure(build, "start", ours, kernel, pause, runs)
        theirs = measure(build, "start", peer, kernel, pause, runs) if peer else None
        rows.append(Row(what, "ms", median(mine, "wall_us") / 1000, goal,
                        median(theirs, "wall_us") / 1000 if theirs else None))
    other = qemu.start(build / "guests" / "pvh.elf", runs)
    rows[0].qemu = other
    return rows


def crowd(build, runs):
    ours, peer = vmms(build)
    kernel = build / "guests" / "first_byte_14m.elf"
    figures = []
    for vmm in (ours, peer):
        if vmm is None:
            figures.append((None, None))
            continue
        times = sorted(line["wall_us"] / 1000 for line in measure(build, "parallel", vmm, kernel, 100, 8))
        if len(times) != 100:
            raise SystemExit(f"bench: of 100 VMs started at once only {len(times)} answered")
        figures.append((times[49], times[98]))
    return [Row("100 VMs, 8 callers: exec to first byte, p50", "ms", figures[0][0], None, figures[1][0]),
            Row("100 VMs, 8 callers: exec to first byte, p99", "ms", figures[0][1], None, figures[1][1])]


def trace(vmm, kernel, scratch):
    """The system calls between InstanceStart's arrival and the guest's first byte leaving, in order."""
    socket = scratch / "s.sock"
    log = scratch / "strace"
    command = ["strace", "-f", "-qq", "-o", log, vmm, "--api-sock", socket, "--id", "bench"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            if socket.exists():
                break
            time.sleep(0.01)
        curl = ["curl", "-sS", "--fail", "--unix-socket", socket, "-X", "PUT"]
        for path, body in (("machine-config", {"vcpu_count": 1, "mem_size_mib": 128}),
                           ("boot-source", {"kernel_image_path": str(kernel)})):
            subprocess.run([*curl, f"http://localhost/{path}", "-d", json.dumps(body)], check=True)
        time.sleep(0.1)
        subprocess.run([*curl, "http://localhost/actions", "-d", '{"action_type":"InstanceStart"}'], check=True)
        # The byte is there before strace has told of it.
        while not any(FIRST_BYTE.search(line) for line in log.read_text(errors="replace").splitlines()):
            if process.poll() is not None:
                raise SystemExit(f"bench: {vmm} ended before its guest's first byte")
            time.sleep(0.01)
    finally:
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)
        process.kill()
        process.wait()
    lines = log.read_text(errors="replace").splitlines()
    first = next(i for i, line in enumerate(lines) if "PUT /actions" in line and "= " in line)
    last = next(i for i, line in enumerate(lines) if i > first and FIRST_BYTE.search(line))
    calls = []
    for line in lines[first + 1:last + 1]:
        match = re.match(r"\d+ +(\w+)\(\d+, (KVM_\w+)", line) or re.match(r"\d+ +(\w+)\(", line)
        if match:
            calls.append(" ".join(match.groups()))
    return calls


def calls(build, runs):
    ours, peer = vmms(build)
    kernel = build / "guests" / "first_byte_14m.elf"
    counts = []
    for vmm in (ours, peer):
        if vmm is None:
            counts.append(None)
            continue
        with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
            made = trace(vmm, kernel, Path(scratch))
        listed = ", ".join(f"{name} {count}" for name, count in Counter(made).most_common())
        print(f"calls between InstanceStart and the first byte, {Path(vmm).name}: {listed}", file=sys.stderr)
        counts.append(len(made))
    return [Row("system calls from InstanceStart to first byte", "calls", counts[0], None, counts[1])]
