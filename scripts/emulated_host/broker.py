"""The process that owns one emulated host: starts QEMU, relays between its agent and the clients, and ends it.

QEMU never outlives the broker (PDEATHSIG), and the broker ends when told to, when QEMU ends, when the process that it
was started for is gone, or when no command has run for the idle time. A client that is gone takes its command along.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import time

from emulated_host import protocol as p

CHUNK = 256 << 10


def die_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Peer:
    """A socket with what is still to be written to it."""

    def __init__(self, selector, sock, on_frame, on_gone):
        self.selector, self.socket, self.on_frame, self.on_gone = selector, sock, on_frame, on_gone
        self.reader = p.Reader()
        self.pending = bytearray()
        self.stream = 0
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self)

    def send(self, data):
        self.pending += data
        self._write()

    def _write(self):
        try:
            while self.pending:
                with memoryview(self.pending)[:CHUNK] as part:
                    sent = self.socket.send(part)
                del self.pending[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.gone()
            return
        self.selector.modify(self.socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.pending else 0), self)

    def ready(self, events):
        if events & selectors.EVENT_WRITE:
            self._write()
        if events & selectors.EVENT_READ and self.socket.fileno() >= 0:
            try:
                data = self.socket.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.gone()
                return
            try:
                for frame in self.reader.feed(data):
                    self.on_frame(self, *frame)
            except ValueError:
                self.gone()

    def gone(self):
        if self.socket.fileno() < 0:
            return
        self.selector.unregister(self.socket)
        self.socket.close()
        self.on_gone(self)


class Broker:
    def __init__(self, directory, qemu_argv, parent_pid, idle_seconds, report):
        """`report`: called once, with None when the host is up or with the text of the failure."""
        self.directory = directory
        self.report = report
        self.idle_seconds = idle_seconds
        self.started = time.monotonic()
        self.quiet_since = self.started
        self.release = None
        self.stopping = []
        self.clients = {}  # stream: Peer
        self.next_stream = 1
        self.selector = selectors.DefaultSelector()
        self.running = True

        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with theirs, open(directory / "qemu.log", "wb") as log:
            argv = [part.replace("{agent_fd}", str(theirs.fileno())) for part in qemu_argv]
            self.qemu = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()],
                preexec_fn=die_with_parent, start_new_session=True,
            )  # fmt: skip
        self.agent = Peer(self.selector, ours, self.from_agent, self.agent_gone)
        self._watch(os.pidfd_open(self.qemu.pid), self.qemu_ended)
        if parent_pid:
            try:
                self._watch(os.pidfd_open(parent_pid), self.stop)
            except ProcessLookupError:
                self.stop()
        (directory / "socket").unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.listener.bind(str(directory / "socket"))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self._watch(self.listener, self.accept)

    def _watch(self, file, action):
        self.selector.register(file, selectors.EVENT_READ, action)

    def accept(self):
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        Peer(self.selector, sock, self.from_client, self.client_gone)

    def from_client(self, peer, _, kind, payload):
        if kind == p.STATUS:
            peer.send(p.frame(p.STATUS, json.dumps(self.status()).encode()))
        elif kind == p.STOP:
            self.stopping.append(peer)
            self.stop()
        elif kind == p.OPEN and not peer.stream:
            peer.stream = self.next_stream
            self.next_stream = self.next_stream % 0xFFFFFFFF + 1
            self.clients[peer.stream] = peer
            self.agent.send(p.frame(kind, payload, peer.stream))
        elif peer.stream and kind in (p.INPUT, p.INPUT_END, p.SIGNAL, p.CLOSE, p.CREDIT):
            self.agent.send(p.frame(kind, payload, peer.stream))
        else:
            peer.gone()

    def client_gone(self, peer):
        """It closes when it has read EXITED; before that it takes its command along."""
        if self.clients.pop(peer.stream, None):
            self.quiet_since = time.monotonic()
            if self.agent.socket.fileno() >= 0:
                self.agent.send(p.frame(p.CLOSE, stream=peer.stream))

    def from_agent(self, _, stream, kind, payload):
        if kind == p.HELLO:
            self.release = payload.decode()
            self.quiet_since = time.monotonic()
            self.report(None)
            return
        peer = self.clients.get(stream)
        if peer is None:
            return
        peer.send(p.frame(kind, payload))
        if kind == p.EXITED:
            self.clients.pop(stream, None)
            self.quiet_since = time.monotonic()

    def agent_gone(self, _):
        """QEMU is ending: its pidfd tells when."""

    def status(self):
        return {
            "kernel": self.release,
            "qemu_pid": self.qemu.pid,
            "broker_pid": os.getpid(),
            "up_seconds": round(time.monotonic() - self.started, 1),
            "commands": len(self.clients),
            "console": str(self.directory / "console.log"),
        }

    def stop(self):
        self.qemu.kill()

    def qemu_ended(self):
        code = self.qemu.wait()
        text = f"QEMU ended ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
        if self.release is None:
            self.report(text)
        for peer in list(self.clients.values()):
            peer.send(p.frame(p.DIED, text.encode()))
        self.running = False
        (self.directory / "socket").unlink(missing_ok=True)
        for peer in self.stopping:
            peer.send(p.frame(p.STOP))

    def serve(self):
        while self.running:
            wait = None
            if self.idle_seconds and self.release and not self.clients:
                wait = self.quiet_since + self.idle_seconds - time.monotonic()
                if wait <= 0:
                    self.idle_seconds = 0
                    self.stop()
                    continue
            for key, events in self.selector.select(wait):
                if isinstance(key.data, Peer):
                    key.data.ready(events)
                else:
                    key.data()
