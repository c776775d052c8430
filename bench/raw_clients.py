"""Many WebSocket clients of the gateway in one process, cheap enough not to be the limit.

Speaks just as much of RFC 6455 and of the Centrifuge JSON protocol as a bench needs: a
handshake, masked text frames out, whole frames in, a pong to each ping. Invariant: what
``RawClient`` counts came in the order of offsets and each once, or ``num_wrong`` says so.
"""

import asyncio
import json
import os
import random
import re
import time
from array import array
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

STAMPS = re.compile(rb'"t": ?(\d+), ?"seq": ?(\d+)')
PING, PONG = b"{}", b"\x81\x82\x00\x00\x00\x00{}"
CONNECT_TIMEOUT_S = 60.0


class RawClient(asyncio.Protocol):
    """One client: connects, counts what it is sent, answers pings."""

    latencies_ns = array("q")
    """Of all clients, while ``is_timing``."""
    is_timing = False

    def __init__(self, host: str, connect: dict[str, Any]) -> None:
        self._host = host
        self._connect = connect
        self._rest = b""
        self._is_open = False
        self.reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        """The answer to its connect command."""
        self.num_messages = self.num_frames = self.num_bytes = self.num_wrong = 0
        self.next_seq = -1
        self.last_ns = 0
        self.last_text = b""
        """The newest frame with messages."""
        self.is_lost = False

    def expect(self, seq: int) -> None:
        """Begin to count at the message numbered ``seq``; those before it are passed over."""
        self.num_messages = self.num_frames = self.num_bytes = self.num_wrong = 0
        self.next_seq = seq

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        key = b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET /connection/websocket HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.is_lost = True
        if not self.reply.done():
            self.reply.set_exception(ConnectionResetError("closed before the connect reply"))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at = 0
        if not self._is_open:
            head, found, _ = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = data
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.transport.abort()
                return
            self._is_open, at = True, len(head) + 4
            self.transport.write(text_frame({"id": 1, "connect": self._connect}))
        while len(data) >= at + 2:
            size, begin = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                begin += width
                size = int.from_bytes(data[at + 2 : begin], "big")
            if len(data) < begin + size:
                break
            if data[at] == 0x81:
                self._on_text(data[begin : begin + size])
            elif data[at] == 0x89:  # the server's own ping
                self.transport.write(b"\x8a" + bytes([0x80 | size]) + bytes(4) + data[begin : begin + size])
            at = begin + size
        self._rest = data[at:]

    def _on_text(self, text: bytes) -> None:
        if text == PING:
            self.transport.write(PONG)
        elif not self.reply.done():
            first, _, rest = text.partition(b"\n")
            self.reply.set_result(json.loads(first))
            if rest:
                self._on_text(rest)
        else:
            self._on_messages(text)

    def _on_messages(self, text: bytes) -> None:
        count = text.count(b'"seq":')
        if not count:
            return
        first = int(STAMPS.search(text)[2])  # type: ignore[index]
        if first < self.next_seq and self.next_seq - first > 1000:
            return  # of the case before
        self.last_ns, self.last_text = time.monotonic_ns(), text
        last = int(STAMPS.findall(text, text.rfind(b'"t":'))[-1][1])
        self.num_wrong += first != self.next_seq or last - first + 1 != count
        self.next_seq = last + 1
        self.num_messages += count
        self.num_frames += 1
        self.num_bytes += len(text)
        if RawClient.is_timing:
            RawClient.latencies_ns.extend(self.last_ns - int(sent) for sent, _ in STAMPS.findall(text))


async def connect_all(
    url: str, connects: Sequence[dict[str, Any]], at_once: int = 50, path: Path | None = None
) -> list[RawClient]:
    """Return a connected client for each connect request.

    Args:
        url: of the floor.
        connects: what each asks for.
        at_once: how many wait for their answer at a time.
        path: Unix socket to use in place of the URL's host and port.

    Raises:
        TimeoutError: one of them was not let in.
    """
    address = urlsplit(url)
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(at_once)

    async def one(connect: dict[str, Any]) -> RawClient:
        async with slots, asyncio.timeout(CONNECT_TIMEOUT_S):
            while True:
                made = partial(RawClient, address.netloc, connect)
                if path is None:
                    _, client = await loop.create_connection(made, address.hostname, address.port)
                else:
                    _, client = await loop.create_unix_connection(made, str(path))
                try:
                    await asyncio.shield(client.reply)
                except ConnectionResetError:
                    # The gate against storms: as an SDK does, come back later.
                    await asyncio.sleep(random.uniform(0.1, 1.0))
                else:
                    return client

    return await asyncio.gather(*map(one, connects))


def text_frame(value: Any) -> bytes:
    """Return a client's text frame; masked by zeros, as the mask only has to be there."""
    text = json.dumps(value).encode()
    if len(text) < 126:
        return b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text
    return b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text
