"""Which alert a report becomes, and that it becomes it once."""

import pytest
from sqlalchemy import Engine, insert, select

from cluster.store import write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Action, Condition, Handling, Severity
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.tables import alert_events
from ingest.directory import devices
from ingest.episode import Change
from ingest.windows import SeriesKey
from tests.fakes_alerts import START_S, FakeClock, decision, device_alert


def test_a_device_alert_names_its_device_and_who_must_hear_of_it(
    sql: Engine, alert_engine: AlertEngine, store: AlertStore
) -> None:
    """Client, site and supervisor come from the directory at the time of the alert."""
    owner = {"client_id": "7", "site": "Hall 3", "supervisor_id": "u-ann", "known": True}
    with write_transaction(sql) as connection:
        connection.execute(insert(devices).values(tenant="demo", device="door-1", **owner))

    refs = alert_engine.raise_device_alerts([device_alert(value=3.0, threshold=1.0)])

    alert = store.get(refs[0].alert_id).alert
    assert (alert.client_id, alert.site, alert.supervisor_id) == ("7", "Hall 3", "u-ann")
    assert (alert.title, alert.text, alert.rule) == ("Door forced", "Door forced open", "door_forced")
    assert (alert.severity, alert.condition, alert.handling) == (Severity.HIGH, Condition.FIRING, Handling.NEW)
    assert (alert.value, alert.threshold, alert.starts_at, alert.version) == (3.0, 1.0, START_S, 1)


def test_a_redelivered_alert_changes_nothing(alert_engine: AlertEngine, store: AlertStore) -> None:
    """The broker may bring the same alert again, in the same batch or after a restart."""
    alert_engine.raise_device_alerts([device_alert(1), device_alert(1)])
    again = alert_engine.raise_device_alerts([device_alert(1)])

    alert = store.list(AlertQuery()).items[0]
    assert again == []
    assert (alert.count, alert.version) == (1, 1)


def test_alerts_without_a_sequence_number_count_every_time(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Nothing is ever dropped because it looks the same."""
    alert_engine.raise_device_alerts([device_alert(None)] * 100)

    assert [alert.count for alert in store.list(AlertQuery()).items] == [100]
    assert len(store.get(store.list(AlertQuery()).items[0].id).events) == 100


@pytest.mark.parametrize(
    ("gap_s", "occurrences"),
    [pytest.param(599.0, [1], id="within-the-window"), pytest.param(601.0, [2, 1], id="later")],
)
def test_a_problem_that_comes_back_later_is_a_new_occurrence(
    alert_engine: AlertEngine, store: AlertStore, gap_s: float, occurrences: list[int]
) -> None:
    """Within ten minutes it is the same row with a higher count; later it is a row of its own."""
    alert_engine.raise_device_alerts([device_alert(1)])
    alert_engine.raise_device_alerts([device_alert(2, ts=START_S + gap_s)])

    found = store.list(AlertQuery()).items
    assert occurrences == [alert.occurrence for alert in found]
    assert len({alert.fingerprint for alert in found}) == 1
    if len(found) == 2:
        assert found[1].condition is Condition.CLEARED


def test_a_closed_alert_that_comes_back_is_a_new_occurrence(alert_engine: AlertEngine, store: AlertStore) -> None:
    """People were done with the old one, so the new one asks for attention."""
    ref = alert_engine.raise_device_alerts([device_alert(1)])[0]
    store.act([ref.alert_id], "close", "ann", "r1")

    alert_engine.raise_device_alerts([device_alert(2, ts=START_S + 5)])

    newest, closed = store.list(AlertQuery()).items
    assert (newest.occurrence, newest.handling) == (2, Handling.NEW)
    assert closed.handling is Handling.CLOSED


def test_a_worse_report_asks_for_attention_again(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Who acknowledged a warning has not seen the critical one."""
    ref = alert_engine.raise_device_alerts([device_alert(1, severity="warning")])[0]
    store.act([ref.alert_id], "acknowledge", "ann", "r1")

    worse = alert_engine.raise_device_alerts([device_alert(2, severity="critical")])

    alert = store.get(ref.alert_id).alert
    assert [event.action for event in worse] == [Action.ESCALATED]
    assert (alert.severity, alert.handling, alert.acked_by) == (Severity.CRITICAL, Handling.NEW, None)


def test_a_detector_alert_keeps_its_model_and_evidence(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Every alert can be traced to the model version and the readings that made it."""
    ref = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1)])[0]

    detail = store.get(ref.alert_id)
    assert (detail.alert.model, detail.alert.model_version, detail.alert.score) == ("ar-baseline", "1", 9.0)
    assert detail.alert.recorded_at == "2013-12-16T17:25:00Z"
    assert detail.evidence is not None
    assert detail.evidence["points"] == [[START_S - 1, 80.0, 1.0, None], [START_S, 20.5, 9.0, None]]


def test_a_detector_alert_grows_and_clears(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Raise, a rarer reading, quiet: three events, one row that shows the rarest reading."""
    steps = [
        decision(Change.RAISE, 1),
        decision(Change.UPDATE, 5, ts=START_S + 5, score=12.0, severity=Severity.HIGH),
        decision(Change.CLEAR, 99, ts=START_S + 99, score=1.0),
    ]
    refs = alert_engine.raise_detector_alerts(steps)

    detail = store.get(refs[0].alert_id)
    assert [event.action for event in detail.events] == [Action.RAISED, Action.ESCALATED, Action.CLEARED]
    assert [event.to for event in detail.events] == ["firing/new", "firing/new", "cleared/new"]
    assert [event.seq for event in detail.events] == [1, 2, 3]
    assert (detail.alert.score, detail.alert.cleared_at) == (12.0, START_S + 99)


def test_the_evidence_stays_with_the_reading_that_the_alert_shows(alert_engine: AlertEngine, store: AlertStore) -> None:
    """A smaller episode leaves value, score and chart of the rarest one; a rarer one replaces all of them."""
    (ref,) = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1, score=12.0)])
    alert_engine.raise_detector_alerts([decision(Change.CLEAR, 2, ts=START_S + 1, score=1.0)])
    alert_engine.raise_detector_alerts([decision(Change.RAISE, 3, ts=START_S + 2, score=8.0)])
    smaller = store.get(ref.alert_id)
    alert_engine.raise_detector_alerts([decision(Change.UPDATE, 4, ts=START_S + 3, score=15.0)])
    rarer = store.get(ref.alert_id)

    assert smaller.evidence is not None
    assert rarer.evidence is not None
    assert (smaller.alert.score, smaller.evidence["points"][-1][2]) == (12.0, 12.0)
    assert (rarer.alert.score, rarer.evidence["points"][-1][2]) == (15.0, 15.0)


