"""What leaves the tables of a floor by age and by size, on both databases."""

import time

import pytest
from fakes_cluster import FakeClock as RunClock
from fakes_cluster import FakeJobs
from sqlalchemy import Engine, func, select

from cluster.clock import Clock, SystemClock
from cluster.errors import RunNotFoundError
from cluster.run_queue import RunQueue, RunQueueSettings
from cluster.run_store import RunStore
from cluster.runs import RunRequest
from cluster.store import read_transaction, write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.retention import AlertRetention
from ingest.alerts.silence import Matcher
from ingest.alerts.silence_store import SilenceStore
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.tables import alert_events, alerts, silences
from ingest.errors import AlertNotFoundError
from ingest.floor_stores import sql_stores
from ingest.store_bounds import DAY_S, Level, StoreName, StoresSettings
from ingest.store_watch import StoreWatch
from tests.fakes_alerts import FakeClock, a_silence, device_alert

NEVER = 10_000_000_000.0
"""A time that has not come: whatever may leave by age, leaves."""


def raised(sql: Engine, *types: str) -> list[str]:
    """Raise one alert of each type, told to the dashboards; return their ids."""
    clock = FakeClock()
    refs = AlertEngine(sql, clock).raise_device_alerts(
        [device_alert(number, alert_type=kind) for number, kind in enumerate(types, start=1)]
    )
    with write_transaction(sql) as connection:
        connection.execute(alert_events.update().values(broadcast_at=1.0))
    return [ref.alert_id for ref in refs]


def close(sql: Engine, alert_id: str, *, is_told: bool = True, clock: Clock | None = None) -> None:
    AlertStore(sql, clock or FakeClock()).act([alert_id], "close", "ann", f"close-{alert_id}")
    if is_told:
        with write_transaction(sql) as connection:
            connection.execute(alert_events.update().values(broadcast_at=1.0))


def count(sql: Engine) -> tuple[int, int]:
    with read_transaction(sql) as connection:
        return tuple(connection.execute(select(func.count()).select_from(table)).scalar_one()
                     for table in (alerts, alert_events))  # type: ignore[return-value]  # fmt: skip


