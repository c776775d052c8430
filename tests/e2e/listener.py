"""PyPI's ``centrifuge-python`` beside the browser: hears what the floor publishes to an operator."""

import asyncio
import json
import threading
from types import TracebackType
from typing import Any

from centrifuge import Client, ClientEventHandler, ConnectedContext, ServerPublicationContext

START_TIMEOUT_S = 15.0


class SdkListener:
    """The official client on a thread of its own, with server-side subscriptions only."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.replace("http", "ws", 1).rstrip("/") + "/connection/websocket"
        self._token = token
        self._connected = threading.Event()
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sdk-listener", daemon=True)
        self.messages: list[tuple[str, dict[str, Any]]] = []

    def __enter__(self) -> "SdkListener":
        self._thread.start()
        assert self._connected.wait(START_TIMEOUT_S), "centrifuge-python did not connect"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)

    def event_ids(self) -> set[str]:
        """Return the ids of the alert events heard on ``noc:all``."""
        return {
            message["data"]["event_id"]
            for channel, message in list(self.messages)
            if channel == "noc:all" and "event_id" in message["data"]
        }

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        client = Client(self._url, token=self._token, events=_Handler(self))
        await client.connect()
        await self._stop.wait()
        await client.disconnect()


class _Handler(ClientEventHandler):
    def __init__(self, listener: SdkListener) -> None:
        self._listener = listener

    async def on_connected(self, _context: ConnectedContext) -> None:
        self._listener._connected.set()

    async def on_publication(self, context: ServerPublicationContext) -> None:
        data = context.pub.data
        message = json.loads(data) if isinstance(data, str | bytes) else data
        self._listener.messages.append((context.channel, message))
