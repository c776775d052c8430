"""Silences on a real SQLite file: on alerts that begin, on those that are there, and at their end."""

import json

import pytest
from sqlalchemy import Engine

from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Action, SuppressionKind
from ingest.alerts.relay import Relay
from ingest.alerts.silence import Matcher, Repeat
from ingest.alerts.silence_store import SilenceStore
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.errors import SilenceNotFoundError, VersionConflictError
from tests.fakes_alerts import START_S, FakeClock, FakeHub, a_silence, device_alert

DOORS = Matcher("device", ("door-*",))


@pytest.fixture
def silences(sql: Engine, clock: FakeClock) -> SilenceStore:
    return SilenceStore(sql, clock)


def raise_on(alert_engine: AlertEngine, *devices: str) -> list[str]:
    reports = [device_alert(number, device=device) for number, device in enumerate(devices, start=1)]
    return [ref.alert_id for ref in alert_engine.raise_device_alerts(reports)]


def types_on(hub: FakeHub, channel: str = "noc:all") -> list[str]:
    return [json.loads(draft.data)["type"] for draft in hub.on(channel)]


def test_an_alert_that_begins_under_a_silence_is_stored_and_told_to_nobody(
    alert_engine: AlertEngine, store: AlertStore, silences: SilenceStore, relay: Relay, hub: FakeHub
) -> None:
    """Dashboards have it, dimmed; supervisor and tenant get no notification."""
    made, changed = silences.create(a_silence(DOORS))
    silenced, told = raise_on(alert_engine, "door-1", "pump-1")
    relay.publish_pending()

    alert = store.get(silenced).alert
    assert changed == 0
    assert [(one.kind, one.ref, one.reason, one.by) for one in alert.suppressed_by] == [
        (SuppressionKind.SILENCE, made.id, "rewiring", "ann")
    ]
    assert types_on(hub) == ["alert_update", "alert_notification"]
    assert types_on(hub, "tenant:demo") == ["alert_update", "tenant_alert"]
    assert not store.get(told).alert.suppressed_by
    counts = store.counts()
    assert (counts["total"], counts["firing"], counts["suppressed"]) == (2, 1, 1)
    assert [one.id for one in store.list(AlertQuery(is_suppressed=True)).items] == [silenced]


def test_a_silence_reaches_alerts_that_are_there_and_its_end_tells_of_them(
    alert_engine: AlertEngine, store: AlertStore, silences: SilenceStore, relay: Relay, hub: FakeHub, clock: FakeClock
) -> None:
    """What still waits for somebody is told again; what was acknowledged meanwhile is not."""
    waiting, acked, other = raise_on(alert_engine, "door-1", "door-2", "pump-1")
    made, changed = silences.create(a_silence(DOORS))
    store.act([acked], "acknowledge", "bob", "request-1")
    relay.publish_pending()
    hub.published.clear()
    clock.advance(60)
    ended, freed = silences.change(made.id, "bob", expired_by="bob")
    relay.publish_pending()

    assert (changed, freed, ended.expired_by) == (2, 2, "bob")
    assert store.get(other).alert.version == 1
    assert not store.get(waiting).alert.suppressed_by
    assert store.get(waiting).alert.waiting_since == START_S + 60
    assert [event.action for event in store.get(waiting).events] == [
        Action.RAISED, Action.SUPPRESSED, Action.UNSUPPRESSED,
    ]  # fmt: skip
    assert sorted(types_on(hub)) == ["alert_notification", "alert_update"]


def test_a_window_begins_and_ends_by_the_timer(
    alert_engine: AlertEngine, store: AlertStore, silences: SilenceStore, clock: FakeClock
) -> None:
    """Nothing is due before; a daily one is due again the next day."""
    (door,) = raise_on(alert_engine, "door-1")
    window = a_silence(
        DOORS, starts_at=START_S + 100, ends_at=START_S + 200, repeats=Repeat.DAILY, kind=SuppressionKind.MAINTENANCE
    )
    made, changed = silences.create(window)
    seen = []
    for at in (50, 100, 150, 200, 86_500):
        now = START_S + at
        changes = sum(silences.settle(one, now, is_timers=True) for one in silences.due(now))
        seen.append((at, changes, store.get(door).alert.is_suppressed))

    assert changed == 0
    assert seen == [(50, 0, False), (100, 1, True), (150, 0, True), (200, 1, False), (86_500, 1, True)]
    assert silences.get(made.id).version == 4


def test_an_edited_silence_lets_go_of_what_it_no_longer_matches(
    alert_engine: AlertEngine, store: AlertStore, silences: SilenceStore
) -> None:
    """And takes what it matches now."""
    door, pump = raise_on(alert_engine, "door-1", "pump-1")
    made, _ = silences.create(a_silence(DOORS))
    _, changed = silences.change(made.id, "bob", matchers=(Matcher("device", ("pump-1",)),))

    assert changed == 2
    assert not store.get(door).alert.is_suppressed
    assert store.get(pump).alert.is_suppressed


def test_changes_are_compared_and_set(silences: SilenceStore, clock: FakeClock) -> None:
    """Another version, another tenant, or a silence that is over: refused, nothing changes."""
    made, _ = silences.create(a_silence(tenant="demo"))
    with pytest.raises(VersionConflictError):
        silences.change(made.id, "bob", if_version=7, comment="x")
    with pytest.raises(SilenceNotFoundError):
        silences.change(made.id, "bob", tenant="others", comment="x")
    clock.advance(4000)
    with pytest.raises(ValueError, match="over"):
        silences.change(made.id, "bob", comment="x")

    assert silences.get(made.id).comment == "rewiring"


def test_a_repeated_request_makes_one_silence(silences: SilenceStore) -> None:
    """The second one answers with the first."""
    first, _ = silences.create(a_silence(), "request-1")
    second, _ = silences.create(a_silence(), "request-1")

    assert second.id == first.id
    assert len(silences.list().items) == 1


def test_lists_know_states(silences: SilenceStore, clock: FakeClock) -> None:
    """Active, pending and expired, page by page."""
    active, _ = silences.create(a_silence())
    pending, _ = silences.create(a_silence(starts_at=START_S + 9000, ends_at=START_S + 9900))
    ended, _ = silences.create(a_silence())
    silences.change(ended.id, "ann", expired_by="ann")
    page = silences.list(limit=2)

    for state, one in (("active", active), ("pending", pending), ("expired", ended)):
        assert [silence.id for silence in silences.list(state=state).items] == [one.id]  # type: ignore[arg-type]
    assert [one.id for one in silences.list(cursor=page.next_cursor).items] == [active.id]
    assert silences.list(tenant="demo").items == ()
