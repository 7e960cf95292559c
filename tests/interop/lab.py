"""What the interop tests share: Mayfly under the names that other people's clients look for, and the peer beside it."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.dont_write_bytecode = True
from tap import Skip  # noqa: E402

BUILD = Path(os.environ.get("MAYFLY_BUILD", ROOT / "build")).resolve()
GUESTS = BUILD / "guests"
CACHE = Path(os.environ.get("MAYFLY_CACHE") or Path.home() / ".cache" / "mayfly") / "interop"

SCRATCH = Path(tempfile.mkdtemp(prefix="mayfly-interop-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
# A jail's user must be able to look into it.
SCRATCH.chmod(0o755)


def mayfly_path():
    """A PATH on which `firecracker` and `jailer` are Mayfly."""
    links = SCRATCH / "mayfly"
    if not links.exists():
        links.mkdir()
        (links / "firecracker").symlink_to(BUILD / "release" / "mayfly-vmm")
        (links / "jailer").symlink_to(BUILD / "release" / "mayfly-jailer")
    return f"{links}:{os.environ['PATH']}"


def peer_path():
    """PATH, when the `firecracker` on it is the real one; else None."""
    found = shutil.which("firecracker")
    if not found:
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    return None if "Mayfly" in version else os.environ["PATH"]


def in_own_network(command):
    """Taps are made in a network namespace that vanishes with the test."""
    return ["unshare", "--net", *command] if os.getuid() == 0 else command


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def need_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("/dev/kvm cannot be opened")


def need_network(said):
    """Fetching failed: without a network that is a reason to skip, in continuous integration it is a failure."""
    if os.environ.get("CI"):
        raise AssertionError(said)
    last = said.strip().splitlines()[-1] if said.strip() else "no reason given"
    raise Skip(f"what it needs cannot be fetched: {last[:200]}")
