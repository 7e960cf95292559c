"""A guest under a VMM of its own, in the emulated host, that is talked to while it runs: by the API, and by its serial port.

    with Guest({"balloon": {...}}) as guest:
        guest.ask("free")           # runs in the guest; what it says
        guest.patch("/balloon", {"amount_mib": 64})
        guest.pss_mib()             # what the VMM takes of the host's memory
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from lab import ROOT, VMM, guest_cmdline, host, image, no_vmm_is_left, put_once, ready
from tap import wait_until

PLACE = "/mayfly/running"
SOCKET = f"{PLACE}/api.sock"
REQUEST = "/mayfly/api_request"
PATIENCE = 120
LOOK_SECONDS = 0.2
END = re.compile(r"@@(\d+)\n")
# Says that it is there; reads a line, runs it, says how it went.
SHELL = "echo @@0; while read -r line; do eval $line; echo @@$?; done"


@cache
def prepare():
    ready()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "api_request"
        subprocess.run(["musl-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-static", "-o", program,
                        ROOT / "tests/linux/api_request.c"], check=True, stdout=sys.stderr)  # fmt: skip
        put_once([program], "/mayfly/")


def default_boot(more=""):
    """The default guest with a shell on its serial port."""
    return {
        "boot-source": {"kernel_image_path": "/mayfly/guest/vmlinux", "initrd_path": "/mayfly/guest/initramfs.cpio",
                        "boot_args": f'{guest_cmdline()} console=ttyS0 {more} -- sh -c "{SHELL}"'},
        "drives": [{"drive_id": "root", "path_on_host": image("erofs"), "is_root_device": True, "is_read_only": True}],
    }  # fmt: skip


def wait_for(condition, what):
    """wait_until, but leaves the emulated host its processors between two looks."""

    def look():
        time.sleep(LOOK_SECONDS)
        return condition()

    if not condition():
        wait_until(look, what, PATIENCE)


class Guest:
    """`configuration` is what a --config-file has, beside (or in place of) the default guest."""

    def __init__(self, configuration, memory=256, vcpus=1, more="", shell=True):
        prepare()
        self.configuration = {"machine-config": {"vcpu_count": vcpus, "mem_size_mib": memory}}
        if shell:
            self.configuration.update(default_boot(more))
        self.configuration.update(configuration)
        self.shell = shell
        self.commands = 0

    def __enter__(self):
        # A program that was ended by its limit leaves its VMM to the next.
        host.check(["sh", "-c", f"kill -9 $(cat {PLACE}/pid) 2>/dev/null; rm -rf {PLACE}; mkdir -p {PLACE}; mkfifo {PLACE}/in"])
        host.write(f"{PLACE}/config.json", json.dumps(self.configuration).encode())
        # Its input is held open at both ends: nobody waits for anybody, and it never ends.
        host.check(["sh", "-c", f"cd {PLACE}; exec 3<>in; ({VMM} --api-sock {SOCKET} --config-file config.json <&3 >out 2>log & "
                                "echo $! >pid; wait $!; echo $? >code) >/dev/null 2>&1 &"])  # fmt: skip
        wait_until(lambda: host.run(["test", "-s", f"{PLACE}/pid"]).code == 0, "the VMM is started")
        self.pid = host.read(f"{PLACE}/pid").decode().strip()
        if self.shell:
            try:
                self.await_said(END.search, "the guest's shell is there")
                self.ask("mount -t tmpfs -o size=4g none /tmp")
            except AssertionError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_):
        host.run(["kill", "-9", self.pid])
        no_vmm_is_left()

    # What it says.

    def look(self):
        """What the serial port has said, and the VMM's exit code, None while it runs."""
        found = host.check(["sh", "-c", f"cat {PLACE}/out; echo; echo; cat {PLACE}/code 2>/dev/null || echo runs"]).stdout
        said, code = found.decode(errors="replace").replace("\r", "").rstrip("\n").rsplit("\n", 1)
        return said.removesuffix("\n"), None if code == "runs" else int(code)

    def log(self):
        return host.read(f"{PLACE}/log").decode(errors="replace")

    def await_said(self, condition, what):
        """Waits until what was said is as wanted; returns it."""
        said = ""

        def found():
            nonlocal said
            said, code = self.look()
            return condition(said) or code is not None

        try:
            wait_for(found, what)
            assert condition(said), f"the VMM ended before: {what}"
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{said[-2000:]}\n{self.log()[-2000:]}") from None
        return said

    def tell(self, text):
        host.check(["sh", "-c", f"cat >{PLACE}/in"], stdin=text.encode())

    def start(self, command):
        """Runs a line in the guest; call the result for what it said, once it has ended."""
        self.commands += 1
        number = self.commands
        self.tell(command + "\n")

        def finish(code=0):
            said = self.await_said(lambda said: len(END.findall(said)) > number, f"the guest has done: {command}")
            text, found = END.split(said)[2 * number : 2 * number + 2]
            assert int(found) == code, f"{command}: exit code {found}, expected {code}\n{text}"
            return text.split("\n", 1)[1] if "\n" in text else ""  # the first line is the echo

        return finish

    def has_ended(self, number):
        """Whether the `number`th command has."""
        return len(END.findall(self.look()[0])) > number

    def ask(self, command, code=0):
        return self.start(command)(code)

    def meminfo_mib(self, name="MemTotal"):
        return int(re.search(r"(\d+) kB", self.ask(f"grep ^{name}: /proc/meminfo").split(":")[-1])[1]) / 1024

    def touch_memory(self, mib):
        """Has the guest write that much, and give it up."""
        self.ask(f"dd if=/dev/zero of=/tmp/touched bs=1M count={mib} 2>/dev/null && rm /tmp/touched")

    # The VMM.

    def request(self, method, path, body=None):
        words = [REQUEST, SOCKET, method, path] + ([json.dumps(body)] if body is not None else [])
        result = host.run(words, timeout=PATIENCE)
        assert result.code == 0, f"{method} {path} {body}: {(result.stdout + result.stderr).decode()}\n{self.log()[-1000:]}"
        return json.loads(result.stdout) if result.stdout.strip() else None

    def get(self, path):
        return self.request("GET", path)

    def patch(self, path, body):
        return self.request("PATCH", path, body)

    def await_answer(self, path, condition, what):
        last = None

        def found():
            nonlocal last
            last = self.get(path)
            return condition(last)

        try:
            wait_for(found, what)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{last}\n{self.look()[0][-1500:]}") from None
        return last

    def pss_mib(self):
        return int(host.check(["awk", "/^Pss:/ { print $2 }", f"/proc/{self.pid}/smaps_rollup"]).stdout) / 1024

    def await_pss(self, condition, what):
        last = None

        def found():
            nonlocal last
            last = self.pss_mib()
            return condition(last)

        try:
            wait_for(found, what)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: it is {last:.0f} MiB") from None
