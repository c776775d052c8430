"""The detector between a real Valkey and a real SQLite file: restarts, outages, models.

``step`` is driven by the tests; no Ray.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cluster import names
from cluster.store import metadata, open_engine, read_transaction, write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Alert, AlertEvent, Condition
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.detection_settings import DetectorSettings
from ingest.detector_service import DetectorService
from ingest.errors import ScorerError, StoreUnavailableError
from ingest.live_models import LiveModel, write_live_model
from ingest.model_trial import TrialState, add_trial, list_trials, running_trial
from ingest.payload import Reading
from ingest.scorer import Scorer
from ingest.telemetry_redis import TelemetryStream
from tests.fakes_alerts import FakeClock, LastDifference, readings
from tests.signals import SHIFT, a_day_with_faults

pytestmark = pytest.mark.redis

SETTINGS = DetectorSettings(min_threshold=8.0, batch_readings=137)

MakeService = Callable[..., DetectorService]


@pytest.fixture
def sql(tmp_path: Path) -> Engine:
    engine = open_engine(f"sqlite:///{tmp_path}/floor.db")
    metadata.create_all(engine)
    return engine


@pytest.fixture
def stream(redis_url: str) -> TelemetryStream:
    stream = TelemetryStream.open(redis_url)
    stream.check()
    return stream


@pytest.fixture
def make_service(redis_url: str, sql: Engine) -> MakeService:
    """A detector that was just started: with its own connection to Valkey and empty windows."""

    def make(clock: FakeClock | None = None, load: Callable[[LiveModel], Scorer] | None = None) -> DetectorService:
        return DetectorService(
            stream=TelemetryStream.open(redis_url),
            engine=sql,
            settings=SETTINGS,
            clock=clock or FakeClock(),
            on_events=lambda: None,
            load=load or (lambda model: LastDifference(model.version)),
        )

    return make


def judge_all(service: DetectorService) -> int:
    total = 0
    while judged := service.step():
        total += judged
    return total


def history(sql: Engine) -> list[tuple[object, ...]]:
    """Every alert with its events, without the ids and times that differ between two floors."""
    store = AlertStore(sql, FakeClock())
    details = [store.get(alert.id) for alert in store.list(AlertQuery(limit=500)).items]
    return sorted(_comparable(detail.alert, detail.events) for detail in details)


def _comparable(alert: Alert, events: tuple[AlertEvent, ...]) -> tuple[object, ...]:
    steps = [(event.seq, event.action, event.to, event.reading_key) for event in events]
    return alert.device_id, alert.occurrence, alert.starts_at, alert.score, alert.count, alert.version, steps


@pytest.fixture
def telemetry() -> list[Reading]:
    one = readings(a_day_with_faults(5), device="pump-1")
    two = readings(a_day_with_faults(1), device="pump-2")
    return [reading for pair in zip(one, two, strict=True) for reading in pair]


@pytest.fixture
def expected(telemetry: list[Reading], tmp_path: Path) -> list[tuple[object, ...]]:
    """What a detector that is never disturbed makes of it."""
    from ingest.detector import Detector

    engine = open_engine(f"sqlite:///{tmp_path}/undisturbed.db")
    metadata.create_all(engine)
    AlertEngine(engine, FakeClock()).raise_detector_alerts(Detector(SETTINGS).observe(telemetry))
    return history(engine)


def test_alerts_are_committed_and_readings_acknowledged(
    stream: TelemetryStream,
    make_service: MakeService,
    telemetry: list[Reading],
    sql: Engine,
    expected: list[tuple[object, ...]],
) -> None:
    """From the stream to the table, nothing left behind."""
    stream.append(telemetry)
    service = make_service()

    assert judge_all(service) == len(telemetry)
    assert len(expected) >= 4
    assert history(sql) == expected
    assert stream.lag(names.DETECTOR_GROUP) == 0
    status = service.status()
    assert (status.model, status.version, status.series, status.readings_total) == (
        "ar-baseline",
        "1",
        2,
        len(telemetry),
    )


@pytest.mark.parametrize("turns", [1, 5, 18, 30])
def test_a_restart_in_the_middle_gives_the_same_alerts(
    stream: TelemetryStream,
    make_service: MakeService,
    telemetry: list[Reading],
    sql: Engine,
    expected: list[tuple[object, ...]],
    turns: int,
) -> None:
    """The successor rebuilds its windows from the stream and goes on where the other one was."""
    stream.append(telemetry)
    first = make_service()
    for _ in range(turns):
        first.step()

    judge_all(make_service())

    assert history(sql) == expected


@pytest.mark.parametrize("lost", ["commit", "acknowledgement"])
def test_a_death_around_the_commit_gives_the_same_alerts(
    stream: TelemetryStream,
    make_service: MakeService,
    telemetry: list[Reading],
    sql: Engine,
    expected: list[tuple[object, ...]],
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the commit or only the acknowledgement is missing, each reading has its effect once."""
    stream.append(telemetry)
    dying = make_service()
    broken = (AlertEngine, "raise_detector_alerts") if lost == "commit" else (TelemetryStream, "ack")

    def fail(*_args: object, **_kwargs: object) -> None:
        raise StoreUnavailableError("store", "the process dies here")

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        with pytest.raises(StoreUnavailableError):
            judge_all(dying)

    judge_all(make_service())

    assert history(sql) == expected
    assert stream.lag(names.DETECTOR_GROUP) == 0


