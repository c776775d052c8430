"""The official Python SDK beside the browser: hears what the floor publishes to an operator."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = Path(__file__).parent / "sdk_program.py"
START_TIMEOUT_S = 30.0

Heard = dict[int, dict[str, Any]]
"""Publications of one channel by their offset."""


class SdkListener:
    """``centrifuge-python`` in a process of its own, with server-side subscriptions only."""

    def __init__(self, url: str, token: str, channel: str) -> None:
        self._url = url.replace("http", "ws", 1).rstrip("/") + "/connection/websocket"
        self._token = token
        self._channel = channel
        self._connected = threading.Event()
        self.heard: Heard = {}

    def __enter__(self) -> "SdkListener":
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), self._url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKEN": self._token},
        )
        self._reader = threading.Thread(target=self._read, name="sdk-listener", daemon=True)
        self._reader.start()
        assert self._connected.wait(START_TIMEOUT_S), "centrifuge-python did not connect"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(START_TIMEOUT_S)
        self._reader.join(START_TIMEOUT_S)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if said.get("connected"):
                self._connected.set()
            elif said["channel"] == self._channel:
                self.heard[said["offset"]] = said["data"]
