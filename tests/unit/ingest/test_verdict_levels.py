"""People's verdicts move one series' threshold, within bounds, as soon as they are given."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, update

from cluster.store import metadata, open_engine, write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Verdict
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.tables import alerts
from ingest.detection_settings import DetectorSettings
from ingest.detector import Detector
from ingest.episode import Change
from ingest.payload import Reading
from ingest.verdict_levels import DAY_S, JudgedAlert, VerdictWatch, levels_of
from ingest.windows import SeriesKey
from tests.fakes_alerts import FakeClock, decision

PUMP, FAN = SeriesKey("acme", "pump", "temp"), SeriesKey("acme", "fan", "temp")
SETTINGS = DetectorSettings(min_threshold=0.5, history_size=1024, recent_readings=5, recent_share=0.001)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/floor.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def judged(key: SeriesKey, score: float, verdict: Verdict) -> JudgedAlert:
    return JudgedAlert(key, score, verdict)


def test_a_level_is_above_what_was_called_false_and_not_above_what_was_confirmed() -> None:
    """Expected counts like false, unsure like nothing, and each series for itself."""
    assert levels_of([judged(PUMP, 7.0, Verdict.FALSE_POSITIVE), judged(PUMP, 9.0, Verdict.EXPECTED)]) == {PUMP: 9.01}
    assert levels_of([judged(PUMP, 7.0, Verdict.FALSE_POSITIVE), judged(PUMP, 6.0, Verdict.TRUE_POSITIVE)]) == {
        PUMP: 6.0
    }
    assert levels_of([judged(PUMP, 7.0, Verdict.FALSE_POSITIVE), judged(FAN, 6.0, Verdict.TRUE_POSITIVE)]) == {
        PUMP: 7.01
    }
    assert levels_of([judged(PUMP, 7.0, Verdict.UNSURE), judged(FAN, 7.0, Verdict.TRUE_POSITIVE)]) == {}


def noise(count: int, key: SeriesKey, start: int = 0) -> list[Reading]:
    values = np.random.default_rng(3).standard_normal(start + count)[start:]
    return [
        Reading(key.tenant, key.device, "b", start + at, float(start + at), {key.metric: float(value)}, None, 0.0)
        for at, value in enumerate(values)
    ]


def threshold_of(detector: Detector, key: SeriesKey) -> float:
    state = detector._series.get(key)
    assert state is not None
    assert state.series.threshold is not None
    return state.series.threshold


def test_the_threshold_rises_by_the_bound_at_most_and_comes_back() -> None:
    """From the next reading on, for that series only; a level below the threshold changes nothing."""
    detector = Detector(SETTINGS)
    detector.observe([*noise(600, PUMP), *noise(600, FAN)])
    plain = threshold_of(detector, PUMP)
    tail = detector._series.get(PUMP).series.tail  # type: ignore[union-attr]
    assert tail is not None
    most = tail.threshold(SETTINGS.exceedance_rate / SETTINGS.verdict_rarity)

    found = []
    for level in (plain + 0.1, 1e9, plain - 1.0):
        detector.set_levels({PUMP: level})
        detector.observe(noise(1, PUMP, 600 + len(found)))
        found.append(threshold_of(detector, PUMP))

    assert found == pytest.approx([plain + 0.1, most, plain])
    assert threshold_of(detector, FAN) == pytest.approx(plain)
    detector.set_levels({})
    detector.observe(noise(1, PUMP, 610))
    assert threshold_of(detector, PUMP) == pytest.approx(plain)


def test_a_watch_hears_of_verdicts_that_are_given_changed_and_too_old(engine: Engine) -> None:
    """And says nothing when there is nothing new."""
    clock = FakeClock()
    alert_engine, store = AlertEngine(engine, clock), AlertStore(engine, clock)
    alert_engine.raise_detector_alerts(
        [
            decision(Change.RAISE, 1, key=PUMP, score=8.0, reading_key="pump"),
            decision(Change.RAISE, 2, key=FAN, score=9.0, reading_key="fan"),
        ]
    )
    ids = {alert.device_id: alert.id for alert in store.list(AlertQuery()).items}
    watch = VerdictWatch(engine, clock, days=30)
    assert watch.poll() == {}

    store.act([ids["pump"]], "verdict", "ann", "r1", verdict="false_positive")
    assert watch.poll() is None  # not yet time to look
    clock.advance(1.0)
    assert watch.poll() == {PUMP: 8.01}
    clock.advance(1.0)
    assert watch.poll() is None

    store.act([ids["pump"]], "verdict", "ann", "r2", verdict="true_positive")
    store.act([ids["fan"]], "verdict", "ann", "r3", verdict="expected")
    clock.advance(1.0)
    assert watch.poll() == {FAN: 9.01}

    with write_transaction(engine) as connection:
        connection.execute(update(alerts).values(verdict_at=alerts.c.verdict_at - 31 * DAY_S))
    clock.advance(1.0)
    assert watch.poll() == {}