def test_another_model_version_raises_an_alert_of_its_own(alert_engine: AlertEngine, store: AlertStore) -> None:
    """The same version that sees an ended problem again reopens it; a new one begins an occurrence under its name."""
    alert_engine.raise_detector_alerts([decision(Change.RAISE, 1), decision(Change.CLEAR, 2, ts=START_S + 1)])
    alert_engine.raise_detector_alerts([decision(Change.RAISE, 3, ts=START_S + 2)])
    alert_engine.raise_detector_alerts([decision(Change.CLEAR, 4, ts=START_S + 3)])
    alert_engine.raise_detector_alerts([decision(Change.RAISE, 5, ts=START_S + 4, score=7.5, model_version="2")])

    found = [(alert.occurrence, alert.model_version, alert.count) for alert in store.list(AlertQuery()).items]
    assert found == [(2, "2", 1), (1, "1", 2)]


def test_decisions_brought_again_change_nothing(alert_engine: AlertEngine, store: AlertStore) -> None:
    """A detector that restarts before its acknowledgement scores the same readings again."""
    steps = [decision(Change.RAISE, 1), decision(Change.CLEAR, 9, ts=START_S + 9)]
    alert_engine.raise_detector_alerts(steps)
    before = store.list(AlertQuery()).items

    assert alert_engine.raise_detector_alerts(steps) == []
    assert before == store.list(AlertQuery()).items


def test_updates_and_clears_without_an_alert_have_no_effect(alert_engine: AlertEngine, store: AlertStore) -> None:
    """A detector may know of an episode whose alert was never written."""
    steps = [decision(Change.UPDATE, 1), decision(Change.CLEAR, 2)]

    assert alert_engine.raise_detector_alerts(steps) == []
    assert store.list(AlertQuery()).items == ()


def test_a_silent_device_makes_its_alerts_stale_not_resolved(
    alert_engine: AlertEngine, store: AlertStore, clock: FakeClock
) -> None:
    """A lost link says nothing about the problem; a new report fires the same occurrence."""
    ref = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1)])[0]

    stale = alert_engine.mark_stale("demo", "pump-1", "link lost")
    assert [event.action for event in stale] == [Action.WENT_STALE]
    assert alert_engine.mark_stale("demo", "pump-1", "link lost") == []
    assert store.get(ref.alert_id).alert.condition is Condition.STALE

    back = alert_engine.raise_detector_alerts([decision(Change.UPDATE, 2, ts=START_S + 30)])
    assert [event.action for event in back] == [Action.REOPENED]


def test_a_restarted_detector_learns_what_is_firing(alert_engine: AlertEngine) -> None:
    """Cleared alerts are not among them."""
    other = SeriesKey("demo", "pump-2", "temperature")
    alert_engine.raise_detector_alerts(
        [
            decision(Change.RAISE, 1),
            decision(Change.RAISE, 2, key=other, reading_key="x"),
            decision(Change.CLEAR, 3, key=other, reading_key="y"),
        ]
    )

    assert {SeriesKey("demo", "pump-1", "temperature"): (START_S, 9.0)} == alert_engine.firing_series()


def test_a_failed_transaction_leaves_no_trace(sql: Engine, alert_engine: AlertEngine, store: AlertStore) -> None:
    """Alert and event are written together with what the caller writes, or not at all."""

    def write_and_fail() -> None:
        with write_transaction(sql) as connection:
            alert_engine.raise_device_alerts([device_alert(1)], connection)
            raise RuntimeError("the process dies here")

    with pytest.raises(RuntimeError, match="dies here"):
        write_and_fail()

    assert store.list(AlertQuery()).items == ()
    with sql.connect() as connection:
        assert connection.execute(select(alert_events)).all() == []
