"""What sockets between guest and host take, in the emulated host: instructions and exits, of guest and host together."""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_tool.linux import GUEST, VMM, Bench
from bench_tool.row import Row
from emulated_host.client import CommandTimeout

PEER = "/mayfly/release/vsock_peer"
SOCKET = "/tmp/bench-v.sock"
MIB = 1 << 20
EXITS = "cat /sys/kernel/debug/kvm/exits"
SHORT, LONG = 4, 36  # MiB; the difference leaves out what is the same for both
CONNECTIONS = 1000


def root_image(bench):
    """A root file system that holds vsock_peer and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        tree, image = Path(folder) / "tree", Path(folder) / "vsock.erofs"
        for name in ("dev", "proc", "sys", "tmp", "run"):
            (tree / name).mkdir(parents=True)
        (tree / "vsock_peer").write_bytes((bench.build / "release/vsock_peer").read_bytes())
        (tree / "vsock_peer").chmod(0o755)
        builder = Path(__file__).resolve().parents[2] / "rootfs/build"
        subprocess.run([builder, "erofs", tree, image], check=True, capture_output=True)
        bench.host.put([image], f"{GUEST}/")
    bench.host.put([bench.build / "release/vsock_peer"], "/mayfly/release/")


def in_machine(bench, vmm, command, script):
    """Runs `script` on the host once the guest, whose only program is `command`, has printed its first line."""
    words = bench.cmdline.replace("8250.nr_uarts=0", "") + f" console=ttyS0 8250.nr_uarts=1 -- {command}"
    config = {
        "boot-source": {"kernel_image_path": f"{GUEST}/vmlinux", "initrd_path": f"{GUEST}/initramfs.cpio", "boot_args": words},
        "drives": [{"drive_id": "root", "path_on_host": f"{GUEST}/vsock.erofs", "is_root_device": True, "is_read_only": True}],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "vsock": {"guest_cid": 3, "uds_path": SOCKET},
    }
    bench.host.write("/tmp/vsock.json", json.dumps(config).encode())
    # A pipe that is read until the line comes: looking again and again would be counted.
    text = f"""
rm -f {SOCKET} /tmp/said; mkfifo /tmp/said
{vmm} --no-api --config-file /tmp/vsock.json </dev/null >/tmp/said 2>&1 & pid=$!
exec 3</tmp/said
while read -r line <&3; do case $line in *ready*|*" s"*) break ;; esac; done
echo "$line"
{script}
kill -9 $pid
wait $pid
true
"""
    for _ in range(2):
        try:
            return bench.run("sh", "-c", text, timeout=120).stdout.decode()
        except CommandTimeout:
            # One boot in thirty or so spins for ever in the guest's kernel, there: see scripts/README.md.
            print(f"bench: vsock: a guest gave no answer in 120 s, once more: {command}", file=sys.stderr)
    return bench.run("sh", "-c", text).stdout.decode()


def seconds(said):
    return float(re.search(r" in ([0-9.]+) s", said)[1])


def from_guest(bench, vmm, server, command):
    """(million instructions, exits) of a client in the guest, from its boot on in the case of exits."""
    script = f"{PEER} {server} unix:{SOCKET}_1000 >/dev/null & echo $!"
    pid = bench.run("sh", "-c", f"rm -f {SOCKET}_1000; {script}").stdout.decode().strip()
    try:
        said = in_machine(bench, vmm, f"/vsock_peer {command} stay", EXITS)
    finally:
        bench.run("sh", "-c", f"kill {pid}; rm -f {SOCKET}_1000")
    return seconds(said) * 1000, int(said.split()[-1])


def from_host(bench, vmm, server, command):
    """The same of a client on the host."""
    said = in_machine(bench, vmm, f"/vsock_peer {server} vsock:3:52", f"{EXITS}; {PEER} {command}; {EXITS}")
    before, after = [int(line) for line in said.splitlines() if line.strip().isdigit()]
    return seconds(said) * 1000, after - before


def difference(measure, short, long, units):
    """What one unit takes, from two runs of different lengths."""
    (short_instructions, short_exits), (long_instructions, long_exits) = measure(short), measure(long)
    return (long_instructions - short_instructions) / units, (long_exits - short_exits) / units


def figures(bench, vmm):
    to_host = difference(lambda mib: from_guest(bench, vmm, "sink", f"send vsock:2:1000 {mib * MIB}"), SHORT, LONG, LONG - SHORT)
    to_guest = difference(lambda mib: from_host(bench, vmm, "sink", f"send mux:{SOCKET}:52 {mib * MIB}"), SHORT, LONG, LONG - SHORT)
    half = CONNECTIONS // 2
    guest = difference(lambda n: from_guest(bench, vmm, "echo", f"connect vsock:2:1000 {n}"), half, 2 * half, half)
    host = difference(lambda n: from_host(bench, vmm, "echo", f"connect mux:{SOCKET}:52 {n}"), half, 2 * half, half)
    return [to_host, to_guest, guest, host]


def rows(build, runs):
    print("bench: vsock: without QEMU, whose vsock is the host's vhost-vsock: the emulated host has that, but no QEMU", file=sys.stderr)
    with Bench(build, icount=True) as bench:
        root_image(bench)
        ours = figures(bench, VMM)
        peer = figures(bench, f"/mayfly/release/{Path(bench.peer).name}") if bench.peer else [(None, None)] * len(ours)
    names = [("vsock, a MiB from guest to host", "M instr.", 1), ("vsock, a MiB from host to guest", "M instr.", 1),
             ("vsock, a connection from guest to host, a byte there and back", "K instr.", 1000),
             ("vsock, a connection from host to guest, a byte there and back", "K instr.", 1000)]
    table = []
    for (name, unit, factor), (instructions, exits), (peer_instructions, peer_exits) in zip(names, ours, peer):
        table.append(Row(name, unit, instructions * factor,
                         firecracker=peer_instructions and peer_instructions * factor))
        table.append(Row("the same", "exits", exits, firecracker=peer_exits))
    return table