class TestAlerts:
    def test_a_closed_alert_leaves_with_its_history(self, sql: Engine) -> None:
        """And the others stay as they were."""
        gone, stays = raised(sql, "door", "fire")
        close(sql, gone)

        assert AlertRetention(sql).expire(NEVER, limit=10) == 1
        with pytest.raises(AlertNotFoundError):
            AlertStore(sql, FakeClock()).get(gone)
        assert len(AlertStore(sql, FakeClock()).get(stays).events) == 1
        assert count(sql) == (1, 1)

    def test_one_that_was_closed_lately_stays(self, sql: Engine) -> None:
        """The age counts from its closing."""
        (alert_id,) = raised(sql, "door")
        close(sql, alert_id)
        closed_at = AlertRetention(sql).usage().oldest_at
        assert closed_at is not None

        assert AlertRetention(sql).expire(closed_at, limit=10) == 0
        assert count(sql)[0] == 1

    def test_a_silence_leaves_when_it_has_been_over_for_long(self, sql: Engine) -> None:
        """By its end, or ended early; one that goes on, or that nobody was told of, stays."""
        clock = FakeClock()
        store = SilenceStore(sql, clock)
        now = clock.time_s()
        made = {
            name: store.create(
                a_silence(Matcher("device", (name,)), starts_at=now - 5, ends_at=now + lasts_s, created_at=now)
            )[0].id
            for name, lasts_s in (("over", 60), ("early", 7200), ("on", 7200), ("untold", 60))
        }
        store.change(made["early"], "ann", expired_by="ann")
        clock.advance(120)
        for silence_id in store.due(clock.time_s()):
            store.settle(silence_id, clock.time_s(), is_timers=True)
        with write_transaction(sql) as connection:
            told = silences.update().where(silences.c.id != made["untold"])
            connection.execute(told.values(told_version=silences.c.version))

        assert AlertRetention(sql).expire(now - 1, limit=10) == 0
        assert AlertRetention(sql).expire(clock.time_s() + 1, limit=10) == 2
        assert {one.id for one in store.list().items} == {made["on"], made["untold"]}

    def test_an_open_alert_never_leaves(self, sql: Engine) -> None:
        """However old it is."""
        raised(sql, "door", "fire")

        assert AlertRetention(sql).expire(NEVER, limit=10) == 0
        assert AlertRetention(sql).usage().oldest_at is None

    def test_what_the_dashboards_have_not_been_told_stays(self, sql: Engine) -> None:
        """The outbox is never cut."""
        (alert_id,) = raised(sql, "door")
        close(sql, alert_id, is_told=False)

        assert AlertRetention(sql).expire(NEVER, limit=10) == 0

    def test_of_an_open_alert_only_the_repeats_leave(self, sql: Engine) -> None:
        """What happened to it stays to be read."""
        (alert_id,) = raised(sql, "door")
        AlertEngine(sql, FakeClock()).raise_device_alerts(
            [device_alert(number, alert_type="door") for number in (2, 3)]
        )
        AlertStore(sql, FakeClock()).act([alert_id], "note", "ann", "r1", note="looked at it")
        with write_transaction(sql) as connection:
            connection.execute(alert_events.update().values(broadcast_at=1.0))

        assert AlertRetention(sql).expire(NEVER, limit=10) == 2
        assert [event.action for event in AlertStore(sql, FakeClock()).get(alert_id).events] == ["raised", "noted"]

    def test_a_batch_has_a_bound(self, sql: Engine) -> None:
        """The oldest first."""
        ids = raised(sql, "a", "b", "c")
        for alert_id in ids:
            close(sql, alert_id)

        assert AlertRetention(sql).expire(NEVER, limit=2) == 2
        assert [alert.id for alert in AlertStore(sql, FakeClock()).list(AlertQuery()).items] == ids[2:]

    def test_the_size_grows_with_the_rows(self, sql: Engine) -> None:
        """Estimated; an empty table is empty."""
        assert AlertRetention(sql).usage().size_bytes == 0
        raised(sql, "a")
        one = AlertRetention(sql).usage().size_bytes
        raised(sql, *"bcdefghijk")

        assert 5 * one < AlertRetention(sql).usage().size_bytes < 20 * one


class TestRuns:
    def test_ended_runs_leave_oldest_first_and_others_never(self, sql: Engine) -> None:
        """By age, or by size; one that waits is not history."""
        clock = RunClock()
        store = RunStore(sql)
        queue = RunQueue(RunQueueSettings(), store, FakeJobs(), clock, on_change=lambda _run: None)
        ids = []
        for _ in range(4):
            clock.advance(10.0)
            ids.append(queue.submit(RunRequest(task="train_model", user_id="ada")).id)
        for run_id in ids[:3]:
            clock.advance(10.0)
            queue.cancel(run_id, "ada")
        ended = [store.get(run_id).ended_at for run_id in ids[:3]]
        size, oldest = store.size()
        assert size > 1000
        assert oldest == ended[0]

        assert store.forget(10, ended_before=ended[1]) == 1
        assert store.forget(1) == 1
        for run_id in ids[:2]:
            with pytest.raises(RunNotFoundError):
                store.get(run_id)
        assert store.forget(10) == 1
        assert [run.id for run in store.list(10)] == ids[3:]


def test_a_floors_tables_are_kept_within_their_age(sql: Engine) -> None:
    """The watch of a floor deletes what is too old, and reports each table."""
    gone = raised(sql, "door", "fire")[0]
    # The machine's own clock: ids are made by it, and an alert is looked for by its id first.
    close(sql, gone, clock=SystemClock())
    settings = StoresSettings(delete_rows=1)
    clock = FakeClock(time.time() + settings.alerts_days * DAY_S - 60)
    watch = StoreWatch(sql_stores(sql, settings), settings, clock=clock)
    watch.step()
    assert count(sql)[0] == 2
    clock.advance(120.0)
    watch.step()

    assert count(sql) == (1, 1)
    reports = watch.reports()
    assert set(reports) == {StoreName.ALERTS, StoreName.COMMANDS, StoreName.DEAD_LETTERS, StoreName.RUNS}
    assert {one.level for one in reports.values()} == {Level.OK}
