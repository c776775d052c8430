"""Rules in the detector's service, between a real Valkey and a real SQLite file: restarts, deaths, the archive's past.

What fires is compared with a rule of a few lines written here, which knows nothing of ours.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cluster import names
from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Action, SourceKind
from ingest.alerts.settings import AlertSettings
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.detection_settings import DetectorSettings
from ingest.detector_service import DetectorService
from ingest.errors import StoreUnavailableError
from ingest.payload import Reading
from ingest.rules.settings import RulesSettings
from ingest.telemetry_redis import TelemetryStream
from tests.fakes_alerts import START_S, FakeClock

pytestmark = pytest.mark.redis

RULES = """\
rules:
  - name: high
    metric: temperature
    threshold: {above: 80, clear_below: 70}
    for: 20s
"""
DEVICES = ("pump-1", "pump-2", "pump-3")
# Every raise an occurrence of its own, so that the table lists them one by one.
SETTINGS = AlertSettings(reopen_window_s=0.0, flap_window_s=0.0)

MakeService = Callable[[], DetectorService]


@pytest.fixture
def make_service(redis_url: str, sql: Engine, tmp_path: Path) -> MakeService:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    TelemetryStream.open(redis_url).check()
    clock = FakeClock()

    def make() -> DetectorService:
        clock.advance(1)
        return DetectorService(
            stream=TelemetryStream.open(redis_url),
            engine=sql,
            settings=DetectorSettings(batch_readings=101),
            clock=clock,
            on_events=lambda: None,
            alerts=SETTINGS,
            rules=RulesSettings(file=str(path)),
        )

    return make


@pytest.fixture
def telemetry() -> list[Reading]:
    rng = random.Random(11)
    values = dict.fromkeys(DEVICES, 75.0)
    found = []
    for seq in range(700):
        for device in DEVICES:
            values[device] = min(95.0, max(55.0, values[device] + rng.gauss(0, 4)))
            at = START_S + seq * 5.0
            found.append(Reading("demo", device, "boot", seq, at, {"temperature": values[device]}, None, at))
    return found


def expected(telemetry: list[Reading]) -> set[tuple[str, str, float]]:
    """(device, change, time) of a rule that is bad above 80 for 20 s and good below 70."""
    found = set()
    for device in DEVICES:
        bad_since, firing = None, False
        for reading in (one for one in telemetry if one.device == device):
            value = reading.values["temperature"]
            bad_since = (reading.ts if bad_since is None else bad_since) if value > 80 else None
            if not firing and bad_since is not None and reading.ts - bad_since >= 20:
                firing = True
                found.add((device, "raised", reading.ts))
            elif firing and value < 70:
                firing = False
                found.add((device, "cleared", reading.ts))
    return found


def written(sql: Engine) -> set[tuple[str, str, float]]:
    """The same from the alert table, where every event stands once."""
    store = AlertStore(sql, FakeClock())
    found: list[tuple[str, str, float]] = []
    for alert in store.list(AlertQuery(limit=500)).items:
        if alert.source_kind is not SourceKind.RULE:
            continue
        for event in store.get(alert.id).events:
            at = alert.starts_at if event.action is Action.RAISED else alert.cleared_at
            assert at is not None
            found.append((alert.device_id, event.action.value, at))
    assert len(found) == len(set(found))
    return set(found)


def judge_all(service: DetectorService) -> None:
    while service.step():
        pass


@pytest.mark.parametrize("turns", [0, 1, 7, 13])
def test_rules_fire_as_written_and_across_a_restart(
    make_service: MakeService, redis_url: str, telemetry: list[Reading], sql: Engine, turns: int
) -> None:
    """The successor knows from the stream how long a value has been bad, and from the table what fires."""
    TelemetryStream.open(redis_url).append(telemetry)
    first = make_service()
    for _ in range(turns):
        first.step()

    second = make_service()
    judge_all(second)

    assert len(expected(telemetry)) > 20
    assert written(sql) == expected(telemetry)
    assert second.status().rules.loaded == 1


@pytest.mark.parametrize("lost", ["commit", "acknowledgement"])
def test_a_death_around_the_commit_writes_each_change_once(
    make_service: MakeService,
    redis_url: str,
    telemetry: list[Reading],
    sql: Engine,
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readings that come again raise nothing again."""
    stream = TelemetryStream.open(redis_url)
    stream.append(telemetry)
    dying = make_service()
    for _ in range(6):
        dying.step()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise StoreUnavailableError("store", "the process dies here")

    broken = (AlertEngine, "report") if lost == "commit" else (TelemetryStream, "ack")
    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        with pytest.raises(StoreUnavailableError):
            judge_all(dying)

    judge_all(make_service())

    assert written(sql) == expected(telemetry)
    assert stream.lag(names.DETECTOR_GROUP) == 0


def test_an_alert_keeps_the_readings_around_it(
    make_service: MakeService, redis_url: str, telemetry: list[Reading], sql: Engine
) -> None:
    """Up to the one that raised it, as the detector's window holds them."""
    TelemetryStream.open(redis_url).append(telemetry)
    judge_all(make_service())
    store = AlertStore(sql, FakeClock())
    alerts = [one for one in store.list(AlertQuery(limit=500)).items if one.source_kind is SourceKind.RULE]
    evidence = store.get(alerts[-1].id).evidence

    assert evidence is not None
    assert evidence["points"][-1][:2] == [alerts[-1].starts_at, alerts[-1].value]
    assert evidence["threshold"] is None
