"""What disk and network cost a Linux guest and its VMM together: instructions, exits, system calls, in the emulated host."""
import subprocess
import tempfile
from pathlib import Path

from bench_tool import guests
from bench_tool.linux import GUEST, Bench
from bench_tool.row import Row

MIB = 1 << 20
DISK_MIB = 16
RUNS = 3  # at most: deep queues and streams swing from life to life
TAP, HOST_ADDRESS, GUEST_ADDRESS = "bench0", "172.16.9.1", "172.16.9.2"
IMAGE, DISK = f"{GUEST}/load.erofs", "/tmp/bench-disk"
LOAD = "/mayfly/release/load"
WORKLOADS = {  # of a guest's life: key, what it is, the unit, units in it, what the guest runs
    "disk": [
        ("r4-1", "4 KiB random read, depth 1", "request", 100, "disk r4-1 /dev/vdb read 4096 1 100 random"),
        ("r4-32", "4 KiB random read, depth 32", "request", 3840, "disk r4-32 /dev/vdb read 4096 32 3840 random"),
        ("w4-1", "4 KiB random write, depth 1", "request", 100, "disk w4-1 /dev/vdb write 4096 1 100 random"),
        ("w4-32", "4 KiB random write, depth 32", "request", 3840, "disk w4-32 /dev/vdb write 4096 32 3840 random"),
        ("r128-1", "128 KiB sequential read, depth 1", "MiB", 4, "disk r128-1 /dev/vdb read 131072 1 32"),
        ("r128-32", "128 KiB sequential read, depth 32", "MiB", 128, "disk r128-32 /dev/vdb read 131072 32 1024"),
        ("w128-1", "128 KiB sequential write, depth 1", "MiB", 4, "disk w128-1 /dev/vdb write 131072 1 32"),
        ("w128-32", "128 KiB sequential write, depth 32", "MiB", 128, "disk w128-32 /dev/vdb write 131072 32 1024"),
    ],
    "net": [
        ("send", "TCP stream from guest to host", "MiB", 16, f"send send {HOST_ADDRESS} {16 * MIB}"),
        ("receive", "TCP stream from host to guest", "MiB", 16, f"receive receive {HOST_ADDRESS} {16 * MIB}"),
        ("ask", "a byte over TCP to the host and back", "round trip", 100, f"ask ask {HOST_ADDRESS} 100"),
    ],
}
LIVES = [  # the workloads, what is said of them, how
    ("disk", ", Sync", {"engine": "Sync"}),
    ("disk", ", Async", {"engine": "Async"}),
    ("net", "", {}),
    ("net", ", both by vhost-net", {"vhost_net": True}),
]
LISTEN = """
while read -r line <&3; do
    case $line in
    begin*|end*) sample "$line" ;;
    done*) break ;;
    *) echo "$line" >&2 ;;
    esac
done
"""


def root_image(bench):
    """A root file system with a shell, and the programs that make work."""
    with tempfile.TemporaryDirectory() as folder:
        tree, image = Path(folder) / "tree", Path(folder) / "load.erofs"
        for name in ("bin", "dev", "proc", "sys", "tmp", "run"):
            (tree / name).mkdir(parents=True)
        busybox = tree / "bin/busybox"
        busybox.write_bytes(Path("/bin/busybox").read_bytes())
        (tree / "load").write_bytes((bench.build / "release/load").read_bytes())
        script = ["#!/bin/sh", "export PATH=/bin", f"ip addr add {GUEST_ADDRESS}/24 dev eth0", "ip link set eth0 up",
                  "cat /load > /dev/null", "/load nothing nothing"]
        script += [f"[ $1 != {kind} ] || /load {words}" for kind in WORKLOADS for *_, words in WORKLOADS[kind]]
        (tree / "work").write_text("\n".join([*script, "echo done", "sleep 600", ""]))
        for program in (busybox, tree / "load", tree / "work"):
            program.chmod(0o755)
        for name in ("sh", "ip", "cat", "sleep", "echo"):
            (tree / "bin" / name).symlink_to("busybox")
        builder = Path(__file__).resolve().parents[2] / "rootfs/build"
        subprocess.run([builder, "erofs", tree, image], check=True, capture_output=True)
        bench.host.put([image], f"{GUEST}/")
    bench.host.put([bench.build / "release/load"], "/mayfly/release/")


def life(bench, vmm, machine, counted):
    """{workload: (thousand instructions, exits, system calls)}, less what it costs to tell of one without work."""
    told, errors = guests.run(bench, vmm, machine, LISTEN, counted)
    begun, found = {}, {}
    for (word, name, *took), exits, calls in guests.samples(told):
        if word == "begin":
            begun[name] = exits, calls
        else:
            found[name] = int(took[0]) / 1000, exits - begun[name][0], calls - begun[name][1]
    nothing = found.pop("nothing", None)
    if nothing is None or not found:
        raise SystemExit(f"bench: the guest did no work, but said:\n{errors}")
    return {key: [value - none for value, none in zip(costs, nothing)] for key, costs in found.items()}


def figures(bench, vmm, machine, runs=1):
    """{workload: [thousand instructions, exits, system calls]}, medians of `runs` lives each."""
    plain, counted = [[life(bench, vmm, machine, counted) for _ in range(runs)] for counted in (False, True)]
    middle = [[guests.medians([lived[key] for lived in lives]) for key in plain[0]] for lives in (plain, counted)]
    return {key: [*without[:2], with_calls[2]] for key, without, with_calls in zip(plain[0], *middle)}


def life_rows(workloads, beside, costs):
    """Three rows of each workload; `costs` are what figures() gave of ours, a firecracker and QEMU (None: not there)."""
    for key, what, unit, units, _ in workloads:
        for index, title in enumerate(("K instr.", "exits", "system calls")):
            values = {name: cost and cost[key][index] / units for name, cost in zip(("mayfly", "firecracker", "qemu"), costs)}
            yield Row("the same" if index else f"Linux, {what}{beside}", f"{title}/{unit}", **values)


def rows(build, runs):
    table = []
    with Bench(build, icount=True) as bench:
        root_image(bench)
        bench.run("sh", "-c", f"tunctl -t {TAP} && ip addr add {HOST_ADDRESS}/24 dev {TAP} && ip link set {TAP} up; "
                              f"dd if=/dev/zero of={DISK} bs=1M count={DISK_MIB} 2>/dev/null; {LOAD} serve >/dev/null 2>&1 &")
        vmms = guests.vmms(bench)
        _, firecracker, _ = vmms
        for kind, beside, how in LIVES:
            machine = guests.Machine(f"/work {kind}", IMAGE, disk=DISK, tap=TAP, **how)
            able = [vmm if vmm is not firecracker or not machine.vhost_net else None for vmm in vmms]
            costs = [vmm and figures(bench, vmm, machine, min(runs, RUNS)) for vmm in able]
            table += life_rows(WORKLOADS[kind], beside, costs)
    return table
