"""What a jail costs: exec of the jailer to a served GET /, alone, with many mounts on the host, many at once."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_tool.native import measure, median
from bench_tool.row import Row

CROWD, CALLERS, MOUNTS = 200, 8, 500
CGROUPS = Path("/sys/fs/cgroup")
# Where `mayfly run` has its jails is a tmpfs. On ext4 each new file costs the more the more files were deleted lately
# (the kernel keeps their numbers for a minute): there the figure is that of a host where jails come and go.
MEMORY, DISK = "/dev/shm", "/tmp"


def pairs(build):
    """(jailer, VMM) of ours, and those on PATH or None."""
    peer = (shutil.which("jailer"), shutil.which("firecracker"))
    return (build / "release/mayfly-jailer", build / "release/mayfly-vmm"), peer if all(peer) else None


def groups(vmm):
    """The cgroups that jails of this VMM have left."""
    name = Path(vmm).name
    return [path for top in (CGROUPS, *CGROUPS.glob("*")) for path in (top / name).glob("b[0-9]*")]


def in_base(build, pair, place, mode, *words):
    """The stop-watch's lines, and how many jails are left once `mayfly gc` (or, for the peer, nobody) has cleaned up."""
    version = "2" if (CGROUPS / "cgroup.controllers").exists() else "1"
    base = Path(tempfile.mkdtemp(prefix="mb-", dir=place))
    base.chmod(0o755)
    ours = Path(pair[0]).name == "mayfly-jailer"
    try:
        lines = measure(build, mode, *pair, base, version, *words)
        shutil.rmtree(base / "mounts", ignore_errors=True)
        if ours:
            subprocess.run([build / "release/mayfly", "gc", "--base", base], check=True, stdout=subprocess.DEVNULL)
        left = len(list(base.glob("*/*"))) + len(groups(pair[1]))
    finally:
        shutil.rmtree(base, ignore_errors=True)
        for group in groups(pair[1]):
            group.rmdir()
    return lines, left


def jail(build, runs):
    if os.geteuid() != 0:
        print("bench: jail: left out, takes root", file=sys.stderr)
        return []
    ours, peer = pairs(build)
    figures = []
    for pair in (ours, peer):
        if pair is None:
            figures.append([None] * 9)
            continue
        alone, _ = in_base(build, pair, MEMORY, "jail", 0, runs)
        disk, _ = in_base(build, pair, DISK, "jail", 0, runs)
        crowded, _ = in_base(build, pair, MEMORY, "jail", MOUNTS, runs)
        many, left = in_base(build, pair, MEMORY, "jails", CROWD, CALLERS)
        free = measure(build, "api", pair[1], runs)
        if len(many) != CROWD + 1:
            raise SystemExit(f"bench: of {CROWD} jails only {len(many) - 1} answered")
        figures.append([median(alone, "wall_us") / 1000, median(alone, "cpu_us") / 1000,
                        median(disk, "wall_us") / 1000, median(disk, "cpu_us") / 1000,
                        (median(crowded, "wall_us") - median(alone, "wall_us")) / 1000,
                        (median(crowded, "cpu_us") - median(alone, "cpu_us")) / 1000,
                        CROWD / (many[-1]["all_us"] / 1e6), left,
                        median(alone, "private_dirty_kib") - median(free, "private_dirty_kib")])
    names = (("exec of the jailer to a served GET /, wall", "ms", 3), ("exec of the jailer to a served GET /, CPU", "ms", 1.5),
             ("the same with the base folder on a disk, wall", "ms", None), ("the same with the base folder on a disk, CPU", "ms", None),
             (f"more with {MOUNTS} mounts on the host, wall", "ms", 1.5), (f"more with {MOUNTS} mounts on the host, CPU", "ms", None),
             (f"{CROWD} jails, {CALLERS} at a time, rate", "1/s", None), ("jails left after gc", "jails", 0),
             ("private dirty memory, more than without a jail", "KiB", 0))
    return [Row(what, unit, mine, goal, theirs) for (what, unit, goal), mine, theirs in zip(names, *figures)]
