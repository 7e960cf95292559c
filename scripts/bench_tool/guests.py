"""A Linux guest in the emulated host, the same one under Mayfly, a firecracker and QEMU: how each VMM is told of it."""
import json
import shlex
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench_tool import qemu
from bench_tool.linux import GUEST, VMM
from emulated_host.client import CommandTimeout

KERNEL, INITRD = f"{GUEST}/vmlinux", f"{GUEST}/initramfs.cpio"
CONFIG, SOCKET = "/tmp/bench.json", "/tmp/bench-v.sock"
ENGINES = {"Sync": "threads", "Async": "io_uring"}  # ours, and QEMU's of the same kind
CID = 3
# `script` reads what the guest says from descriptor 3, a pipe: looking again and again would be counted. `sample WORDS`
# prints the words, the exits so far and what the VMM did so far.
LIFE = f"""
rm -f {SOCKET} /tmp/said /tmp/ask /tmp/told; mkfifo /tmp/said /tmp/ask /tmp/told
{{vmm}} </dev/null >/tmp/said 2>&1 & pid=$!
exec 3</tmp/said
sample() {{ echo "$*|$(cat /sys/kernel/debug/kvm/exits)|{{}}"; }}
{{count}}
{{script}}
exec 4>&-
kill -9 $pid
wait $pid
true
"""
COUNT = """
/mayfly/release/count $pid </tmp/ask >/tmp/told & exec 4>/tmp/ask 5</tmp/told
read -r counting <&5
sample() { echo >&4; read -r told <&5; echo "$*|$(cat /sys/kernel/debug/kvm/exits)|$told"; }
"""


@dataclass
class Machine:
    """One processor, 128 MiB, a serial port on stdout; the first disk is the root's."""
    command: str
    root: str
    disk: str = None
    engine: str = "Sync"
    tap: str = None
    vhost_net: bool = False  # which a firecracker has not
    vsock: bool = False


def kernel_words(bench, machine):
    return bench.cmdline.replace("8250.nr_uarts=0", "") + f" console=ttyS0 8250.nr_uarts=1 %s -- {machine.command}"


class Mayfly:
    """Mayfly, or a firecracker. Its sockets between guest and host are Unix sockets on the host."""
    listen, connect = f"unix:{SOCKET}_1000", f"mux:{SOCKET}:52"

    def __init__(self, program):
        self.program = program

    def start(self, bench, machine):
        """The shell's words that start it."""
        drive = {"is_root_device": False, "is_read_only": False, "io_engine": machine.engine, "cache_type": "Writeback"}
        config = {
            "boot-source": {"kernel_image_path": KERNEL, "initrd_path": INITRD, "boot_args": kernel_words(bench, machine) % ""},
            "drives": [{**drive, "drive_id": "root", "path_on_host": machine.root, "is_root_device": True, "is_read_only": True}],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        }
        if machine.disk:
            config["drives"].append({**drive, "drive_id": "disk", "path_on_host": machine.disk})
        if machine.tap:
            config["network-interfaces"] = [{"iface_id": "net", "host_dev_name": machine.tap}]
        if machine.vhost_net:
            config["mayfly-network-interfaces"] = [{"iface_id": "net", "vhost": True}]
        if machine.vsock:
            config["vsock"] = {"guest_cid": CID, "uds_path": SOCKET}
        bench.host.write(CONFIG, json.dumps(config).encode())
        return f"{self.program} --no-api --config-file {CONFIG}"


class Qemu:
    """QEMU's microvm machine. Its sockets between guest and host are of the host's kernel, which does all of their work."""
    listen, connect = "vsock:2:1000", f"vsock:{CID}:52"

    def __init__(self, bench):
        """Copies the program, its libraries and its firmware into the emulated host."""
        self.program = shutil.which(qemu.QEMU)
        linked = subprocess.run(["ldd", self.program], check=True, capture_output=True, text=True).stdout.split()
        files = [self.program, "/usr/share/qemu/bios-microvm.bin", *(word for word in linked if word.startswith("/"))]
        folders = {}
        for file in files:
            folders.setdefault(Path(file).parent, []).append(file)
        for folder, inside in folders.items():
            bench.host.put(inside, f"{folder}/")

    def start(self, bench, machine):
        # The interrupts of its second IOAPIC do not all arrive there: a guest without a word was what came of it.
        argv = [self.program, *qemu.MACHINE, "-machine", "ioapic2=off", "-accel", "kvm", "-cpu", "host", "-serial", "stdio",
                "-global", "virtio-mmio.force-legacy=false", "-kernel", KERNEL, "-initrd", INITRD,
                "-append", kernel_words(bench, machine) % "root=/dev/vda ro"]
        devices = []
        for name, path, how in (("root", machine.root, ",readonly=on"), ("disk", machine.disk, "")):
            if path:
                argv += ["-drive", f"if=none,id={name},file={path},format=raw,cache=writeback,aio={ENGINES[machine.engine]}{how}"]
                devices.append(f"virtio-blk-device,drive={name}")
        if machine.tap:
            vhost = "on" if machine.vhost_net else "off"
            argv += ["-netdev", f"tap,id=net,ifname={machine.tap},script=no,downscript=no,vhost={vhost}"]
            devices.append("virtio-net-device,netdev=net")
        if machine.vsock:
            devices.append(f"vhost-vsock-device,guest-cid={CID}")
        return shlex.join([*argv, *(word for device in devices for word in ("-device", device))])


def vmms(bench):
    """Ours, a firecracker and QEMU; None in place of what is not on PATH."""
    bench.host.put([bench.build / "release/count"], "/mayfly/release/")
    bench.run("modprobe", "-a", "vhost_net", "vhost_vsock")
    firecracker = Mayfly(f"/mayfly/release/{Path(bench.peer).name}") if bench.peer else None
    return Mayfly(VMM), firecracker, Qemu(bench) if shutil.which(qemu.QEMU) else None


def samples(printed):
    """[(words, exits, system calls)] of the samples in what a script printed."""
    lines = [line.split("|") for line in printed.split("\n") if "|" in line]  # and not at the guest's carriage returns
    return [(words.split(), int(exits), json.loads(told).get("syscalls", 0)) for words, exits, told in lines]


def medians(runs):
    """Of each figure of several runs that have the same ones."""
    return [statistics.median(figures) for figures in zip(*runs)]


def run(bench, vmm, machine, script, counted):
    """
    What `script` printed on the host while the machine ran, and its errors. System calls are only told if `counted`,
    and each then takes some 2,000 instructions more, which a life without shows.
    """
    script = LIFE.replace("{script}", script).replace("{count}", COUNT if counted else "")
    script = script.replace("{vmm}", vmm.start(bench, machine))
    for _ in range(3):
        try:
            result = bench.run("sh", "-c", script, timeout=180)
            return result.stdout.decode(), result.stderr.decode(errors="replace")
        except CommandTimeout:
            # With a QEMU whose interrupts are not mended a guest may spin for ever there: see scripts/README.md.
            print(f"bench: a guest gave no answer in 180 s: {vmm.program}, {machine.command}", file=sys.stderr)
            # It is killed; the tap is free when it is gone.
            bench.run("sh", "-c", f"while pidof {Path(vmm.program).name}; do sleep 0.1; done")
    raise SystemExit("bench: no answer the third time")
