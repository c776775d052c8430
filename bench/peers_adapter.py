"""Watchfloor as one more peer of a benchmark of broadcast systems.

A floor without its demo, started by ``watchfloor up`` as a user does; clients come through
HAProxy and Serve. In w1 the worker publishes by ``broadcast_to_group`` like any Ray driver; in w2
a device publishes alerts over MQTT, which are committed before the client hears of them. One
configuration for every case. ``make bench-peers PEERS=folder WORK=w1`` runs it; the
benchmark's own ``peer`` module is in that folder.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from peer import MqttDevice, Peer, dumps, free_port

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
        self._env = {**SETTINGS, **self.broker(tmp)}
        self._command("up", "--detach", "--no-demo")
        self._record = json.loads((self._data_dir / "floor.json").read_text())
        token = self._command("token", "--group", GROUP)
        self.hello = (json.dumps({"id": 1, "connect": {"token": token}}),)
        return {"env": self._record["env"]}

    def broker(self, tmp: str) -> dict[str, str]:  # noqa: ARG002 - for those who bring a broker
        """Start what the floor shall not bring itself; return the settings that say so."""
        return {}

    def ws_url(self, group: str) -> str:  # noqa: ARG002 - a server-side subscription needs no address
        return f"{self._record['url'].replace('http', 'ws', 1)}/connection/websocket"

    def pids(self) -> list[int]:
        return super().pids() + [one.pid for one in find_marked(self._record["floor_id"])]

    def stop(self) -> None:
        self._command("down")
        super().stop()

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
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()


class WatchfloorMqtt(MqttDevice, Watchfloor):
    """The alert path: device, embedded broker (it syncs each message to the disk), ingest, commit with fsync, page.

    The alerts are the benchmark's own: one device says the same again and again, so all but the
    first are repetitions in one alert's history; each is a row, and each is told.
    """

    name = "watchfloor-mqtt-nats"
    works = ("w2",)
    is_always_new = False
    """Each alert is a problem of its own instead."""

    def start(self, tmp: str) -> dict[str, Any]:
        super().start(tmp)
        print(f"{self.name}: fdatasync p50 {fdatasync_ms(Path(tmp)):.2f} ms", file=sys.stderr)
        urls = self._record["urls"]
        return {"mqtt_url": urls["MQTT_URL"], "root": urls["WATCHFLOOR_TOPIC_ROOT"]}

    def connect(self, cfg: dict[str, Any]) -> None:
        # As in MqttDevice, but with the password that the embedded broker asks for.
        url = urlsplit(cfg["mqtt_url"])
        self._root = cfg["root"]
        self._boot_id = f"b{time.time_ns()}"
        self.mq = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.mq.max_inflight_messages_set(200)
        if url.username:
            self.mq.username_pw_set(url.username, url.password)
        self.mq.connect(url.hostname or "127.0.0.1", url.port or 1883)
        self.mq.loop_start()
        self.sent = []

    def publish(self, group: str, data: dict[str, Any]) -> None:
        seq = data["seq"]
        alert = {
            "boot_id": self._boot_id,
            "seq": seq,
            "alert_type": f"{data['alert_type']}-{seq}" if self.is_always_new else data["alert_type"],
            "severity": data["severity"],
            "message": data["message"],
            "details": {"t": data["t"], "seq": seq},
        }
        topic = f"{self._root}/{group}/{data['source_id']}/alert"
        self.sent.append(self.mq.publish(topic, dumps(alert), qos=1))


class WatchfloorMqttNew(WatchfloorMqtt):
    """The same, each alert a new problem."""

    name = "watchfloor-mqtt-nats-new"
    is_always_new = True


class WatchfloorMosquitto(WatchfloorMqtt):
    """With the broker that the other rows have, which keeps messages in memory."""

    name = "watchfloor-mqtt-mosquitto"

    def broker(self, tmp: str) -> dict[str, str]:
        port, config = free_port(), Path(tmp) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_inflight_messages 0\nmax_queued_messages 200000\nlog_type error\n"
        )
        self.spawn(shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", config, port=port, tmp=tmp)
        return {"MQTT_URL": f"mqtt://127.0.0.1:{port}"}


class WatchfloorMosquittoNew(WatchfloorMosquitto):
    """The same, each alert a new problem."""

    name = "watchfloor-mqtt-mosquitto-new"
    is_always_new = True


def fdatasync_ms(folder: Path, times: int = 50) -> float:
    """Return the median time of an fdatasync of a page in ``folder``, in milliseconds."""
    found = []
    with (folder / "probe").open("wb") as file:
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            started_s = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - started_s)
    return 1000 * sorted(found)[times // 2]
