"""What a guest's request to the metadata service costs the host. QEMU has no such thing; a firecracker is the peer."""
import os
import sys

from bench_tool import machines, native
from bench_tool.net import TAP, in_network_of_its_own

REQUESTS = 500
FIRST = 100
RUNS = 3  # at most
MODES = [("a request to the metadata service, connection kept", ""),
         ("a request to the metadata service, connection of its own", "fresh")]


def machine(build, vmm):
    requests = [("/network-interfaces/net", {"iface_id": "net", "host_dev_name": TAP, "guest_mac": "02:00:00:00:00:66"}),
                ("/mmds/config", {"version": "V1", "network_interfaces": ["net"]}),
                ("/mmds", {"latest": {"meta-data": {"greeting": "hello from the host"}}})]
    return lambda cmdline: machines.Mayfly(build, vmm, build / "guests/bench/mmds.elf", cmdline, requests)


def figures(make, mode, runs):
    return machines.per_unit(lambda count: machines.run(make(f"requests={count} {mode}")), REQUESTS, runs,
                             first=FIRST)


def measure(build, runs):
    ours, peer = native.vmms(build)
    table = []
    for name, mode in MODES:
        values = [figures(machine(build, vmm), mode, min(runs, RUNS)) if vmm else None for vmm in (ours, peer)]
        table += machines.rows(name, "request", [*values, None])
    return table


def rows(build, runs):
    if os.geteuid() != 0 or not machines.can_count(build):
        print("bench: mmds: left out, takes root", file=sys.stderr)
        return []
    return in_network_of_its_own(lambda: measure(build, runs))
