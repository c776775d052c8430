"""Alerts of other systems over HTTP: taken, repeated, ended, refused one by one; messages given up."""

import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingest.alerts.engine import AlertEngine
from ingest.alerts.external_store import ExternalAlerts
from ingest.alerts.model import Alert, Condition, iso
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.notify.tables import notifications
from tests.fakes_alerts import FakeClock
from tests.fakes_api import ApiFloor

NAME = {"alertname": "HighLoad", "device": "pump-7"}


@pytest.fixture
def api(tmp_path: Path, sql: Engine) -> ApiFloor:
    """On both databases: what other systems report is merged in SQL."""
    return ApiFloor(tmp_path, sql)


def all_alerts(api: ApiFloor) -> list[Alert]:
    return list(AlertStore(api.engine, FakeClock()).list(AlertQuery()).items)


async def post(api: ApiFloor, *alerts: object, tenant: str | None = None) -> tuple[int, str]:
    async with api.caller("operator", tenant=tenant, user="prom") as caller:
        answer = await caller.post("/api/v2/alerts", json=list(alerts))
    return answer.status_code, answer.text


async def test_a_report_is_one_alert_however_often_it_comes(api: ApiFloor) -> None:
    """Repeated, ended, ended again, and begun anew."""
    start = time.time() - 60
    firing = {"labels": NAME, "startsAt": iso(start), "endsAt": iso(start + 600)}
    over = {"labels": NAME, "startsAt": iso(start), "endsAt": iso(start + 30)}
    for told, condition, events in (
        (firing, Condition.FIRING, 1),
        (firing, Condition.FIRING, 1),
        (over, Condition.CLEARED, 2),
        (over, Condition.CLEARED, 2),
        (firing, Condition.CLEARED, 2),  # an old start that comes late
        (firing | {"startsAt": iso(start + 45)}, Condition.FIRING, 3),
    ):
        assert (await post(api, told))[0] == 200
        assert [(alert.condition, alert.version) for alert in all_alerts(api)] == [(condition, events)]
    assert api.woken == 3


async def test_an_alert_that_is_not_repeated_goes_stale_and_comes_back(api: ApiFloor) -> None:
    """Its source fell silent: nobody knows, so it is never shown as resolved."""
    before = time.time()
    await post(api, {"labels": NAME})
    after = time.time()
    store = ExternalAlerts(api.engine, AlertEngine(api.engine, FakeClock()), FakeClock())

    assert store.expire(before + 299) == 0
    assert store.expire(after + 301) == 1
    assert store.expire(time.time() + 999) == 0
    assert [alert.condition for alert in all_alerts(api)] == [Condition.STALE]
    start = iso(all_alerts(api)[0].starts_at)
    await post(api, {"labels": NAME, "startsAt": start})
    assert [(alert.condition, alert.occurrence) for alert in all_alerts(api)] == [(Condition.FIRING, 1)]


async def test_what_people_closed_stays_closed_until_it_starts_again(api: ApiFloor) -> None:
    """A Prometheus that goes on repeating does not reopen it."""
    start = time.time() - 5
    await post(api, {"labels": NAME, "startsAt": iso(start)})
    AlertStore(api.engine, api.clock).act([all_alerts(api)[0].id], "close", "ann", "request-1")
    api.clock.advance(0)
    await post(api, {"labels": NAME, "startsAt": iso(all_alerts(api)[0].closed_at)})
    assert len(all_alerts(api)) == 1
    await post(api, {"labels": NAME, "startsAt": iso(time.time())})

    assert sorted(alert.occurrence for alert in all_alerts(api)) == [1, 2]


async def test_one_bad_alert_costs_none_of_the_others(api: ApiFloor) -> None:
    """The answer names it; the good ones are written."""
    status, text = await post(api, {"labels": NAME}, {"labels": {}}, "nonsense", {"labels": {"a": "b"}})

    assert status == 400
    assert "2 alerts taken, not these: alert 1 needs at least one label; alert 2 must be an object" in text
    assert len(all_alerts(api)) == 2


async def test_a_tenants_token_reports_for_its_tenant(api: ApiFloor) -> None:
    """With the label or without; for another one it may not, and cannot touch its alerts."""
    assert (await post(api, {"labels": NAME}, tenant="t1"))[0] == 200
    assert (await post(api, {"labels": NAME | {"tenant": "t1"}}, tenant="t1"))[0] == 200
    status, text = await post(api, {"labels": NAME | {"tenant": "t2"}}, tenant="t1")
    assert status == 400
    assert "of another tenant than its token" in text
    over = {"labels": NAME, "startsAt": iso(time.time() - 9), "endsAt": iso(time.time() - 5)}
    await post(api, over, tenant="t2")

    assert {(alert.tenant, alert.condition) for alert in all_alerts(api)} == {("t1", Condition.FIRING)}
    await post(api, {"labels": {"a": "b"}})
    assert {alert.tenant for alert in all_alerts(api)} == {"t1", "external"}


async def test_too_much_is_refused_whole(api: ApiFloor) -> None:
    """Before any of it is looked at."""
    assert (await post(api, *[{"labels": {"n": str(number)}} for number in range(2001)]))[0] == 422
    async with api.caller("operator") as caller:
        assert (await caller.post("/api/v2/alerts", json={"labels": NAME})).status_code == 422
        assert (
            await caller.post("/api/v2/alerts", content=b"[", headers={"content-type": "application/json"})
        ).status_code == 400
    assert all_alerts(api) == []


async def test_messages_that_were_given_up_are_listed_and_sent_again(api: ApiFloor) -> None:
    """A tenant's operator sees its own; only the floor's admin sends again."""
    rows = [
        {
            "id": f"M{number}", "target": "webhook", "event_id": f"e{number}", "alert_id": "a", "tenant": f"t{number}",
            "seq": 1, "state": "dead", "attempts": 20, "created_at": 1.0, "at": 2.0, "error": "no", "body": "{}",
        }
        for number in (1, 2)
    ]  # fmt: skip
    with api.engine.begin() as connection:
        connection.execute(notifications.insert(), rows)
    async with api.caller("operator", tenant="t1") as caller:
        (letter,) = (await caller.get("/api/v1/notifications/dead")).json()["items"]
        assert (letter["id"], letter["error"], letter["at"]) == ("M1", "no", "1970-01-01T00:00:02.000Z")
    async with api.caller("admin", tenant="t1") as caller:
        assert (await caller.post("/api/v1/notifications/replay", json={})).status_code == 404
    async with api.caller("admin") as caller:
        page = (await caller.get("/api/v1/notifications/dead?limit=1")).json()
        assert [one["id"] for one in page["items"]] == ["M2"]
        rest = (await caller.get(f"/api/v1/notifications/dead?cursor={page['next_cursor']}")).json()
        assert [one["id"] for one in rest["items"]] == ["M1"]
        assert (await caller.post("/api/v1/notifications/replay", json={"ids": ["M2"]})).json() == {"replayed": 1}
        assert (await caller.post("/api/v1/notifications/replay", json={})).json() == {"replayed": 1}
        assert (await caller.get("/api/v1/notifications/dead")).json()["items"] == []
