"""What a GET of the API costs, on a connection that is kept and on one of its own."""
import os
import shutil
import tempfile

from bench_tool import machines, qemu
from bench_tool.native import measure, vmms
from bench_tool.row import Row

COUNT, QEMU_COUNT = 5000, 1000


def ask_qemu(build, kept):
    """The like: query-status over QMP, which greets and negotiates on each connection."""
    if shutil.which(qemu.QEMU) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
        machine = qemu.Qemu(folder, [])
        count = machines.Count(build, machine.process.pid)
        try:
            before = count.read()
            for _ in range(QEMU_COUNT):
                if not kept:
                    machine.connect_again()
                machine.ask("query-status")
            after = count.read()
        finally:
            count.end()
            machine.end()
    return {name: (after[name] - before[name]) / QEMU_COUNT for name in ("syscalls", "cpu_us")}


def rows(build, runs):
    ours, peer = vmms(build)
    traced = os.geteuid() == 0 and machines.can_count(build)
    table = []
    for mode, what in (("kept", "a GET of the API, connection kept"), ("fresh", "a GET of the API, connection of its own")):
        mine = measure(build, "requests", ours, COUNT, mode)[0]
        theirs = measure(build, "requests", peer, COUNT, mode)[0] if peer else {}
        other = (ask_qemu(build, mode == "kept") if traced else None) or {}
        for key, unit in (("syscalls", "system calls"), ("cpu_us", "us CPU"), ("wall_us", "us")):
            if key in mine:
                table.append(Row(what, unit, mine[key], firecracker=theirs.get(key), qemu=other.get(key)))
    return table
