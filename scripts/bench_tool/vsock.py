"""What sockets between guest and host take, in the emulated host: instructions of guest and host together, exits, system calls."""
import re
import subprocess
import tempfile
from pathlib import Path

from bench_tool import guests
from bench_tool.linux import GUEST, Bench
from bench_tool.row import Row

PEER, IMAGE = "/mayfly/release/vsock_peer", f"{GUEST}/vsock.erofs"
MIB = 1 << 20
SHORT, LONG = 4, 36  # MiB
CONNECTIONS = 1000
RUNS = 3  # at most


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


def life(bench, vmm, command, client, counted):
    work = f"sample; {client}; sample" if client else "sample"
    script = f'while read -r line <&3; do case $line in *ready*|*" s"*) break ;; esac; done; echo "$line"; {work}'
    printed, _ = guests.run(bench, vmm, guests.Machine(command, IMAGE, vsock=True), script, counted)
    (_, *before), *after = guests.samples(printed)
    took = float(re.search(r" in ([0-9.]+) s", printed)[1])
    return took, *([now - then for now, then in zip(after[0][1:], before)] if client else before)


def in_machine(bench, vmm, command, client=None):
    """
    (seconds, exits, system calls) of a client: of `client` on the host once the guest, whose only program is `command`,
    is ready, or of `command` itself, from the guest's boot on in the case of exits and calls.
    """
    return *life(bench, vmm, command, client, False)[:2], life(bench, vmm, command, client, True)[2]


def from_guest(bench, vmm, server, command):
    script = f"rm -f {guests.SOCKET}_1000; {PEER} {server} {vmm.listen} >/dev/null & echo $!"
    pid = bench.run("sh", "-c", script).stdout.decode().strip()
    try:
        return in_machine(bench, vmm, f"/vsock_peer {command} stay")
    finally:
        bench.run("kill", pid)


def from_host(bench, vmm, server, command):
    return in_machine(bench, vmm, f"/vsock_peer {server} vsock:{guests.CID}:52", f"{PEER} {command}")


def difference(measure, short, long, units):
    """What one unit takes, from two runs of different lengths: it leaves out what is the same for both."""
    return [(more - less) / units for less, more in zip(measure(short), measure(long))]


def figures(bench, vmm, runs):
    return [guests.medians(each) for each in zip(*(figures_once(bench, vmm) for _ in range(runs)))]


def figures_once(bench, vmm):
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
        columns = [vmm and figures(bench, vmm, min(runs, RUNS)) for vmm in guests.vmms(bench)]
    names = [("vsock, a MiB from guest to host", "MiB"), ("vsock, a MiB from host to guest", "MiB"),
             ("vsock, a connection from guest to host, a byte there and back", "connection"),
             ("vsock, a connection from host to guest, a byte there and back", "connection")]
    table = []
    for number, (name, per) in enumerate(names):
        for index, (title, factor) in enumerate((("K instr.", 1e6), ("exits", 1), ("system calls", 1))):
            costs = {vmm: column and column[number][index] * factor
                     for vmm, column in zip(("mayfly", "firecracker", "qemu"), columns)}
            table.append(Row("the same" if index else name, f"{title}/{per}", **costs))
    return table
