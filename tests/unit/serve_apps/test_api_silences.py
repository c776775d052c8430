"""Silences and heartbeats over HTTP: made, changed, ended, and whose they are."""

import time

import pytest

from tests.fakes_alerts import device_alert
from tests.fakes_api import ApiFloor

SILENCES = "/api/v1/silences"
HEARTBEAT = "/api/v1/heartbeats/demo/backup"
BODY = {"matchers": [{"field": "device", "values": ["door-*"]}], "for_s": 3600, "comment": "rewiring"}


async def test_a_silence_is_made_changed_and_ended(api: ApiFloor) -> None:
    """Alerts that are there change at once; every change names its person."""
    (ref,) = api.alerts.raise_device_alerts([device_alert(1)])
    async with api.caller("operator", user="ann") as caller:
        made = await caller.post(SILENCES, json=BODY)
        silence = made.json()["silence"]
        shown = (await caller.get("/api/v1/alerts?suppressed=true")).json()["items"]
        path = f"{SILENCES}/{silence['id']}"
        stale = await caller.patch(path, json={"comment": "more wiring", "if_version": 9})
        changed = await caller.patch(path, json={"comment": "more wiring", "if_version": 1})
        ended = await caller.post(f"{path}/expire", json={})
        again = await caller.post(f"{path}/expire", json={})
        left = (await caller.get("/api/v1/alerts?suppressed=true")).json()["items"]

    assert (made.status_code, made.json()["changed"], silence["state"], silence["created_by"]) == (
        201,
        1,
        "active",
        "ann",
    )
    assert [(alert["id"], alert["suppressed_by"][0]["reason"]) for alert in shown] == [(ref.alert_id, "rewiring")]
    assert (stale.status_code, changed.json()["silence"]["comment"]) == (409, "more wiring")
    assert (ended.json()["silence"]["state"], ended.json()["changed"], again.status_code) == ("expired", 1, 200)
    assert left == []
    assert api.woken == 4


async def test_a_tenants_silence_stays_in_its_tenant(api: ApiFloor) -> None:
    """Whatever it asks for; and others' it cannot see or end."""
    api.alerts.raise_device_alerts([device_alert(1), device_alert(1, tenant="others")])
    async with api.caller("operator", tenant="demo") as caller:
        own = (await caller.post(SILENCES, json=BODY | {"tenant": "others"})).json()
    async with api.caller("operator", tenant="others") as caller:
        foreign = await caller.post(f"{SILENCES}/{own['silence']['id']}/expire", json={})
        listed = (await caller.get(SILENCES)).json()["items"]

    assert (own["silence"]["tenant"], own["changed"]) == ("demo", 1)
    assert (foreign.status_code, listed) == (404, [])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"matchers": []}, id="matches-all"),
        pytest.param({"matchers": [{"field": "password", "values": ["x"]}]}, id="no-such-field"),
        pytest.param({"matchers": [{"field": "device", "values": ["*" * 20]}]}, id="too-many-stars"),
        pytest.param({"matchers": [{"field": "device", "values": ["a\x00b"]}]}, id="nul"),
        pytest.param({"comment": ""}, id="no-reason"),
        pytest.param({"for_s": 0}, id="no-time"),
        pytest.param({"ends_at": "2030-01-01T00:00:00Z"}, id="two-ends"),
        pytest.param({"for_s": None, "ends_at": "2001-01-01T00:00:00Z"}, id="over-already"),
        pytest.param({"for_s": None, "ends_at": "2030-01-01T00:00:00"}, id="time-without-zone"),
        pytest.param({"time_zone": "../../etc/passwd"}, id="no-time-zone"),
        pytest.param({"kind": "flapping"}, id="no-persons-kind"),
        pytest.param({"surprise": 1}, id="unknown-field"),
    ],
)
async def test_a_silence_that_makes_no_sense_is_refused(api: ApiFloor, changes: dict[str, object]) -> None:
    """422 with a sentence, and nothing is stored."""
    async with api.caller("operator") as caller:
        answer = await caller.post(SILENCES, json=BODY | changes)
        stored = (await caller.get(SILENCES)).json()["items"]

    assert (answer.status_code, stored) == (422, [])
    assert answer.json()["error"]["message"]


async def test_a_heartbeat_is_promised_beaten_and_taken_back(api: ApiFloor) -> None:
    """By its tenant alone."""
    async with api.caller("operator", tenant="demo") as caller:
        made = await caller.put(HEARTBEAT, json={"timeout_s": 60, "text": "the nightly copy"})
        beaten = await caller.post(f"{HEARTBEAT}/beat", json={})
        listed = (await caller.get("/api/v1/heartbeats")).json()
        removed = await caller.delete(HEARTBEAT)
        gone = await caller.post(f"{HEARTBEAT}/beat", json={})
        foreign = await caller.put("/api/v1/heartbeats/others/backup", json={"timeout_s": 60})
        too_quick = await caller.put(HEARTBEAT, json={"timeout_s": 0.1})

    assert (made.json()["heartbeat"]["state"], beaten.json()["heartbeat"]["state"]) == ("waiting", "ok")
    assert [one["name"] for one in listed["items"]] == ["backup"]
    assert (removed.status_code, gone.status_code, foreign.status_code, too_quick.status_code) == (200, 404, 404, 422)


async def test_an_action_on_a_version_that_is_gone_shows_what_is_there(api: ApiFloor) -> None:
    """409 with the alerts as they are now."""
    (ref,) = api.alerts.raise_device_alerts([device_alert(1)])
    async with api.caller("operator", user="ann") as caller:
        await caller.post("/api/v1/alerts/actions", json={"action": "acknowledge", "ids": [ref.alert_id]})
        late = {"action": "close", "ids": [ref.alert_id], "if_version": {ref.alert_id: 1}}
        answer = await caller.post("/api/v1/alerts/actions", json=late)

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert [(one["version"], one["acked_by"]) for one in answer.json()["items"]] == [(2, "ann")]


async def test_an_action_by_filter_answers_with_what_the_alerts_have_in_common(api: ApiFloor) -> None:
    """For how long it was acknowledged is part of it; a foreign tenant's alert is none of it."""
    api.alerts.raise_device_alerts([device_alert(n, device=f"door-{n}") for n in range(3)])
    api.alerts.raise_device_alerts([device_alert(9, tenant="others")])
    before = time.time()
    request = {"action": "acknowledge", "filter": {"handling": "new", "q": "forced"}, "args": {"for_s": 3600}}
    async with api.caller("operator", tenant="demo") as caller:
        answer = (await caller.post("/api/v1/alerts/actions", json=request)).json()
        neither = await caller.post("/api/v1/alerts/actions", json={"action": "acknowledge"})

    (change,) = answer["changes"]
    assert (answer["count"], len(answer["items"]), len(change["ids"])) == (3, 3, 30)
    assert (change["version"], change["set"]["handling"]) == (2, "acked")
    assert answer["items"][0]["ack_expires_at"] > time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before + 3500))
    assert neither.status_code == 422
