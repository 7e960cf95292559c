"""The frames that clients, the broker and the agent exchange. agent.c has the same numbers.

Each command is a stream of its own. A frame is a header (stream, type, length; u32, little-endian) and a payload.
A client knows only its own command and writes stream 0; the broker numbers the streams on the way to the agent.

Neither side may send more than WINDOW bytes of data that the other has not yet consumed and acknowledged with CREDIT:
so a command whose output nobody reads stops, and the others do not.
"""

import struct

HEADER = struct.Struct("<III")
U32 = struct.Struct("<I")
EXIT = struct.Struct("<IIQ")  # kind, code or signal, nanoseconds from fork to reaped

PAYLOAD_MAX = 64 << 10
WINDOW = 256 << 10

# Client to agent.
OPEN = 1  # u32 flags, u32 argc, u32 envc, then the strings cwd, argv..., envp..., each ended by a NUL
INPUT = 2  # bytes for the command's stdin
INPUT_END = 3
SIGNAL = 4  # u32: to the command's process group
CLOSE = 5  # kill the process group; also what the broker sends when a client is gone
CREDIT = 6  # both ways: u32 bytes consumed

# Agent to client.
HELLO = 16  # stream 0, once: kernel release
STDOUT = 17
STDERR = 18
EXITED = 19  # EXIT; the last frame of a stream

# Client and broker.
STATUS = 32  # answered with STATUS and JSON
STOP = 33  # answered with STOP when QEMU is gone
DIED = 34  # broker to client: QEMU ended; text

OPEN_STDIN = 1  # flag: the command has a stdin; otherwise it is /dev/null

EXIT_CODE = 0
EXIT_SIGNAL = 1


def frame(kind, payload=b"", stream=0):
    return HEADER.pack(stream, kind, len(payload)) + payload


def open_payload(argv, environment, cwd, has_stdin):
    strings = [cwd, *argv, *(f"{name}={value}" for name, value in environment.items())]
    return struct.pack("<III", OPEN_STDIN if has_stdin else 0, len(argv), len(environment)) + b"".join(
        os_bytes(text) + b"\0" for text in strings
    )


def os_bytes(text):
    data = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError("an argument holds a NUL byte")
    return data


class Reader:
    """Cuts a byte stream into (stream, type, payload)."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data
        start = 0
        while len(self.buffer) - start >= HEADER.size:
            stream, kind, length = HEADER.unpack_from(self.buffer, start)
            if length > PAYLOAD_MAX:
                raise ValueError(f"a frame of {length} bytes")
            end = start + HEADER.size + length
            if len(self.buffer) < end:
                break
            yield stream, kind, bytes(self.buffer[start + HEADER.size : end])
            start = end
        if start:
            del self.buffer[:start]
