"""A Linux guest on a tap of the emulated host.

The guests boot without ACPI: their devices are those of the kernel command line, their interrupts those of the MP table.
"""

import json

from lab import VMM, host, image, ready
from tap import expect, wait_until

HOST, GUEST, MAC = "172.16.0.1", "172.16.0.2", "06:00:ac:10:00:02"


def tap_up():
    host.check(["sh", "-c", f"ip link show tap0 2>/dev/null || (tunctl -t tap0 && ip addr add {HOST}/24 dev tap0 && ip link set tap0 up)"])


def guest_on_network(script, timeout=120, mtu=None, mmds=None, metadata=None, interface=None, vcpus=1, vmm=(VMM,)):
    """
    Boots a guest with an interface from a configuration file; what `script` prints, it runs on the serial console. With
    `interface` that is what the interface can beyond the reference.
    """
    ready()
    tap_up()
    config = {
        "boot-source": {
            "kernel_image_path": "/mayfly/guest/vmlinux",
            "initrd_path": "/mayfly/guest/initramfs.cpio",
            "boot_args": f"{guest_cmdline()} acpi=off console=ttyS0 8250.nr_uarts=1 -- sh /test",
        },
        "drives": [{"drive_id": "root", "path_on_host": network_root(script), "is_root_device": True, "is_read_only": False}],
        "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": MAC, **({"mtu": mtu} if mtu else {})}],
        "machine-config": {"vcpu_count": vcpus, "mem_size_mib": 128},
    }
    options = []
    if interface:
        config["mayfly-network-interfaces"] = [{"iface_id": "eth0", **interface}]
    if mmds:
        config["mmds-config"] = {"network_interfaces": ["eth0"], **mmds}
        host.write("/tmp/metadata.json", json.dumps(metadata).encode())
        options = ["--metadata", "/tmp/metadata.json"]
    host.write("/tmp/net.json", json.dumps(config).encode())
    result = host.run([*vmm, "--no-api", "--config-file", "/tmp/net.json", *options], timeout=timeout)
    expect(result.code, 0, result.stdout[-2000:] + result.stderr)
    return result.stdout.decode(errors="replace").replace("\r", "")


def guest_cmdline():
    return host.read("/mayfly/guest/cmdline").decode().strip()


def network_root(script):
    """An ext4 root with the script in it as /test, put there by loop mount in the emulated host."""
    text = f"ip addr add {GUEST}/24 dev eth0\nip link set eth0 up\n{script}\n"
    path = "/mayfly/images/net.ext4"
    host.check(["cp", image("ext4"), path])
    host.check(["mount", "-o", "loop", path, "/mnt"])
    host.write("/mnt/test", text.encode())
    host.check(["umount", "/mnt"])
    return path


def carry_megabytes(**how):
    """TCP brings the guest 8 MB, and takes them back."""
    ready()
    tap_up()
    host.check(["sh", "-c", "mkdir -p /srv && head -c 8000000 /dev/urandom >/srv/data && rm -f /srv/back"])
    # cat reads to the end of what the guest sends; nc by itself would end with its own input.
    server = f"httpd -p {HOST}:80 -h /srv; nc -l -p 5001 -e sh -c 'cat >/srv/back' & echo $!"
    receiver = host.check(["sh", "-c", server]).stdout.decode().strip()
    try:
        said = guest_on_network(
            f"wget -q -O /tmp/data http://{HOST}/data\nsha256sum </tmp/data\nnc {HOST} 5001 </tmp/data\n", timeout=300, **how
        )
        wanted = host.check(["sha256sum", "/srv/data"]).stdout.decode().split()[0]
        assert wanted in said, said
        wait_until(lambda: host.run(["kill", "-0", receiver]).code != 0, "the receiver ends")
        expect(host.check(["sha256sum", "/srv/back"]).stdout.decode().split()[0], wanted, "what came back")
    finally:
        host.run(["killall", "httpd", "nc"])
