"""The floor of the fault matrix: real parts as processes, proxies between them, and a device that counts its PUBACKs.

No Ray: ingest and detector run as ``bench.fault_part``, beside an MQTT broker, a Valkey and a
PostgreSQL. The device is in this process, and so is the checker: *accepted* is what the
device was acknowledged, and it is compared with what lies in the stores.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cluster import migrate, names
from cluster.process import ProcessIdentity, send
from cluster.store import open_engine, read_transaction
from ingest.alerts.tables import alert_events
from ingest.errors import StoreUnavailableError
from ingest.telemetry_redis import TelemetryStream
from ingest.topics import TopicClass
from tests.ingest_parts import CountingDevice, Key, StoppableService, own_broker, own_valkey
from tests.postgres import own_postgres
from tests.tcp_proxy import TcpProxy

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0
READINGS_PER_S = 100.0
ALERT_EVERY = 10
"""A device alert for so many readings."""


class Part:
    """Ingest or the detector in a process of its own, and what it says."""

    def __init__(self, name: str, env: dict[str, str]) -> None:
        self._name = name
        self._env = env
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[dict[str, Any]] = []
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it; it is not waited for."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.fault_part", self._name],
            cwd=ROOT, env=os.environ | self._env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._lines = []
        self._reader = threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it properly, or at all."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def move_clock(self, seconds: float) -> None:
        """Move its wall clock."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"clock {seconds}\n")
        self._process.stdin.flush()

    def num_connections(self) -> int:
        """Return how often ingest came to the broker, as seen in its lines."""
        connected = [bool(line["broker_connected"]) for line in self._lines]
        return sum(after and not before for before, after in itertools.pairwise([False, *connected]))

    def says(self) -> dict[str, Any]:
        """Return its newest line; empty before the first."""
        return self._lines[-1] if self._lines else {}

    def longest_silence_s(self, since_s: float) -> float:
        """Return the longest time between two of its lines, from a moment on: what held up its housekeeping."""
        times = [line["at"] for line in self._lines]
        times = times[max(0, bisect(times, since_s) - 1) :]
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)

    def _end(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait(10)
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        identity = ProcessIdentity.of(self._process.pid)
        assert identity is not None, f"{self._name} is gone"
        send(identity, number)

    def _read(self, process: "subprocess.Popen[str]", lines: list[dict[str, Any]]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # killed in the middle of a line, or closed
            lines.extend(map(json.loads, process.stdout))


class FaultFloor:
    """All parts of one floor; see ``fault_floor``."""

    def __init__(
        self, folder: Path, stack: ExitStack, broker: StoppableService, valkey: StoppableService, *, disk: Path | None
    ) -> None:
        root = f"t{uuid.uuid4().hex[:10]}"
        self.folder = folder
        self.disk = disk
        """Valkey's small disk; None where none could be mounted."""
        self.broker = broker
        self.valkey = valkey
        broker.start()
        stack.callback(broker.stop)
        valkey.start()
        stack.callback(valkey.stop)
        self.postgres = stack.enter_context(own_postgres())
        self.to_broker = stack.enter_context(_proxy(broker.url))
        self.to_valkey = stack.enter_context(_proxy(valkey.url))
        self.to_sql = stack.enter_context(TcpProxy("127.0.0.1", self.postgres.port))
        database_url = self.postgres.create_database("floor")
        migrate.upgrade(database_url)
        self._env = {
            "MQTT_URL": _through(broker.url, self.to_broker),
            "REDIS_URL": _through(valkey.url, self.to_valkey),
            "DATABASE_URL": database_url.replace(f":{self.postgres.port}/", f":{self.to_sql.port}/"),
            "WATCHFLOOR_TOPIC_ROOT": root,
        }
        self.ingest = self.new_part("ingest")
        self.detector = self.new_part("detector")
        for part in (self.ingest, self.detector):
            part.start()
            stack.callback(part.stop)
        self._engine: Engine = open_engine(database_url, statement_timeout_s=5.0)
        stack.callback(self._engine.dispose)
        self._stream = TelemetryStream.open(valkey.url)
        stack.callback(self._stream.close)
        until(lambda: bool(self.ingest.says().get("broker_connected")), "ingest does not connect")
        self.device = CountingDevice(broker.url, root, "pump-7", in_flight=2000)
        stack.callback(self.device.close)

    def new_part(self, name: str) -> Part:
        """Return another process of a part, with the same settings, not started."""
        return Part(name, self._env)

    def send_for(self, seconds: float, per_second: float = READINGS_PER_S) -> None:
        """Publish readings at a steady pace, every tenth time a device alert instead."""
        started_s = time.monotonic()
        number = 0
        while (elapsed_s := time.monotonic() - started_s) < seconds:
            while number < elapsed_s * per_second:
                number += 1
                if number % ALERT_EVERY:
                    self.device.send(timeout_s=0.0)
                else:
                    kind = f"leak-{uuid.uuid4().hex[:12]}"  # a problem of its own: nothing is counted together
                    alert = {"alert_type": kind, "severity": "high", "message": "water"}
                    self.device.send(timeout_s=0.0, kind=TopicClass.ALERT, **alert)
            time.sleep(0.005)

    def accepted(self) -> set[Key]:
        """Return the keys of everything whose PUBACK has arrived so far."""
        return set(self.device.acknowledged())

    def stored(self) -> Counter[Key]:
        """Return how often each thing lies in a store: readings in the stream, alerts as events."""
        readings = [entry.reading for entry in self._stream.history(1_000_000)]
        found: Counter[Key] = Counter((one.device, one.boot_id, one.seq) for one in readings if one.seq is not None)
        with read_transaction(self._engine) as connection:
            keys = connection.execute(
                select(alert_events.c.reading_key).where(alert_events.c.reading_key.like("alert:%"))
            ).scalars()
            found.update(_key_of(key) for key in keys)
        return found

    def wait_stored(self, keys: set[Key]) -> float:
        """Wait until everything of ``keys`` is stored; return the moment (monotonic seconds)."""
        until(lambda: keys <= self.stored().keys(), "what was accepted is not stored", every_s=0.05)
        return time.monotonic()

    def detector_lag(self) -> int:
        """Return how many readings are stored and not judged."""
        return self._stream.lag(names.DETECTOR_GROUP)

    def newest_received_at(self) -> float:
        """Return when ingest says the newest reading arrived."""
        return max(entry.reading.received_at for entry in self._stream.history(20))

    def valkey_command(self, *command: str) -> Any:
        """Send one command past the proxy."""
        with redis.Redis.from_url(self.valkey.url, socket_timeout=5.0, decode_responses=True) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]


def until(check: Callable[[], object], problem: str, timeout_s: float = PATIENCE_S, every_s: float = 0.02) -> None:
    """Wait for something that happens elsewhere; an outage while looking is not there yet.

    Raises:
        AssertionError: with ``problem``, it did not happen in time.
    """
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        try:
            if check():
                return
        except (StoreUnavailableError, SQLAlchemyError) as error:
            problem_now = f"{problem}: {error}"
        else:
            problem_now = problem
        assert time.monotonic() < give_up_at_s, problem_now
        time.sleep(every_s)


@contextmanager
def fault_floor(disk_mb: int = 32) -> Iterator[FaultFloor]:
    """A running floor; Valkey's disk is a small one of its own where this machine lets us mount it."""
    folder = Path(tempfile.mkdtemp(prefix="wf-faults-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        disk = folder / "disk"
        disk.mkdir()
        has_disk = mount_small_disk(disk, disk_mb)
        if has_disk:
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)
        broker, valkey = own_broker(folder / "broker", ack_wait_s=1), own_valkey(disk)
        yield FaultFloor(folder, stack, broker, valkey, disk=disk if has_disk else None)


def mount_small_disk(folder: Path, megabytes: int) -> bool:
    """Mount a small tmpfs; False when this user may not."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _key_of(reading_key: str) -> Key:
    """Read ``alert:tenant/device:boot/seq``."""
    _, device, rest = reading_key.split(":", 2)
    boot_id, seq = rest.split("/")
    return device.partition("/")[2], boot_id, int(seq)


def _proxy(url: str) -> TcpProxy:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return TcpProxy(parts.hostname, parts.port)


def _through(url: str, proxy: TcpProxy) -> str:
    return url.replace(f":{urlsplit(url).port}", f":{proxy.port}")
