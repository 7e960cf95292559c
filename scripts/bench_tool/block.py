"""What a disk request costs the host, for a freestanding guest on this machine's own KVM, by both engines."""
import shutil
import tempfile
from pathlib import Path

from bench_tool import machines, native, qemu

DISK_MIB = 64
RUNS = 3  # at most
WORKLOADS = [  # name, the guest's words, requests at depth 1 and 32
    ("4 KiB random read", "op=read size=4096 random", (1000, 3200)),
    ("4 KiB random write", "op=write size=4096 random", (1000, 3200)),
    ("128 KiB sequential read", "op=read size=131072", (500, 960)),
    ("128 KiB sequential write", "op=write size=131072", (500, 960)),
]
ENGINES = {"Sync": "threads", "Async": "io_uring"}  # ours, and QEMU's of the same kind


def ours(build, vmm, disk, engine):
    drive = {"drive_id": "disk", "path_on_host": str(disk), "is_root_device": False, "is_read_only": False,
             "io_engine": engine, "cache_type": "Writeback"}
    return lambda cmdline: machines.Mayfly(build, vmm, build / "guests/bench/block.elf", cmdline, [("/drives/disk", drive)])


def peer_qemu(build, disk, engine):
    arguments = ["-drive", f"if=none,id=disk,file={disk},format=raw,cache=writeback,aio={engine}",
                 "-device", "virtio-blk-device,drive=disk"]
    return lambda cmdline: machines.Microvm(build, build / "guests/bench/block.elf", cmdline, arguments)


def figures(make, words, depth, requests, runs):
    words = f"{words} depth={depth}"
    return machines.per_unit(lambda count: machines.run(make(f"{words} requests={count}")), requests, runs, first=depth)


def rows(build, runs):
    if not machines.can_count(build):
        return []
    mine, theirs = native.vmms(build)
    table = []
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-", dir=build) as folder:
        disk = Path(folder) / "disk"
        disk.write_bytes(b"\1" * (DISK_MIB << 20))
        for engine, qemu_engine in ENGINES.items():
            makers = [ours(build, mine, disk, engine), ours(build, theirs, disk, engine) if theirs else None,
                      peer_qemu(build, disk, qemu_engine) if shutil.which(qemu.QEMU) else None]
            for name, words, counts in WORKLOADS:
                for depth, count in zip((1, 32), counts):
                    values = [make and figures(make, words, depth, count, min(runs, RUNS)) for make in makers]
                    table += machines.rows(f"{name}, depth {depth}, {engine}", "request", values)
    return table
