"""A running microVM that has every device and uses none: what it costs beside the guest's memory."""
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench_tool import native
from bench_tool.row import Row

MEMORY_MIB = 128
TAP = "bench0"
LIMITER = {"ops": {"size": 1000, "refill_time": 100}}


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def devices(folder, with_tap):
    """The requests, in their order; a VMM that has not a device refuses it."""
    for name in ("disk", "ring", "pmem"):
        (folder / name).write_bytes(b"\0" * (2 << 20))
    yield "/machine-config", {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}
    yield "/drives/disk", {"drive_id": "disk", "path_on_host": str(folder / "disk"), "is_root_device": False,
                           "is_read_only": False, "rate_limiter": LIMITER}
    yield "/drives/ring", {"drive_id": "ring", "path_on_host": str(folder / "ring"), "is_root_device": False,
                           "is_read_only": False, "io_engine": "Async"}
    if with_tap:
        yield "/network-interfaces/net", {"iface_id": "net", "host_dev_name": TAP, "rx_rate_limiter": LIMITER,
                                          "tx_rate_limiter": LIMITER}
        yield "/mmds/config", {"network_interfaces": ["net"], "version": "V2"}
        yield "/mmds", {"latest": {"meta-data": {"instance-id": "bench"}}}
    yield "/vsock", {"guest_cid": 3, "uds_path": str(folder / "vsock")}
    yield "/balloon", {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1,
                       "free_page_hinting": True, "free_page_reporting": True}
    yield "/entropy", {"rate_limiter": LIMITER}
    yield "/pmem/pmem", {"id": "pmem", "path_on_host": str(folder / "pmem")}
    yield "/hotplug/memory", {"total_size_mib": 1024}
    yield "/mayfly/console", {"ports": [{"name": "port", "socket_path": str(folder / "port")}]}


def private_dirty_outside(pid):
    """KiB of a process's own pages that are not in the adjacent mappings that make up the guest's memory."""
    mappings = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(number, 16) for number in head.split("-"))
            mappings.append([start, end, 0])
        elif head == "Anonymous:":
            mappings[-1][2] = int(line.split()[1])
    size = MEMORY_MIB << 20
    for first in range(len(mappings)):
        last = first
        while mappings[last][1] - mappings[first][0] < size and last + 1 < len(mappings) and \
                mappings[last + 1][0] == mappings[last][1]:
            last += 1
        if mappings[last][1] - mappings[first][0] == size:
            return sum(mapping[2] for mapping in mappings[:first] + mappings[last + 1:])
    raise SystemExit("bench: the guest's memory is not among the VMM's mappings")


def measure(vmm, kernel, folder):
    with_tap = os.getuid() == 0
    api = folder / "api.sock"
    command = [str(vmm), "--api-sock", str(api), "--id", "bench"]
    if with_tap:
        command = ["unshare", "--net", "sh", "-c", f'ip tuntap add dev {TAP} mode tap && exec "$@"', "sh", *command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        while not api.exists():
            if process.poll() is not None:
                raise SystemExit(f"bench: {vmm} ended with {process.returncode}")
            time.sleep(0.01)
        connection = Connection(str(api))

        def put(path, body):
            connection.request("PUT", path, json.dumps(body))
            answer = connection.getresponse()
            answer.read()
            return answer.status == 204

        count = sum(put(path, body) for path, body in devices(folder, with_tap))
        if not put("/boot-source", {"kernel_image_path": str(kernel), "boot_args": "console=ttyS0"}) or \
                not put("/actions", {"action_type": "InstanceStart"}):
            raise SystemExit(f"bench: {vmm} did not start the guest")
        process.stdout.readline()  # "spinning"
        return private_dirty_outside(process.pid), count
    finally:
        process.kill()
        process.wait()


def memory(build, runs):
    kernel = build / "guests" / "spin.elf"
    figures = []
    for vmm in native.vmms(build):
        if vmm is None:
            figures.append(None)
            continue
        with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
            figures.append(measure(vmm, kernel, Path(scratch))[0])
    return [Row("idle VM with every device: VMM outside guest memory", "KiB", figures[0], 400, figures[1])]
