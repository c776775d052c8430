"""Promote and roll back under load: how soon the detector uses the other version, and that no score is missing.

A detector on a real Valkey and SQLite judges 40 series at a set rate while the champion alternates
between two registered versions; a third version is on trial all the time, and wins in the end. For each
move: the time from the commit of the alias to the first batch that the other version judged, and to the
one after which it judges every series. Afterwards: readings stored, judged and left over, and the
versions that alerts name.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, select

from cluster import migrate, names
from cluster.clock import SystemClock
from cluster.embedded import Credentials, EmbeddedSettings, redis_service
from cluster.ports import free_port
from cluster.store import open_engine, read_transaction
from ingest.alerts.tables import alerts
from ingest.detection_settings import DetectorSettings
from ingest.detector_service import DetectorService
from ingest.payload import Reading
from ingest.telemetry_redis import TelemetryStream
from training.models.anomaly import MODEL_TYPE
from training.models.forecaster import ForecasterConfig, ResidualForecaster
from training.models.weights import dump_weights
from training.registry.manifest import Manifest
from training.registry.promotion import challenge, champion, promote
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry

SERIES = 40
RATE = 1000
WARM_UP = 400
MOVES = 20
PAUSE_S = 1.5


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the one row."""
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as name:
        folder = Path(name)
        service = redis_service(folder, free_port(), Credentials.load_or_create(folder), EmbeddedSettings())
        child = service.start()
        try:
            service.wait_ready(child, 15)
            yield measure(service.url, folder, seed=seeds)
        finally:
            child.stop()


def measure(redis_url: str, folder: Path, seed: int) -> dict[str, Any]:
    """Return the figures of one run."""
    database = f"sqlite:///{folder}/floor.db"
    migrate.upgrade(database)
    engine = open_engine(database)
    registry = ModelRegistry(Storage((folder / "storage").as_uri()))
    one, two, three = (registered(registry, number) for number in (1, 2, 3))
    stream = TelemetryStream.open(redis_url)
    stream.check()
    service = DetectorService(
        stream=TelemetryStream.open(redis_url),
        engine=engine,
        settings=DetectorSettings(),
        clock=SystemClock(),
        on_events=lambda: None,
    )
    stop = threading.Event()
    judged: list[Batch] = []
    promote(engine, one, registry.uri(one), reason="first", at=time.time(), expected_revision=0)
    challenge(engine, three, registry.uri(three), reason="all the time", at=time.time())
    sender = Sender(stream, seed)
    sender.warm_up()
    threads = [
        threading.Thread(target=judge, args=(service, judged, stop)),
        threading.Thread(target=sender.run, args=(stop,)),
    ]
    for thread in threads:
        thread.start()
    moves = []
    for number in range(MOVES):
        time.sleep(PAUSE_S)
        moves.append(move(engine, registry, (two, one)[number % 2], judged))
    time.sleep(1.0)
    challenger = service.status().challenger
    won = move(engine, registry, three, judged)
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    while service.step():
        pass
    counts = sender.sent - sum(batch.readings for batch in judged)
    with read_transaction(engine) as connection:
        versions = set(connection.execute(select(alerts.c.model_version).distinct()).scalars())
        raised = connection.execute(select(func.count()).select_from(alerts)).scalar_one()
    service.close()
    return {
        "part": "promote",
        "case": "promote and roll back under load",
        "moves": MOVES,
        "readings_per_s": RATE,
        "series": SERIES,
        "to_other_version_s_median": round(statistics.median(each.first_s for each in moves), 3),
        "to_other_version_s_max": round(max(each.first_s for each in moves), 3),
        "to_every_series_s_median": round(statistics.median(each.every_s for each in moves), 3),
        "to_every_series_s_max": round(max(each.every_s for each in moves), 3),
        "challenger_to_every_series_s": round(won.every_s, 3),
        "readings_sent": sender.sent,
        "readings_left": stream.lag(names.DETECTOR_GROUP),
        "judged_after_the_end": counts,
        "batch_gap_s_max": round(float(max(np.diff([batch.at_s for batch in judged]))), 3),
        "alerts": raised,
        "versions_named": len(versions),
        "unknown_versions_named": sorted(versions - {one.version, two.version, three.version, "1"}),
        "challenger_beside": challenger == three.version,
        "seed": seed,
    }


@dataclass(frozen=True, slots=True)
class Batch:
    """What the detector judged in one turn."""

    at_s: float
    readings: int
    version: str
    """In use when the turn was over."""
    series_behind: int
    """Series that another version still scores."""


@dataclass(frozen=True, slots=True)
class Move:
    """How long after a promotion was committed it was in use."""

    first_s: float
    """A batch was judged with it in use."""
    every_s: float
    """It scored every series."""


def judge(service: DetectorService, judged: list[Batch], stop: threading.Event) -> None:
    """Drive the detector; note each batch with the one version that judged it."""
    while not stop.is_set():
        count = service.step()
        if count:
            judged.append(Batch(time.monotonic(), count, service.status().version, service.series_behind))


def move(engine: Engine, registry: ModelRegistry, target: Manifest, judged: list[Batch]) -> Move:
    """Make ``target`` champion and wait until it scores every series."""
    before = champion(engine)
    revision = 0 if before is None else before.revision
    promote(engine, target, registry.uri(target), reason="bench", at=time.time(), expected_revision=revision)
    since_s = time.monotonic()
    while True:
        by_target = [batch for batch in judged[-200:] if batch.at_s >= since_s and batch.version == target.version]
        done = next((batch for batch in by_target if not batch.series_behind), None)
        if done is not None:
            return Move(by_target[0].at_s - since_s, done.at_s - since_s)
        time.sleep(0.005)


class Sender:
    """Appends readings of all series at ``RATE``, waves with noise and now and then a jump."""

    def __init__(self, stream: TelemetryStream, seed: int) -> None:
        self._stream = stream
        self._rng = np.random.default_rng(seed)
        self.sent = 0

    def warm_up(self) -> None:
        """Give every series its first past."""
        for _ in range(WARM_UP // 10):
            self._send(10)

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop``."""
        pause_s = SERIES / RATE
        due_s = time.monotonic()
        while not stop.is_set():
            self._send(1)
            due_s += pause_s
            stop.wait(max(0.0, due_s - time.monotonic()))

    def _send(self, steps: int) -> None:
        now = time.time()
        batch = []
        for step in range(steps):
            seq = self.sent // SERIES + step
            noise = self._rng.normal(0, 0.3, SERIES)
            jumps = 15.0 * (self._rng.random(SERIES) < 0.0005)
            for device in range(SERIES):
                value = 20 + 3 * np.sin(seq / 12 + device) + noise[device] + jumps[device]
                batch.append(
                    Reading(
                        tenant="bench",
                        device=f"d{device}",
                        boot_id="b",
                        seq=seq,
                        ts=now + step * 1e-3,
                        values={"x": float(value)},
                        recorded_at=None,
                        received_at=now,
                    )
                )
        self._stream.append(batch)
        self.sent += len(batch)


def registered(registry: ModelRegistry, number: int) -> Manifest:
    """Register a network with weights of its own."""
    import torch

    torch.manual_seed(number)
    model = ResidualForecaster(ForecasterConfig(context=48, channels=16, num_layers=4))
    return registry.add(
        model_type=MODEL_TYPE,
        weights=dump_weights(model.state_dict()),
        created_at_s=time.time() + number,
        config=model.config.to_json(),
        dataset={"name": "bench"},
        metrics={},
        settings={},
        seed=number,
        run_id="",
        user_id="",
        libraries={},
    )
