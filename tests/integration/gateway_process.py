"""A started ``gateway_program.py`` in the hands of a test."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent.parent
END_TIMEOUT_S = 60


class Gateway:
    """A started gateway, and what a test asks of it."""

    def __init__(
        self, process: "subprocess.Popen[str]", mode: str, folder: Path, url: str, replica_ports: list[int]
    ) -> None:
        self._process = process
        self.mode = mode
        self.folder = folder
        self.url = url
        self.replica_ports = replica_ports
        """Behind HAProxy each replica listens on one of these."""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def websocket(self, address: str = "", path: str = "websocket") -> str:
        return f"ws://{address or urlsplit(self.url).netloc}/connection/{path}"

    def command(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the gateway's process ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running_gateway(mode: str, redis_url: str, env: Mapping[str, str]) -> Iterator[Gateway]:
    """Start a gateway behind ``haproxy`` or Serve's ``proxy``; ``env`` is added to its environment."""
    # A short path: HAProxy's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="wf") as folder, Path(folder, "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.gateway_program", mode, folder, redis_url],
            cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            assert first, Path(folder, "log").read_text(encoding="utf-8")[-3000:]
            yield Gateway(process, mode, Path(folder), **json.loads(first))
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
