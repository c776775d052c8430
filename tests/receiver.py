"""A server that is told of alerts, as bad as real ones are: it fails, hangs, drips, redirects, talks nonsense."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from cluster.ports import LOOPBACK

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
FAILS = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"
REFUSES = b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 2\r\n\r\nno"
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
GARBAGE = b"\x16\x03\x01 this is no HTTP\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
HANGS = b""


@dataclass
class Got:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Receiver:
    """Answers each request as ``answer`` says, and remembers it."""

    answer: bytes | Callable[[Got], bytes] = OK
    got: list[Got] = field(default_factory=list)
    drips_s: float = 0.0
    """Pause between two bytes of an answer."""
    url: str = ""
    sent_bytes: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.got.append(Got(first.split()[1], headers, body))
                await self._reply(self.answer if isinstance(self.answer, bytes) else self.answer(self.got[-1]), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _reply(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        if answer == HANGS:
            await asyncio.sleep(3600)
        for part in [answer[at : at + 1] for at in range(len(answer))] if self.drips_s else [answer]:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(self.drips_s)
        while answer == ENDLESS:
            writer.write(b"x" * 65536)
            await writer.drain()
            self.sent_bytes += 65536
        if answer in {GARBAGE, SHORT}:
            raise ConnectionError("it hangs up")


@asynccontextmanager
async def receiver(**settings: Any) -> AsyncIterator[Receiver]:
    """Yield a receiver that listens on loopback."""
    made = Receiver(**settings)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    made.url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