@pytest.mark.parametrize("lost", ["commit", "acknowledgement"])
def test_an_outage_is_waited_for(
    stream: TelemetryStream,
    make_service: MakeService,
    telemetry: list[Reading],
    sql: Engine,
    expected: list[tuple[object, ...]],
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same process tries again with what it has in hand; no reading is judged twice."""
    stream.append(telemetry)
    service = make_service()
    broken = (AlertEngine, "raise_detector_alerts") if lost == "commit" else (TelemetryStream, "ack")

    def fail(*_args: object, **_kwargs: object) -> None:
        raise StoreUnavailableError("store", "away")

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        for _ in range(30):
            try:
                service.step()
            except StoreUnavailableError:
                continue

    judge_all(service)

    assert history(sql) == expected


def test_the_live_model_is_followed(
    stream: TelemetryStream, make_service: MakeService, telemetry: list[Reading], sql: Engine
) -> None:
    """Within a second of its promotion; the alerts after it name the new version."""
    clock = FakeClock()
    service = make_service(clock)
    stream.append(telemetry[: 2 * SHIFT])
    judge_all(service)
    promote(sql, "v2", 0)

    clock.advance(1.0)
    wait_for(service, "v2")
    stream.append(telemetry[2 * SHIFT :])
    judge_all(service)

    assert service.status().revision == 1
    newest = AlertStore(sql, clock).list(AlertQuery()).items[0]
    assert (newest.model, newest.model_version) == ("last_difference", "v2")


def test_a_restart_judges_by_the_live_model_at_once(
    stream: TelemetryStream, make_service: MakeService, telemetry: list[Reading], sql: Engine
) -> None:
    """Not by the baseline until the model is loaded."""
    promote(sql, "v2", 0)

    def slowly(model: LiveModel) -> Scorer:
        time.sleep(0.3)
        return LastDifference(model.version)

    service = make_service(load=slowly)
    stream.append(telemetry)
    judge_all(service)

    assert {"v2"} == {alert.model_version for alert in AlertStore(sql, FakeClock()).list(AlertQuery()).items}


def test_a_bad_model_never_stops_detection(
    stream: TelemetryStream,
    make_service: MakeService,
    telemetry: list[Reading],
    sql: Engine,
    expected: list[tuple[object, ...]],
) -> None:
    """It is refused once, the status says why, and the version in use goes on."""
    tried = []

    def refuse(model: LiveModel) -> Scorer:
        tried.append(model.revision)
        raise ScorerError(model.scorer, model.version, "truncated")

    promote(sql, "v3", 0)
    service = make_service(FakeClock(), refuse)
    stream.append(telemetry)
    while service.step():
        pass  # at one moment, as in ``expected``: how often an alert changed lately is part of its history

    assert history(sql) == expected
    assert tried == [1]
    status = service.status()
    assert (status.version, status.revision) == ("1", 0)
    assert status.refused_model == "model anomaly_detector@v3 cannot be used: truncated"


def test_a_challenger_is_tried_silently_and_needs_no_loading_when_it_wins(
    stream: TelemetryStream,
    make_service: MakeService,
    telemetry: list[Reading],
    sql: Engine,
) -> None:
    """Its score is written down once a second; no alert names it before it is champion."""
    loaded: list[str] = []

    def load(model: LiveModel) -> Scorer:
        loaded.append(f"{model.alias} {model.version}")
        return LastDifference(model.version)

    clock = FakeClock()
    service = make_service(clock, load)
    promote(sql, "v1", 0)
    stream.append(telemetry[: 2 * SHIFT])
    judge_all(service)
    challenge(sql, "v2", "v1")
    advance_until(service, clock, lambda: service.status().challenger == "v2")

    stream.append(telemetry[2 * SHIFT :])
    judged = judge_all(service)
    clock.advance(1.0)
    service.step()
    with read_transaction(sql) as connection:
        trial = running_trial(connection)
    assert trial is not None
    assert trial.readings == judged
    assert trial.champion_alerts == trial.challenger_alerts > 0  # they are the same model
    assert {alert.model_version for alert in AlertStore(sql, clock).list(AlertQuery()).items} <= {"v1", "1"}

    promote(sql, "v2", 1)
    advance_until(service, clock, lambda: service.status().version == "v2")
    assert loaded == ["champion v1", "challenger v2"]
    assert service.series_behind == 0, "it had scored the past of all of them"
    assert service.status().challenger is None


def test_the_way_back_needs_no_loading(
    stream: TelemetryStream, make_service: MakeService, telemetry: list[Reading], sql: Engine
) -> None:
    """Versions that were champion stay in memory for a while, the newest of them."""
    loaded: list[str] = []

    def load(model: LiveModel) -> Scorer:
        loaded.append(model.version)
        return LastDifference(model.version)

    clock = FakeClock()
    service = make_service(clock, load)
    stream.append(telemetry[:SHIFT])
    versions = ["v1", "v2", "v1", "v2", "v3", "v4", "v5", "v2", "v1"]
    for revision, version in enumerate(versions):
        promote(sql, version, revision)
        advance_until(service, clock, lambda version=version: service.status().version == version)  # type: ignore[misc]
        judge_all(service)

    assert loaded == ["v1", "v2", "v3", "v4", "v5", "v1"]


def test_a_challenger_that_cannot_be_loaded_ends_its_trial(
    stream: TelemetryStream, make_service: MakeService, telemetry: list[Reading], sql: Engine
) -> None:
    def refuse(model: LiveModel) -> Scorer:
        raise ScorerError(model.scorer, model.version, "truncated")

    clock = FakeClock()
    service = make_service(clock, refuse)
    stream.append(telemetry[:SHIFT])
    judge_all(service)
    challenge(sql, "v2", "1")

    def refusals() -> list[str]:
        with read_transaction(sql) as connection:
            return [trial.reason for trial in list_trials(connection, 9) if trial.state is TrialState.REFUSED]

    advance_until(service, clock, lambda: refusals() != [])
    assert refusals() == ["model anomaly_detector@v2 cannot be used: truncated"]
    assert service.status().challenger is None


def test_a_firing_alert_whose_start_has_left_the_stream_still_clears(
    stream: TelemetryStream, make_service: MakeService, telemetry: list[Reading], sql: Engine
) -> None:
    """The table, not the windows, says what is firing."""
    from ingest.episode import Change
    from tests.fakes_alerts import START_S, decision

    calm = [reading for reading in telemetry if reading.device == "pump-1"][:600]
    AlertEngine(sql, FakeClock()).raise_detector_alerts([decision(Change.RAISE, 0, ts=START_S - 50, reading_key="old")])
    stream.append(calm)

    judge_all(make_service())

    assert AlertStore(sql, FakeClock()).list(AlertQuery()).items[0].condition is Condition.CLEARED


def promote(sql: Engine, version: str, expected_revision: int) -> None:
    with write_transaction(sql) as connection:
        write_live_model(
            connection,
            scorer="anomaly_detector",
            version=version,
            uri="file:///models/x",
            expected_revision=expected_revision,
            at=1.0,
        )


def challenge(sql: Engine, version: str, against: str) -> None:
    with write_transaction(sql) as connection:
        add_trial(
            connection,
            scorer="anomaly_detector",
            version=version,
            uri="file:///models/x",
            run_id="run",
            user_id="ada",
            against=against,
            state=TrialState.RUNNING,
            reason="trained",
            at=1.0,
        )


def advance_until(service: DetectorService, clock: FakeClock, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        clock.advance(0.3)
        service.step()


def wait_for(service: DetectorService, version: str) -> None:
    deadline = time.monotonic() + 10
    while service.status().version != version:
        assert time.monotonic() < deadline
        service.step()
