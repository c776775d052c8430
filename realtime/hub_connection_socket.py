"""A client's connections to the hub's Unix socket: one kind for threads, one for event loops.

Neither retries nor decides which way a call takes (``hub_client.py``). Invariant: every way
in which a connection can fail is one of ``ConnectionError`` (it is of no use any more),
``TimeoutError`` (this answer did not come) and ``HubRefusedError`` (ask the actor).
"""

import asyncio
import itertools
import os
import select
import socket
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from realtime.errors import HubFrameError, HubRefusedError
from realtime.hub_frames import MAX_REPLY_BYTES, FrameReader, Reply, SocketAddress, read_reply, write_request

READ_BYTES = 262_144
MAX_UNSENT_BYTES = 4_194_304
"""Requests that wait for room in the socket; beyond it they take the actor."""


class _Connection:
    """What both kinds share: the socket, the frames, and an end."""

    def __init__(self, address: SocketAddress, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Nobody closes a client: its connections end with it. Not in __del__, which comes too late for
        # a socket that goes in the same collection.
        self._release = weakref.finalize(self, _release, self._socket, loop, os.getpid())
        self._release.atexit = False
        self._reader = FrameReader(MAX_REPLY_BYTES)
        self._numbers = itertools.count(1)
        self._pid = os.getpid()
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """True while it may be asked; a forked child must not use its parent's."""
        return not self._is_closed and self._pid == os.getpid()

    def close(self) -> None:
        """Close it; a second call changes nothing."""
        self._is_closed = True
        self._release.detach()
        self._socket.close()

    def _request(self, operation: str, arguments: Sequence[Any]) -> tuple[int, bytes]:
        number = next(self._numbers)
        try:
            return number, write_request(number, operation, arguments)
        except HubFrameError as error:
            raise HubRefusedError(operation, error.reason) from error

    def _replies(self, data: bytes) -> list[Reply]:
        if not data:
            raise ConnectionResetError("the hub closed the connection")
        try:
            return [read_reply(frame) for frame in self._reader.feed(data)]
        except HubFrameError as error:
            raise ConnectionAbortedError(str(error)) from error


class BlockingConnection(_Connection):
    """For one thread at a time.

    Raises:
        OSError: nobody listens at the address, or it is not for this process.
    """

    def __init__(self, address: SocketAddress, timeout_s: float) -> None:
        super().__init__(address)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(address.path)
            # From here on it is asked first and waited for only if it must be: a time-out of the socket's own
            # costs two system calls for each that is wanted.
            self._socket.setblocking(False)
            self.ask("hello", (address.secret,), timeout_s)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the socket's number, for ``select``."""
        return self._socket.fileno()

    def ask(self, operation: str, arguments: Sequence[Any], timeout_s: float) -> Any:
        """Return the hub's answer.

        Raises:
            ConnectionError, TimeoutError, HubRefusedError: see the module.
        """
        deadline_s = time.monotonic() + timeout_s
        number = self.begin(operation, arguments, timeout_s)
        while True:
            for answered, value, reason in self.replies(deadline_s - time.monotonic()):
                # Answers to requests that timed out come late, before this one's.
                if answered != number:
                    continue
                if reason is not None:
                    raise HubRefusedError(operation, reason)
                return value

    def begin(self, operation: str, arguments: Sequence[Any], timeout_s: float) -> int:
        """Send a request and return its number; the answer comes by ``replies``.

        Raises:
            ConnectionError, TimeoutError, HubRefusedError: see the module.
        """
        number, frame = self._request(operation, arguments)
        with self._ending():
            self._send_all(frame, timeout_s)
        return number

    def replies(self, timeout_s: float) -> list[Reply]:
        """Wait for bytes from the hub and return the answers that they complete, perhaps none.

        Raises:
            ConnectionError, TimeoutError: see the module.
        """
        with self._ending():
            deadline_s = time.monotonic() + timeout_s
            while True:
                try:
                    return self._replies(self._socket.recv(READ_BYTES))
                except BlockingIOError:
                    self._wait_for(select.POLLIN, deadline_s - time.monotonic())

    def _send_all(self, frame: bytes, timeout_s: float) -> None:
        deadline_s, rest = time.monotonic() + timeout_s, memoryview(frame)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self._wait_for(select.POLLOUT, deadline_s - time.monotonic())

    def _wait_for(self, what: int, timeout_s: float) -> None:
        # Not select.select: a gateway has more open files than that can name.
        poll = select.poll()
        poll.register(self._socket, what)
        if not poll.poll(1000 * max(0.001, timeout_s)):
            raise TimeoutError("the hub's socket was not ready in time")

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            # A part of a request may have been sent: nothing can follow it.
            self.close()
            raise
        except OSError as error:
            self.close()
            raise ConnectionResetError(str(error)) from error


class AsyncConnection(_Connection):
    """For one event loop; any number of requests at a time. Made by ``open``."""

    def __init__(self, address: SocketAddress, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(address, loop)
        self._loop = loop
        self._waiting: dict[int, tuple[asyncio.Future[Any], Callable[[Any], None] | None]] = {}
        self._unsent = bytearray()

    @classmethod
    async def open(cls, address: SocketAddress, timeout_s: float) -> "AsyncConnection":
        """Return a connection that has shown the secret.

        Raises:
            OSError: nobody listens at the address, or it is not for this process.
        """
        loop = asyncio.get_running_loop()
        connection = cls(address, loop)
        try:
            connection._socket.setblocking(False)
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(connection._socket, address.path)
                loop.add_reader(connection._socket, _call_if_alive, weakref.ref(connection), "_on_readable")
                await connection.ask("hello", (address.secret,))
        except BaseException:
            connection.close()
            raise
        return connection

    async def ask(self, operation: str, arguments: Sequence[Any], hear: Callable[[Any], None] | None = None) -> Any:
        """Return the hub's answer; the caller bounds the wait.

        Args:
            operation: what to do.
            arguments: what it takes.
            hear: called with the answer in the turn of the loop that reads it, some turns before this returns.

        Raises:
            ConnectionError, HubRefusedError: see the module.
        """
        number, frame = self._request(operation, arguments)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[number] = answer, hear
        try:
            self._send(operation, frame)
            value, reason = await answer
        finally:
            self._waiting.pop(number, None)
        if reason is not None:
            raise HubRefusedError(operation, reason)
        return value

    def close(self) -> None:
        """See ``_Connection.close``; whoever waits hears of it."""
        if not self._is_closed and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        super().close()
        for answer, _ in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection to the hub was closed"))

    def _send(self, operation: str, frame: bytes) -> None:
        if self._is_closed:
            raise ConnectionResetError("the connection to the hub is closed")
        if len(self._unsent) + len(frame) > MAX_UNSENT_BYTES:
            raise HubRefusedError(operation, "too much is waiting to be sent")
        self._unsent += frame
        if len(self._unsent) == len(frame):
            self._on_writable()

    def _on_writable(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._unsent:
            self._loop.add_writer(self._socket, _call_if_alive, weakref.ref(self), "_on_writable")
        else:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            replies = self._replies(self._socket.recv(READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for number, value, reason in replies:
            answer, hear = self._waiting.get(number, (None, None))
            if answer is None or answer.done():
                continue
            try:
                if hear is not None and reason is None:
                    hear(value)
            except Exception as error:
                answer.set_exception(error)  # the caller's own: it must not end the connection of all others
            else:
                answer.set_result((value, reason))


def _call_if_alive(connection: "weakref.ref[AsyncConnection]", method: str) -> None:
    # The loop must not keep a connection alive that nobody can ask any more.
    alive = connection()
    if alive is not None:
        getattr(alive, method)()


def _release(abandoned: socket.socket, loop: asyncio.AbstractEventLoop | None, pid: int) -> None:
    """Close the socket of a connection that is gone, and take it out of the loop that watches it."""
    if loop is None or loop.is_closed() or pid != os.getpid():
        abandoned.close()
    elif loop.is_running() and asyncio._get_running_loop() is not loop:
        # It runs in another thread, and only that one may change what it watches.
        loop.call_soon_threadsafe(_unwatch, abandoned, loop)
    else:
        _unwatch(abandoned, loop)


def _unwatch(abandoned: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_reader(abandoned)
    loop.remove_writer(abandoned)
    abandoned.close()
