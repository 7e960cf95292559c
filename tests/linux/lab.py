"""What the Linux tests share: the emulated host with Mayfly and its guest in it, and images built for a test.

    result = mayfly_run("sh", "-c", "exit 42", options=["--vcpus", "4"])
    result.code, result.stdout, result.stderr

Paths in the emulated host: /mayfly/release has the binaries, /mayfly/guest the default guest (where mayfly looks for
it), /mayfly/images what tests build. Guests boot in one to five seconds; the limits are there to end a test that hangs.
"""

import atexit
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
sys.dont_write_bytecode = True
from emulated_host.client import Host, Options  # noqa: E402
from tap import wait_until  # noqa: E402

BUILD = Path(os.environ.get("MAYFLY_BUILD", ROOT / "build"))
MAYFLY = "/mayfly/release/mayfly"
VMM = "/mayfly/release/mayfly-vmm"
GUEST_FILES = ("vmlinux", "initramfs.cpio", "rootfs.erofs", "cmdline")

host = Host()
host_options = Options(parent_pid=os.getpid())


def use_a_host_of_two_processors():
    """Of this test program's own: where guests have several, which spin while they wait for each other."""
    host.use(f"processors-{os.getpid()}")
    atexit.register(host.stop)
    host_options.cpus = 2


def put_once(sources, directory):
    """Copies files into a directory of the host, unless just these are there: test programs share the host."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    stamp = f"/mayfly/.put-{digest.hexdigest()[:32]}"
    if host.run(["test", "-e", stamp]).code != 0:
        host.put(sources, directory)
        host.check(["touch", stamp])


def ready():
    """Boots the host unless tests/run has, and puts the binaries and the guest in."""
    if host.status() is None:
        host.start(host_options)
    host.check(["mkdir", "-p", "/mayfly/images"])
    put_once([BUILD / "release" / name for name in ("mayfly", "mayfly-vmm", "mayfly-jailer")], "/mayfly/release/")
    put_once([BUILD / "guest" / name for name in GUEST_FILES], "/mayfly/guest/")


def put_program(name):
    """A program of this machine, with its shared libraries, to where they are here."""
    path = Path(shutil.which(name) or f"/usr/bin/{name}").resolve()
    libraries = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    by_directory = {}
    for file in [str(path), *re.findall(r"(/\S+) \(0x", libraries)]:
        by_directory.setdefault(os.path.dirname(file), []).append(Path(file))
    for directory, files in by_directory.items():
        put_once(files, directory + "/")


def mayfly_run(*command, options=(), stdin=None, timeout=120, env=None):
    """`mayfly run OPTIONS -- COMMAND` in the emulated host."""
    ready()
    return host.run([MAYFLY, "run", *options, "--", *command], stdin=stdin, timeout=timeout, env=env)


def guest_cmdline():
    """What the default guest boots with, and a serial port for what it says."""
    words = (BUILD / "guest/cmdline").read_text().split()
    return " ".join(word for word in words if not word.startswith(("8250.", "earlyprintk=")))


def no_vmm_is_left():
    """mayfly has the result before its VMM is quite gone."""
    wait_until(lambda: host.run(["pidof", "mayfly-vmm"]).code != 0, "the VMM ends")


def guest_shell(text, **arguments):
    """The same with `sh -c`; stdout as text. It must succeed."""
    result = mayfly_run("sh", "-c", text, **arguments)
    if result.code != 0:
        raise AssertionError(f"{text}: exit code {result.code}\n{result.stderr.decode(errors='replace')}{result.stdout[-2000:]!r}")
    return result.stdout.decode()


def image(kind, size=None):
    """A root file system image of `kind` with the default guest's files and /marker; its path in the host."""
    ready()
    path = f"/mayfly/images/root.{kind}"
    if host.run(["test", "-e", path]).code == 0:
        return path
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        make_tree(tree)
        (tree / "marker").write_text(f"this is {kind}\n")
        if kind == "initramfs":
            # All in memory: the init of the default initramfs finds no root= and stays.
            subprocess.run(["cpio", "-i", "--quiet", "-F", BUILD / "guest/initramfs.cpio", "init"], cwd=tree, check=True)
        target = Path(folder) / f"root.{kind}"
        command = [ROOT / "rootfs/build", *(["--size", size] if size else []), kind, tree, target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"rootfs/build: {done.stdout}{done.stderr}")
        host.put([target], "/mayfly/images/")
    return path


def make_tree(tree):
    """busybox and what programs take for granted."""
    for name in ("bin", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")


def debian_guest(series):
    """(kernel, initrd) of Debian's cloud kernel in the host."""
    ready()
    directory = f"/mayfly/debian-{series}"
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "scripts/debian-guest", "--kernel", series, "--initramfs", BUILD / "guest/initramfs.cpio", folder]
        subprocess.run(command, check=True, stdout=sys.stderr)
        put_once([Path(folder) / "vmlinuz", Path(folder) / "initrd"], directory + "/")
    return f"{directory}/vmlinuz", f"{directory}/initrd"


def debian_options(series, kind="ext4"):
    """For mayfly run, with Debian's kernel of that series."""
    kernel, initrd = debian_guest(series)
    return ["--kernel", kernel, "--initrd", initrd, "--rootfs", image(kind), "--memory", "256M",
            "--boot-args", "rdinit=/load-modules"]  # fmt: skip
