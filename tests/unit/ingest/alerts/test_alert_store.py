"""Lists that page without gaps, and actions that happen once and all together."""

import logging
import time

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import DBAPIError

from cluster.metrics import REGISTRY
from cluster.store import write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Condition, Handling, Severity, Verdict
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.tables import alert_events
from ingest.errors import AlertNotFoundError, VersionConflictError
from tests.fakes_alerts import START_S, device_alert

logger = logging.getLogger(__name__)

SEVERITIES = ("warning", "critical", "low", "high", "info")


def raise_many(alert_engine: AlertEngine, count: int) -> list[str]:
    """Raise one alert per device and return their ids, oldest first."""
    refs = alert_engine.raise_device_alerts(
        [
            device_alert(number, ts=START_S + number, device=f"door-{number}", severity=SEVERITIES[number % 5])
            for number in range(count)
        ]
    )
    return [ref.alert_id for ref in refs]


@pytest.mark.parametrize("order", ["newest", "worst"])
def test_pages_hold_every_alert_once(alert_engine: AlertEngine, store: AlertStore, order: str) -> None:
    """Following the cursor gives all alerts in the order asked for, also while new ones arrive."""
    ids = raise_many(alert_engine, 23)
    seen = []
    page = store.list(AlertQuery(order=order, limit=5))
    raise_more = device_alert(99, device="late", severity="info")
    alert_engine.raise_device_alerts([raise_more])
    while True:
        seen += page.items
        if page.next_cursor is None:
            break
        page = store.list(AlertQuery(order=order, limit=5, cursor=page.next_cursor))

    seen_ids = [alert.id for alert in seen if alert.device_id != "late"]
    assert sorted(ids) == sorted(seen_ids)
    if order == "newest":
        assert ids[::-1] == seen_ids
    else:
        ranks = [alert.severity.rank for alert in seen]
        assert sorted(ranks, reverse=True) == ranks


