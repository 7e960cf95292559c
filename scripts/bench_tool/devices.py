"""What disk and network cost a Linux guest and its VMM together: instructions, exits, system calls, in the emulated host."""
import json
import subprocess
import tempfile
from pathlib import Path

from bench_tool.linux import GUEST, VMM, Bench
from bench_tool.row import Row

MIB = 1 << 20
DISK_MIB = 16
TAP, HOST_ADDRESS, GUEST_ADDRESS = "bench0", "172.16.9.1", "172.16.9.2"
IMAGE, DISK, CONFIG = f"{GUEST}/load.erofs", "/tmp/bench-disk", "/tmp/bench-devices.json"
LOAD, COUNT = "/mayfly/release/load", "/mayfly/release/count"
WORKLOADS = [  # key, what it is, the unit, units in it, what the guest runs
    ("r4-1", "4 KiB random read, depth 1", "request", 100, "disk r4-1 /dev/vdb read 4096 1 100 random"),
    ("r4-32", "4 KiB random read, depth 32", "request", 320, "disk r4-32 /dev/vdb read 4096 32 320 random"),
    ("w4-1", "4 KiB random write, depth 1", "request", 100, "disk w4-1 /dev/vdb write 4096 1 100 random"),
    ("w4-32", "4 KiB random write, depth 32", "request", 320, "disk w4-32 /dev/vdb write 4096 32 320 random"),
    ("r128-1", "128 KiB sequential read, depth 1", "MiB", 4, "disk r128-1 /dev/vdb read 131072 1 32"),
    ("r128-32", "128 KiB sequential read, depth 32", "MiB", 8, "disk r128-32 /dev/vdb read 131072 32 64"),
    ("w128-1", "128 KiB sequential write, depth 1", "MiB", 4, "disk w128-1 /dev/vdb write 131072 1 32"),
    ("w128-32", "128 KiB sequential write, depth 32", "MiB", 8, "disk w128-32 /dev/vdb write 131072 32 64"),
    ("send", "TCP stream from guest to host", "MiB", 4, f"send send {HOST_ADDRESS} {4 * MIB}"),
    ("receive", "TCP stream from host to guest", "MiB", 4, f"receive receive {HOST_ADDRESS} {4 * MIB}"),
    ("ask", "a byte over TCP to the host and back", "round trip", 100, f"ask ask {HOST_ADDRESS} 100"),
]
# At each line of the guest's that tells of a workload: the line, the exits so far, what the VMM did so far.
LISTEN = f"""
rm -f /tmp/said /tmp/ask /tmp/told; mkfifo /tmp/said /tmp/ask /tmp/told
{{vmm}} --no-api --config-file {CONFIG} </dev/null >/tmp/said 2>&1 & pid=$!
exec 3</tmp/said
{COUNT} $pid </tmp/ask >/tmp/told & exec 4>/tmp/ask 5</tmp/told
read -r counting <&5
while read -r line <&3; do
    case $line in
    begin*|end*) echo >&4; read -r told <&5; echo "$line|$(cat /sys/kernel/debug/kvm/exits)|$told" ;;
    done*) break ;;
    *) echo "$line" >&2 ;;
    esac
done
exec 4>&-
kill -9 $pid
wait $pid
true
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
        script = [f"ip addr add {GUEST_ADDRESS}/24 dev eth0; ip link set eth0 up", "/load nothing nothing",
                  *(f"/load {words}" for *_, words in WORKLOADS if words.startswith("disk")), "[ $1 = disk ] && echo done",
                  *(f"/load {words}" for *_, words in WORKLOADS if not words.startswith("disk")), "echo done; sleep 600"]
        (tree / "work").write_text("#!/bin/sh\nexport PATH=/bin\n" + "\n".join(script) + "\n")
        for program in (busybox, tree / "load", tree / "work"):
            program.chmod(0o755)
        for name in ("sh", "ip", "sleep", "echo"):
            (tree / "bin" / name).symlink_to("busybox")
        builder = Path(__file__).resolve().parents[2] / "rootfs/build"
        subprocess.run([builder, "erofs", tree, image], check=True, capture_output=True)
        bench.host.put([image], f"{GUEST}/")
    bench.host.put([bench.build / "release" / name for name in ("load", "count")], "/mayfly/release/")


def configuration(bench, engine):
    words = bench.cmdline.replace("8250.nr_uarts=0", "") + " console=ttyS0 8250.nr_uarts=1 -- /work " + \
        ("all" if engine == "Sync" else "disk")
    drive = {"is_root_device": False, "is_read_only": False, "io_engine": engine, "cache_type": "Writeback"}
    return {
        "boot-source": {"kernel_image_path": f"{GUEST}/vmlinux", "initrd_path": f"{GUEST}/initramfs.cpio", "boot_args": words},
        "drives": [{**drive, "drive_id": "root", "path_on_host": IMAGE, "is_root_device": True, "is_read_only": True},
                   {**drive, "drive_id": "disk", "path_on_host": DISK}],
        "network-interfaces": [{"iface_id": "net", "host_dev_name": TAP}],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
    }


def samples(text):
    """{workload: (thousand instructions, exits, system calls)} from the lines that LISTEN printed."""
    begun, found = {}, {}
    for line in filter(None, text.split("\n")):
        said, exits, told = line.split("|")
        word, name, *took = said.split()
        now = (int(exits), json.loads(told)["syscalls"])
        if word == "begin":
            begun[name] = now
        else:
            found[name] = (int(took[0]) / 1000, now[0] - begun[name][0], now[1] - begun[name][1])
    return found


def figures(bench, vmm, engine):
    """Each workload's costs, less what it costs to tell of one without work."""
    bench.host.write(CONFIG, json.dumps(configuration(bench, engine)).encode())
    told = bench.run("sh", "-c", LISTEN.replace("{vmm}", vmm))
    found = samples(told.stdout.decode())
    if "nothing" not in found:
        raise SystemExit(f"bench: the guest did no work, but said:\n{told.stderr.decode(errors='replace')}")
    nothing = found["nothing"]
    return {key: [(value - none) / units for value, none in zip(found[key], nothing)] for key, _, _, units, _ in WORKLOADS
            if key in found}


def rows(build, runs):
    table = []
    with Bench(build, icount=True) as bench:
        root_image(bench)
        bench.run("sh", "-c", f"tunctl -t {TAP} && ip addr add {HOST_ADDRESS}/24 dev {TAP} && ip link set {TAP} up; "
                              f"dd if=/dev/zero of={DISK} bs=1M count={DISK_MIB} 2>/dev/null; {LOAD} serve >/dev/null 2>&1 &")
        for engine in ("Sync", "Async"):
            ours = figures(bench, VMM, engine)
            peer = figures(bench, f"/mayfly/release/{Path(bench.peer).name}", engine) if bench.peer else {}
            for key, what, unit, _, words in WORKLOADS:
                if key not in ours:
                    continue
                beside = peer.get(key, [None] * 3)
                name = f"Linux, {what}" + (f", {engine}" if words.startswith("disk") else "")
                for title, mine, theirs in zip(("K instr.", "exits", "system calls"), ours[key], beside):
                    table.append(Row(name if title == "K instr." else "the same", f"{title}/{unit}", mine, firecracker=theirs))
    return table
