"""The emulated host: a Debian kernel under QEMU TCG with nested SVM, whose KVM runs real Linux guests.

    client.py    start it, run commands in it, copy files: what scripts/testhost and the tests use
    broker.py    the process that owns the QEMU process and relays between it and the clients
    image.py     the kernel and the initramfs, built once into the cache
    cpio.py      writes initramfs archives
    protocol.py  the frames between client, broker and agent
    agent.c      process 1 in the emulated host: runs the commands
    init         what comes before it: mounts, modules
"""
