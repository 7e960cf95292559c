"""Writes initramfs archives (cpio, format newc) without root: owners are root, and device nodes are just entries."""

import os
import stat


class Archive:
    def __init__(self, stream):
        self.stream = stream
        self.inode = 0
        self.directories = set()

    def _entry(self, path, mode, data=b"", device=(0, 0), links=1):
        self.inode += 1
        name = path.strip("/").encode() + b"\0"
        fields = (self.inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._padded(header + name)
        self._padded(data)

    def _padded(self, data):
        self.stream.write(data + b"\0" * (-len(data) % 4))

    def directory(self, path, mode=0o755):
        """Makes the directory, and those above it, unless they are there."""
        path = path.strip("/")
        if not path or path in self.directories:
            return
        self.directory(os.path.dirname(path))
        self.directories.add(path)
        self._entry(path, stat.S_IFDIR | mode, links=2)

    def file(self, path, data, mode=0o644):
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFREG | mode, data)

    def symlink(self, path, target):
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path, major, minor, mode=0o600):
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFCHR | mode, device=(major, minor))

    def copy(self, path, source):
        """A file of this machine, with its permission bits."""
        with open(source, "rb") as file:
            self.file(path, file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    def close(self):
        self._entry("TRAILER!!!", 0)
        self.stream.flush()