def test_filters_narrow_the_list(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Axes can be combined."""
    ids = raise_many(alert_engine, 10)
    store.act(ids[:4], "acknowledge", "ann", "r1")

    acked = store.list(AlertQuery(handling=Handling.ACKED, severities=(Severity.CRITICAL,), condition=Condition.FIRING))
    assert [ids[1]] == [alert.id for alert in acked.items]
    assert [ids[7]] == [alert.id for alert in store.list(AlertQuery(device_id="door-7")).items]
    assert store.list(AlertQuery(tenant="other")).items == ()


def test_a_foreign_cursor_is_refused(store: AlertStore) -> None:
    """A caller's mistake is named at the door."""
    with pytest.raises(ValueError, match="not a cursor"):
        store.list(AlertQuery(cursor="x"))


def test_a_verdict_that_changes_something_is_counted_as_a_label_once(
    alert_engine: AlertEngine, store: AlertStore
) -> None:
    """Repeated requests, the same verdict again, actions without one and failed ones are no labels."""
    ids = raise_many(alert_engine, 2)

    def labels() -> float:
        return REGISTRY.get_sample_value("dataset_samples_labeled_total", {"strategy": "manual"}) or 0.0

    before = labels()
    store.act(ids, "verdict", "ann", "r1", verdict="true_positive")
    store.act(ids, "verdict", "ann", "r1", verdict="true_positive")
    store.act(ids, "verdict", "bob", "r2", verdict="true_positive")
    store.act(ids, "acknowledge", "ann", "r3")
    with pytest.raises(AlertNotFoundError):
        store.act([ids[0], "nobody"], "verdict", "ann", "r4", verdict="expected")
    after_the_first = labels() - before
    store.act(ids[:1], "close", "ann", "r5", verdict="false_positive")

    assert (after_the_first, labels() - before) == (2.0, 3.0)


def test_an_action_is_done_once_per_request(alert_engine: AlertEngine, store: AlertStore) -> None:
    """The page may send the same request again: same answer, no second event."""
    ids = raise_many(alert_engine, 3)

    first = store.act(ids, "close", "ann", "r1", verdict="false_positive")
    store.act(ids, "verdict", "bob", "r2", verdict="true_positive")
    again = store.act(ids, "close", "ann", "r1", verdict="false_positive")

    assert [alert.handling for alert in first] == [Handling.CLOSED] * 3
    assert [alert.verdict for alert in again] == [Verdict.TRUE_POSITIVE] * 3
    assert [event.seq for event in store.get(ids[0]).events] == [1, 2, 3]


def test_an_action_on_an_unknown_alert_changes_none(alert_engine: AlertEngine, store: AlertStore) -> None:
    """All or nothing."""
    ids = raise_many(alert_engine, 2)

    with pytest.raises(AlertNotFoundError, match="'nope'"):
        store.act([*ids, "nope"], "acknowledge", "ann", "r1")

    assert {Handling.NEW} == {alert.handling for alert in store.list(AlertQuery()).items}


def test_another_tenants_alert_is_not_found(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Neither read nor changed, and not even admitted to exist."""
    ids = raise_many(alert_engine, 1)

    with pytest.raises(AlertNotFoundError):
        store.get(ids[0], tenant="other")
    with pytest.raises(AlertNotFoundError):
        store.act(ids, "acknowledge", "eve", "r1", tenant="other")


@pytest.mark.parametrize(
    ("action", "arguments", "text"),
    [
        pytest.param("explode", {}, "explode", id="unknown-action"),
        pytest.param("verdict", {}, "needs a verdict", id="verdict-missing"),
        pytest.param("verdict", {"verdict": "maybe"}, "maybe", id="unknown-verdict"),
        pytest.param("note", {}, "needs a text", id="note-missing"),
    ],
)
def test_bad_arguments_are_refused(
    alert_engine: AlertEngine, store: AlertStore, action: str, arguments: dict[str, str], text: str
) -> None:
    """With the bad value in the text."""
    ids = raise_many(alert_engine, 1)

    with pytest.raises(ValueError, match=text):
        store.act(ids, action, "ann", "r1", **arguments)  # type: ignore[arg-type]


def test_notes_and_verdicts_carry_their_author(alert_engine: AlertEngine, store: AlertStore) -> None:
    """The history says who, when and what."""
    ids = raise_many(alert_engine, 1)
    store.act(ids, "note", "ann", "r1", note="Fan replaced")
    store.act(ids, "verdict", "bob", "r2", verdict="expected")

    detail = store.get(ids[0])
    assert [event.actor for event in detail.events] == ["device", "ann", "bob"]
    assert detail.events[1].data["note"] == "Fan replaced"
    assert (detail.alert.verdict_by, detail.alert.verdict) == ("bob", Verdict.EXPECTED)


def test_counts_by_severity_leave_closed_alerts_out(alert_engine: AlertEngine, store: AlertStore) -> None:
    """What an operator sees on the top bar."""
    ids = raise_many(alert_engine, 10)
    store.act([ids[1]], "close", "ann", "r1")
    store.act([ids[0]], "acknowledge", "ann", "r2")

    counts = store.counts()
    assert (counts["total"], counts["firing"]) == (10, 9)
    assert counts["unacked"] == {"critical": 1, "high": 2, "warning": 1, "low": 2, "info": 2}
    assert store.counts(tenant="other")["total"] == 0


def test_ten_thousand_alerts(sql: Engine, alert_engine: AlertEngine, store: AlertStore) -> None:
    """Lists and bulk actions stay quick; the figures are printed (``-s`` or a failure shows them)."""
    started = time.perf_counter()
    ids = raise_many(alert_engine, 10_000)
    raised_s = time.perf_counter() - started
    listed_s = []
    for _ in range(30):
        started = time.perf_counter()
        page = store.list(AlertQuery(handling=Handling.NEW, order="worst", limit=100))
        listed_s.append(time.perf_counter() - started)
    started = time.perf_counter()
    store.act(ids[:5000], "acknowledge", "ann", "r1")
    acted_s = time.perf_counter() - started

    assert len(page.items) == 100
    assert store.counts()["unacked"]["critical"] == 1000
    print(
        f"\nraise 10,000: {10_000 / raised_s:,.0f}/s; acknowledge 5,000: {acted_s:.2f} s; "
        f"list the worst 100: p50 {sorted(listed_s)[15] * 1e3:.1f} ms, max {max(listed_s) * 1e3:.1f} ms"
    )


def test_an_action_on_another_version_changes_nothing(alert_engine: AlertEngine, store: AlertStore) -> None:
    """All or none; the error says which differ."""
    ids = raise_many(alert_engine, 3)
    store.act([ids[1]], "note", "bob", "request-1", note="mine")
    with pytest.raises(VersionConflictError) as refused:
        store.act(ids, "close", "ann", "request-2", if_version=dict.fromkeys(ids, 1))

    assert refused.value.actual == {ids[1]: 2}
    assert {alert.handling for alert in store.of_ids(ids)} == {Handling.NEW}
    assert store.act(ids, "close", "ann", "request-3", if_version={ids[1]: 2})[0].handling is Handling.CLOSED


def test_an_action_by_filter_is_for_all_that_meet_it_once(alert_engine: AlertEngine, store: AlertStore) -> None:
    """Repeated, it answers with what it changed, although that no longer meets the filter."""
    raise_many(alert_engine, 10)
    query = AlertQuery(handling=Handling.NEW, severities=(Severity.CRITICAL,), limit=1)
    first = store.act(query, "acknowledge", "ann", "request-1")
    again = store.act(query, "acknowledge", "ann", "request-1")

    assert len(first) > 1
    assert sorted(alert.id for alert in again) == sorted(alert.id for alert in first)
    assert {alert.version for alert in again} == {2}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("DOOR-3", 1, id="device-any-case"),
        pytest.param("forced door-4", 1, id="all-words"),
        pytest.param("forced 100%", 0, id="no-wildcard"),
        pytest.param("forced_open", 0, id="no-wildcard-for-one-sign"),
        pytest.param("", 10, id="nothing"),
    ],
)
def test_a_search(alert_engine: AlertEngine, store: AlertStore, text: str, found: int) -> None:
    """Words in title, text, device, rule, site or metric."""
    reports = [device_alert(number, device=f"door-{number}") for number in range(10)]
    alert_engine.raise_device_alerts(reports)

    assert len(store.list(AlertQuery(text=text)).items) == found


def test_the_history_cannot_be_rewritten(sql: Engine, alert_engine: AlertEngine) -> None:
    """Not even by hand: the database refuses, except for the mark that it was told."""
    raise_many(alert_engine, 1)
    with pytest.raises(DBAPIError, match="append-only"), write_transaction(sql) as connection:
        connection.execute(update(alert_events).values(actor="nobody"))
    with write_transaction(sql) as connection:
        assert connection.execute(update(alert_events).values(broadcast_at=1.0)).rowcount == 1
