"""A TCP proxy on loopback that a test cuts, freezes, slices and mends.

Threads, two per connection. Invariant: what was let through arrives in order and whole; what
a cut takes is lost, what a freeze holds back arrives after the thaw.
"""

import contextlib
import socket
import struct
import threading
from types import TracebackType

SLICE_BYTES = 65_536


class TcpProxy:
    """Passes bytes between whoever connects to ``port`` and one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.slice_bytes = SLICE_BYTES
        """Most bytes that travel in one packet."""
        self.num_packets = 0
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where to connect, ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "TcpProxy":
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self._listener)
        self.cut()
        self._flows.set()

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        self._is_cut = True
        self._end_all()

    def reset(self) -> None:
        """Tear every connection without a goodbye, as a crashed peer does; new ones are let through."""
        self._end_all(is_reset=True)

    def freeze(self) -> None:
        """Swallow everything: connections stay open, new ones are accepted, and nothing arrives."""
        self._flows.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._is_cut = False
        self.slice_bytes = SLICE_BYTES
        self._flows.set()

    def _end_all(self, *, is_reset: bool = False) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            if is_reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            _close(end, is_reset=is_reset)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = None if self._is_cut else socket.create_connection(self._target, timeout=5)
            except OSError:
                far = None
            if far is None:
                _close(near)
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), name="proxy-pump", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                size = self.slice_bytes
                for start in range(0, len(data), size):
                    sink.sendall(data[start : start + size])
                    self.num_packets += 1
        _close(source)
        _close(sink)


def _close(end: socket.socket, *, is_reset: bool = False) -> None:
    # shutdown first: close alone would leave a thread in recv, and the peer waiting.
    if not is_reset:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    else:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RD)
    end.close()
