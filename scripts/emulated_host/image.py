"""The emulated host's kernel and initramfs, and Debian's kernels in general: fetched and built once into the cache.

Kernels come from Debian's packages with `apt-get download`, are unpacked, and never installed.
"""

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from emulated_host.cpio import Archive

HERE = Path(__file__).resolve().parent

# What --kernel takes: a name, and the package that depends on the newest kernel of that series.
KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}

# What the emulated host may load, with all that these depend on. Only init's few are loaded at once.
MODULES = (
    "virtio_pci virtio_console virtio_blk virtio_net virtio_rng kvm kvm-amd tun tap veth bridge macvtap vhost_net "
    "vhost_vsock vsock_loopback overlay loop squashfs erofs ext4 fuse dm-mod nbd null_blk userfaultfd "
    "iptable_nat xt_MASQUERADE nf_tables nft_masq"
).split()


class ImageError(Exception):
    pass


def cache_directory():
    base = os.environ.get("MAYFLY_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mayfly"


def is_named(file, name):
    try:
        return os.path.samestat(os.fstat(file.fileno()), name.stat())
    except FileNotFoundError:
        return False


@contextmanager
def locked(path, mode=0o777, wait=True):
    """
    One process at a time builds or removes what is at `path`; `mode` is of the folder that it is in. Without `wait`
    BlockingIOError when another is at it. Yields the lock's file, which may be removed then: who waited for it finds
    that it has no name any more, and takes the next.
    """
    name = Path(f"{path}.lock")
    while True:
        path.parent.mkdir(mode=mode, parents=True, exist_ok=True)
        try:
            lock = open(name, "w")
        except FileNotFoundError:  # the folder went, too
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if is_named(lock, name):
                yield name
                return


def run(*argv, **options):
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise ImageError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def say(text):
    print(f"testhost: {text}", file=sys.stderr, flush=True)


class DebianKernel:
    """A kernel of Debian, unpacked: `image` is the bzImage, `modules_root` has lib/modules/RELEASE, `config` its configuration."""

    def __init__(self, root):
        self.modules_root = root
        self.image = next((root / "boot").glob("vmlinuz-*"))
        self.release = self.image.name.removeprefix("vmlinuz-")
        self.config = root / "boot" / f"config-{self.release}"
        self._paths = None

    def _index(self):
        """{module name: (path, [paths that it needs])}, from modules.dep."""
        if self._paths is None:
            base = self.modules_root / "lib/modules" / self.release
            self._paths = {}
            for line in (base / "modules.dep").read_text().splitlines():
                path, _, needs = line.partition(":")
                self._paths[module_name(path)] = (path, needs.split())
            self._builtin = {module_name(line) for line in (base / "modules.builtin").read_text().split()}
        return self._paths

    def module_closure(self, names):
        """[(path below lib/modules/RELEASE, without .xz; contents)], each after what it needs. Built-in ones are left out."""
        index = self._index()
        order = []
        for name in names:
            name = module_name(name)
            if name not in index:
                if name in self._builtin:
                    continue
                raise ImageError(f"kernel {self.release} has no module {name}")
            path, needs = index[name]
            order += [need for need in reversed(needs) if need not in order]
            if path not in order:
                order.append(path)
        base = self.modules_root / "lib/modules" / self.release
        return [(path.removesuffix(".xz"), read_module(base / path)) for path in order]

    def has_module(self, name):
        return module_name(name) in self._index()


def module_name(path):
    return re.sub(r"\.ko(\.xz)?$", "", os.path.basename(path)).replace("-", "_")


def read_module(path):
    """Without its signature, which takes an emulated CPU a long time to check."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        data = lzma.decompress(data)
    magic = b"~Module signature appended~\n"
    if data.endswith(magic):
        data = data[: -len(magic)]
        (length,) = struct.unpack(">I", data[-4:])
        data = data[: -12 - length]
    return data


def cached_kernel(package):
    """The newest unpacked kernel of that series, when there is one: so that no start needs apt."""
    marker = cache_directory() / "kernels" / package
    if marker.is_symlink() and marker.exists():
        return DebianKernel(marker.resolve())
    return None


def debian_kernel(series="6.1"):
    """Downloads and unpacks it unless the cache has it."""
    if series not in KERNELS:
        raise ImageError(f'kernel "{series}": expected {" or ".join(KERNELS)}')
    package = KERNELS[series]
    marker = cache_directory() / "kernels" / package
    with locked(marker):
        kernel = cached_kernel(package)
        if kernel:
            return kernel
        depends = run("apt-cache", "depends", package)
        found = re.search(r"Depends: (linux-image-\S+)", depends)
        if not found:
            raise ImageError(f"apt does not know {package}; run apt-get update")
        real = found[1]
        say(f"downloading {real} (once; it is unpacked into the cache, not installed)")
        work = marker.parent / f"{real}.tmp"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        # Without a sandbox user: the cache is ours alone, and apt would warn.
        run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", real, cwd=work)
        package_file = next(work.glob("*.deb"))
        run("dpkg-deb", "-x", package_file, work)
        package_file.unlink()
        shutil.rmtree(work / "usr", ignore_errors=True)
        unpacked = DebianKernel(work)
        run("depmod", "-b", work, unpacked.release, env={**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        final = marker.parent / real
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
        marker.unlink(missing_ok=True)
        marker.symlink_to(final.name)
        return DebianKernel(final)


def build_agent(target):
    run("musl-gcc", "-static", "-O2", "-Wall", "-o", target, HERE / "agent.c")


def build_initramfs(kernel, target):
    """busybox with all its names, the modules, init and the agent."""
    work = Path(f"{target}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    stage = work / "lib/modules" / kernel.release
    stage.mkdir(parents=True)
    names = [name for name in MODULES if kernel.has_module(name)]
    for path, data in kernel.module_closure(names):
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).write_bytes(data)
    # depmod wants the order; the host's modprobe wants to know what is built in.
    for name in ("modules.order", "modules.builtin"):
        shutil.copy(kernel.modules_root / "lib/modules" / kernel.release / name, stage)
    run("depmod", "-b", work, kernel.release, env={**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    build_agent(work / "agent")

    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise ImageError("no /bin/busybox: run scripts/setup --for run")
    with open(work / "archive", "wb") as stream:
        archive = Archive(stream)
        for path in ("dev", "proc", "sys", "run", "mnt", "home", "root", "usr/bin", "usr/local/bin"):
            archive.directory(path)
        archive.directory("tmp", 0o1777)
        archive.character_device("dev/console", 5, 1)
        archive.character_device("dev/null", 1, 3, 0o666)
        archive.copy("bin/busybox", busybox)
        for applet in run(busybox, "--list-full").split():
            name = os.path.basename(applet)
            if name != "busybox":
                archive.symlink(f"{'sbin' if 'sbin/' in applet else 'bin'}/{name}", "/bin/busybox")
        archive.file("init", (HERE / "init").read_bytes(), 0o755)
        archive.file("sbin/start", (HERE / "start").read_bytes(), 0o755)
        archive.copy("sbin/agent", work / "agent")
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        archive.file("etc/group", b"root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n")
        for path in sorted((work / "lib").rglob("*")):
            if path.is_file():
                archive.copy(str(path.relative_to(work)), path)
        archive.close()
    os.rename(work / "archive", target)
    shutil.rmtree(work)


def emulated_host_image(series="6.1"):
    """(kernel, initramfs path); rebuilt when anything that goes into it has changed."""
    kernel = debian_kernel(series)
    digest = hashlib.sha256(kernel.release.encode())
    for name in ("agent.c", "init", "start", "image.py", "cpio.py"):
        digest.update((HERE / name).read_bytes())
    digest.update(Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b"")
    target = cache_directory() / "testhost" / f"{kernel.release}-{digest.hexdigest()[:16]}.cpio"
    with locked(cache_directory() / "testhost" / "build"):
        if not target.exists():
            for old in target.parent.glob(f"{kernel.release}-*.cpio"):
                old.unlink()
            build_initramfs(kernel, target)
    return kernel, target


def delivery_plugin():
    """What keeps QEMU from delivering guests' interrupts twice (one_delivery.c); None for a QEMU whose interface is another."""
    said = run("qemu-system-x86_64", "-help")
    found = re.search(r"version (\d+)", said)
    if not found or int(found[1]) > 8 or "-plugin" not in said:
        return None
    source = HERE / "one_delivery.c"
    target = cache_directory() / "testhost" / f"one_delivery-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    with locked(cache_directory() / "testhost" / "build"):
        if not target.exists():
            for old in target.parent.glob("one_delivery-*"):
                old.unlink()
            run("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", f"{target}.tmp", source)
            os.rename(f"{target}.tmp", target)
    return target
