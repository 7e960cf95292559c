"""What network traffic costs the host: frames between a tap and a freestanding guest on this machine's own KVM."""
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from bench_tool import machines, native, qemu

TAP = "bench0"
SMALL_TYPE = 0x88b5  # an EtherType for experiments
RUNS = 3  # at most
FIRST = 256  # frames, as many as a queue has buffers
CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_VNET_HDR = 263, 15
HEADERS, SEGMENT, LARGE = 54, 1448, 15 * 4096
GUEST, HOST = bytes.fromhex("020000000066"), bytes.fromhex("020000000077")


def in_network_of_its_own(function):
    """Runs it in a network namespace that is new, and so is that of the processes which it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace")
    try:
        subprocess.run(["ip", "tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr"], check=True)
        # No word but ours.
        if os.path.exists(f"/proc/sys/net/ipv6/conf/{TAP}"):
            Path(f"/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "link", "set", TAP, "txqueuelen", "8192", "up"], check=True)
        return function()
    finally:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)


def large_frame():
    """A virtio_net_hdr and a TCP frame of 60 KiB that the guest's side is to cut into segments, if anybody is."""
    header = struct.pack("<BBHHHH", 1, 1, HEADERS, SEGMENT, 14 + 20, 16)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + 20 + LARGE, 0, 0, 64, 6, 0, bytes([10, 9, 0, 3]), bytes([10, 9, 0, 2]))
    tcp = struct.pack(">HHIIBBHHH", 2000, 1000, 0, 0, 0x50, 0x10, 0, 0, 0)
    return header + GUEST + HOST + b"\x08\x00" + ip + tcp + bytes(LARGE)


def send_large(count):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        tap.bind((TAP, 0))
        frame = large_frame()
        for _ in range(count):
            tap.send(frame)


def ask(count):
    """Small frames, each of which waits for its answer."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(SMALL_TYPE)) as tap:
        tap.bind((TAP, SMALL_TYPE))
        tap.settimeout(machines.PATIENCE)
        frame = GUEST + HOST + SMALL_TYPE.to_bytes(2, "big") + bytes(50)
        for _ in range(count):
            tap.send(frame)
            while tap.recvfrom(2048)[1][2] == socket.PACKET_OUTGOING:
                pass


WORKLOADS = [  # name, unit, op, the host's part, frames, units in a frame
    ("TCP stream from guest to host", "MiB", "send", None, 2000, LARGE / (1 << 20)),
    ("TCP stream from host to guest", "MiB", "receive", send_large, 1000, LARGE / (1 << 20)),
    ("a packet to the guest and one back", "round trip", "answer", ask, 1000, 1),
]


def ours(build, vmm, vhost="off"):
    interface = {"iface_id": "net", "host_dev_name": TAP, "guest_mac": "02:00:00:00:00:66"}
    puts = [("/network-interfaces/net", interface)]
    if vhost == "on":
        puts.append(("/mayfly/network-interfaces/net", {"iface_id": "net", "vhost": True}))
    return lambda cmdline: machines.Mayfly(build, vmm, build / "guests/bench/net.elf", cmdline, puts)


def peer_qemu(build, vhost):
    arguments = ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no,vhost={vhost}",
                 "-device", "virtio-net-device,netdev=net,mac=02:00:00:00:00:66"]
    return lambda cmdline: machines.Microvm(build, build / "guests/bench/net.elf", cmdline, arguments)


def figures(make, op, work, frames, units, runs):
    def life(count):
        return machines.run(make(f"op={op} frames={count}"), work and (lambda: work(count)))

    return {name: value / units for name, value in machines.per_unit(life, frames, runs, first=FIRST).items()}


def measure(build, runs):
    mine, theirs = native.vmms(build)
    vhosts = ["off", "on"] if os.path.exists("/dev/vhost-net") else ["off"]
    if len(vhosts) == 1:
        print("bench: net: no /dev/vhost-net here: nobody with it", file=sys.stderr)
    table = []
    for vhost in vhosts:
        firecracker = ours(build, theirs) if theirs and vhost == "off" else None
        makers = [ours(build, mine, vhost), firecracker, peer_qemu(build, vhost) if shutil.which(qemu.QEMU) else None]
        beside = ", both by vhost-net" if vhost == "on" else ""
        for name, unit, *work in WORKLOADS:
            table += machines.rows(name + beside, unit, [make and figures(make, *work, min(runs, RUNS)) for make in makers])
    return table


def rows(build, runs):
    if os.geteuid() != 0 or not machines.can_count(build):
        print("bench: net: left out, takes root", file=sys.stderr)
        return []
    return in_network_of_its_own(lambda: measure(build, runs))
