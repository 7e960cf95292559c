"""What takes a Linux guest, in the emulated host: instructions of its boot, memory of its VMM."""
import json
import os
import shutil
import sys
from pathlib import Path

from bench_tool.row import Row
from emulated_host.client import Host, Options

VMM = "/mayfly/release/mayfly-vmm"
GUEST = "/mayfly/guest"
ROOT_DRIVE = {"drive_id": "root", "path_on_host": f"{GUEST}/rootfs.erofs", "is_root_device": True, "is_read_only": True}


class Bench:
    """An emulated host with Mayfly, its guest and the stop-watch in it, for the length of a with block."""

    def __init__(self, build, icount):
        self.host = Host("bench-icount" if icount else "bench")
        # 6.12: what a host of today runs; a 6.1 one waits longer for grace periods when a VM ends.
        self.options = Options(kernel="6.12", icount=icount, parent_pid=os.getpid())
        self.build = build

    def __enter__(self):
        self.host.stop()
        self.host.start(self.options)
        release = self.build / "release"
        self.peer = shutil.which("firecracker")
        programs = [release / name for name in ("mayfly", "mayfly-vmm", "measure")]
        self.host.put(programs + ([Path(self.peer)] if self.peer else []), "/mayfly/release/")
        names = ("vmlinux", "initramfs.cpio", "rootfs.erofs", "cmdline")
        self.host.put([self.build / "guest" / name for name in names], f"{GUEST}/")
        self.cmdline = self.host.read(f"{GUEST}/cmdline").decode().strip()
        return self

    def __exit__(self, *unused):
        self.host.stop()

    def run(self, *argv, stdin=b"", timeout=300):
        result = self.host.run(list(argv), stdin=stdin, timeout=timeout)
        if result.code != 0:
            raise SystemExit(f"bench: {' '.join(argv)}: exit code {result.code}\n{result.stderr.decode(errors='replace')}")
        return result

    def measure(self, *words, requests=()):
        lines = "".join(f"PUT {path} {json.dumps(body)}\n" for path, body in requests)
        lines += 'PUT /actions {"action_type":"InstanceStart"}\n'
        return json.loads(self.run("/mayfly/release/measure", *words, stdin=lines.encode()).stdout)

    def boot_source(self, words, initrd=True):
        return ("/boot-source", {"kernel_image_path": f"{GUEST}/vmlinux", "boot_args": words,
                                 **({"initrd_path": f"{GUEST}/initramfs.cpio"} if initrd else {})})


def stages(bench):
    """What one `mayfly run` took, by stage, in microseconds; the second one, with all files in the page cache."""
    for _ in range(2):
        result = bench.run("/mayfly/release/mayfly", "run", "--no-jail", "--json", "--", "/bin/true")
    told = json.loads(result.stderr.decode().splitlines()[-1])
    return {stage["stage"]: stage["duration_us"] for stage in told["timeline"]}


def shortest_life(bench, vmm, requests):
    """Of seven: in some the host's kernel is idle for 16 ms more, waiting for a grace period, which the clock counts."""
    return min(bench.measure("life", vmm, requests=requests)["wall_us"] for _ in range(7)) / 1000


def instructions(build, runs):
    """With --icount an instruction is a nanosecond: a microsecond of the clock is a thousand of them."""
    with Bench(build, icount=True) as bench:
        kernel = stages(bench)["kernel"]
        # The guest: our kernel and init, no disk; its command is not there, so init powers off at once.
        requests = [("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128}),
                    bench.boot_source(bench.cmdline + " -- /none")]
        ours = shortest_life(bench, VMM, requests)
        peer = shortest_life(bench, f"/mayfly/release/{Path(bench.peer).name}", requests) if bench.peer else None
    return [Row("guest kernel's entry to exec of init", "M instr.", kernel / 1000, goal=40),
            Row("exec of the VMM to its exit, guest boots and powers off", "M instr.", ours, goal=55, firecracker=peer)]


BUSY = ("cat /dev/vda > /dev/null; head -c 4096 /dev/hwrng > /dev/null; ip addr add 172.16.9.2/24 dev eth0; "
        "ip link set eth0 up; ping -c 2 172.16.9.1 > /dev/null; echo console > /dev/hvc0; echo mayfly-bench-ready; sleep 600")


def memory(build, runs):
    """Private memory of a running Linux VM: what the VMM itself takes, and what mapping the kernel saves."""
    with Bench(build, icount=False) as bench:
        # By the page: with huge ones a byte counts as two megabytes.
        bench.run("sh", "-c", "echo never > /sys/kernel/mm/transparent_hugepage/enabled")
        bench.run("sh", "-c", "tunctl -t tap9 && ip addr add 172.16.9.1/24 dev tap9 && ip link set tap9 up")
        words = bench.cmdline.replace("8250.nr_uarts=0", "") + " console=ttyS0 8250.nr_uarts=1 mayfly.overlay -- /bin/sh -c "
        requests = [
            ("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128}),
            ("/drives/root", ROOT_DRIVE),
            ("/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": "tap9"}),
            ("/entropy", {}),
            ("/mayfly/console", {"ports": [{"name": "log", "output_path": "/tmp/console", "console": True}]}),
            bench.boot_source(words + f'"{BUSY}"'),
        ]
        mapped = bench.measure("memory", VMM, "128", "mayfly-bench-ready", requests=requests)
        read = bench.measure("memory", f"{VMM} --no-kernel-sharing", "128", "mayfly-bench-ready", requests=requests)
    saved = read["guest_kib"] - mapped["guest_kib"]
    print(f"guest memory, private and dirty: {mapped['guest_kib']} KiB mapped, {read['guest_kib']} KiB read", file=sys.stderr)
    return [Row("VMM outside guest memory; disk, net, entropy, console at work", "KiB", mapped["outside_kib"], goal=200),
            Row("private memory saved by mapping the kernel (more is better)", "MiB", saved / 1024, goal=4)]
