"""The official Python SDK in a process of its own: hears what the floor publishes to a user."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = Path(__file__).parent / "sdk_program.py"
START_TIMEOUT_S = 30.0

Heard = dict[int, dict[str, Any]]
"""Publications of one channel by their offset."""


@dataclass(frozen=True, slots=True)
class Said:
    """One publication as the SDK handed it over."""

    channel: str
    offset: int
    data: dict[str, Any]


class SdkListener:
    """``centrifuge-python`` with server-side subscriptions only."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.replace("http", "ws", 1).rstrip("/") + "/connection/websocket"
        self._token = token
        self._connected = threading.Event()
        self.said: list[Said] = []
        """Every publication, in the order of their arrival."""

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

    def heard(self, channel: str) -> Heard:
        """Return what was heard on one channel so far."""
        return {said.offset: said.data for said in list(self.said) if said.channel == channel}

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if said.get("connected"):
                self._connected.set()
            else:
                self.said.append(Said(**said))
