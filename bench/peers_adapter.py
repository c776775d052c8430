"""Watchfloor as one more peer of a benchmark of broadcast systems.

A floor without its demo, started by ``watchfloor up`` as a user does; clients come through
HAProxy and Serve, the worker publishes by ``broadcast_to_group`` like any Ray driver. One
configuration for every case. ``make bench-peers PEERS=folder WORK=w1`` runs it; the
benchmark's own ``peer`` module is in that folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from peer import Peer

from cluster.process import find_marked

WATCHFLOOR = (sys.executable, "-m", "serve_apps.cli")
GROUP = "noc"
SETTINGS = {"WATCHFLOOR_GATEWAY_MAX_CONNECTIONS_PER_USER": "10000"}
"""All clients of the benchmark carry the same token."""


class Watchfloor(Peer):
    """The whole floor: one gateway replica, the hub, Valkey as its journal, Ray's own processes."""

    name = "watchfloor"
    works = ("w1",)
    pong = {"{}": "{}"}  # noqa: RUF012 - the benchmark reads a plain attribute

    def start(self, tmp: str) -> dict[str, Any]:
        self._data_dir = Path(tmp) / "floor"
        self._command("up", "--detach", "--no-demo")
        self._record = json.loads((self._data_dir / "floor.json").read_text())
        token = self._command("token", "--group", GROUP)
        self.hello = (json.dumps({"id": 1, "connect": {"token": token}}),)
        return {"env": self._record["env"]}

    def ws_url(self, group: str) -> str:  # noqa: ARG002 - a server-side subscription needs no address
        return f"{self._record['url'].replace('http', 'ws', 1)}/connection/websocket"

    def pids(self) -> list[int]:
        return [one.pid for one in find_marked(self._record["floor_id"])]

    def stop(self) -> None:
        self._command("down")

    def connect(self, cfg: dict[str, Any]) -> None:
        os.environ.update(cfg["env"])
        import ray

        from cluster import names
        from realtime.process_broadcaster import get_broadcaster

        ray.init(namespace=names.NAMESPACE, log_to_driver=False)
        self._broadcaster = get_broadcaster()

    def publish(self, group: str, data: dict[str, Any]) -> None:
        if not self._broadcaster.broadcast_to_group(group, data["type"], data):
            raise RuntimeError("dropped: the buffer is full")

    def flush(self) -> None:
        self._broadcaster.flush(30.0)

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            [*WATCHFLOOR, *words, "--data-dir", str(self._data_dir)],
            env={**os.environ, **SETTINGS},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()
