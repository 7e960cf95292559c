"""What sockets between guest and host take, in the emulated host: instructions and exits, of guest and host together."""
import re
import subprocess
import tempfile
from pathlib import Path

from bench_tool import guests
from bench_tool.linux import GUEST, Bench
from bench_tool.row import Row

PEER, IMAGE = "/mayfly/release/vsock_peer", f"{GUEST}/vsock.erofs"
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
    # A pipe that is read until the line comes: looking again and again would be counted.
    text = f"""
rm -f /tmp/said; mkfifo /tmp/said
{{vmm}} </dev/null >/tmp/said 2>&1 & pid=$!
exec 3</tmp/said
while read -r line <&3; do case $line in *ready*|*" s"*) break ;; esac; done
echo "$line"
{script}
kill -9 $pid
wait $pid
true
"""
    return guests.run(bench, vmm, guests.Machine(command, IMAGE, vsock=True), text)[0]


def seconds(said):
    return float(re.search(r" in ([0-9.]+) s", said)[1])


def from_guest(bench, vmm, server, command):
    """(million instructions, exits) of a client in the guest, from its boot on in the case of exits."""
    script = f"rm -f {guests.SOCKET}_1000; {PEER} {server} {vmm.listen} >/dev/null & echo $!"
    pid = bench.run("sh", "-c", script).stdout.decode().strip()
    try:
        said = in_machine(bench, vmm, f"/vsock_peer {command} stay", EXITS)
    finally:
        bench.run("kill", pid)
    return seconds(said) * 1000, int(said.split()[-1])


def from_host(bench, vmm, server, command):
    """The same of a client on the host."""
    said = in_machine(bench, vmm, f"/vsock_peer {server} vsock:{guests.CID}:52", f"{EXITS}; {PEER} {command}; {EXITS}")
    before, after = [int(line) for line in said.splitlines() if line.strip().isdigit()]
    return seconds(said) * 1000, after - before


def difference(measure, short, long, units):
    """What one unit takes, from two runs of different lengths."""
    (short_instructions, short_exits), (long_instructions, long_exits) = measure(short), measure(long)
    return (long_instructions - short_instructions) / units, (long_exits - short_exits) / units


def figures(bench, vmm):
    half = CONNECTIONS // 2
    return [
        difference(lambda mib: from_guest(bench, vmm, "sink", f"send vsock:2:1000 {mib * MIB}"), SHORT, LONG, LONG - SHORT),
        difference(lambda mib: from_host(bench, vmm, "sink", f"send {vmm.connect} {mib * MIB}"), SHORT, LONG, LONG - SHORT),
        difference(lambda count: from_guest(bench, vmm, "echo", f"connect vsock:2:1000 {count}"), half, 2 * half, half),
        difference(lambda count: from_host(bench, vmm, "echo", f"connect {vmm.connect} {count}"), half, 2 * half, half),
    ]


def rows(build, runs):
    with Bench(build, icount=True) as bench:
        root_image(bench)
        columns = [vmm and figures(bench, vmm) for vmm in guests.vmms(bench)]
    names = [("vsock, a MiB from guest to host", "M instr.", 1), ("vsock, a MiB from host to guest", "M instr.", 1),
             ("vsock, a connection from guest to host, a byte there and back", "K instr.", 1000),
             ("vsock, a connection from host to guest, a byte there and back", "K instr.", 1000)]
    table = []
    for number, (name, unit, factor) in enumerate(names):
        costs = {vmm: column and column[number] for vmm, column in zip(("mayfly", "firecracker", "qemu"), columns)}
        table.append(Row(name, unit, **{vmm: cost and cost[0] * factor for vmm, cost in costs.items()}))
        table.append(Row("the same", "exits", **{vmm: cost and cost[1] for vmm, cost in costs.items()}))
    return table
