"""Alerts over HTTP: pages, details, pictures, actions, tenants."""

from ingest.episode import Change
from tests.fakes_alerts import START_S, decision, device_alert
from tests.fakes_api import ApiFloor

ACTIONS = "/api/v1/alerts/actions"


def raise_some(api: ApiFloor, count: int, tenant: str = "demo") -> list[str]:
    refs = api.alerts.raise_device_alerts(
        [device_alert(n, ts=START_S + n, tenant=tenant, device=f"door-{n}") for n in range(count)]
    )
    return [ref.alert_id for ref in refs]


async def test_pages_give_every_alert_once(api: ApiFloor) -> None:
    """The cursor leads through all of them, newest first."""
    ids = raise_some(api, 7)
    seen = []
    async with api.caller("operator") as caller:
        cursor = None
        while True:
            page = (
                await caller.get("/api/v1/alerts", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
            ).json()
            seen += [alert["id"] for alert in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break

    assert seen == ids[::-1]


async def test_filters_narrow_the_list(api: ApiFloor) -> None:
    """Handling, condition, severity and device are axes of their own."""
    ids = raise_some(api, 3)
    async with api.caller("operator") as caller:
        await caller.post(ACTIONS, json={"action": "acknowledge", "ids": [ids[1]]})
        new = (await caller.get("/api/v1/alerts?handling=new")).json()["items"]
        acked = (await caller.get("/api/v1/alerts?handling=acked&device=door-1&severity=high&condition=firing")).json()

    assert {alert["id"] for alert in new} == {ids[0], ids[2]}
    assert [alert["id"] for alert in acked["items"]] == [ids[1]]


async def test_an_action_is_stored_told_and_done_once(api: ApiFloor) -> None:
    """The answer is the new row, the relay is woken, and a repeated request changes nothing."""
    (alert_id,) = raise_some(api, 1)
    request = {"action": "acknowledge", "ids": [alert_id], "request_id": "request-1"}
    async with api.caller("operator") as caller:
        first = (await caller.post(ACTIONS, json=request)).json()["items"][0]
        undo = {"action": "unacknowledge", "ids": [alert_id]}
        await caller.post(ACTIONS, json=undo)
        again = (await caller.post(ACTIONS, json=request)).json()["items"][0]
        events = (await caller.get(f"/api/v1/alerts/{alert_id}")).json()["events"]

    assert (first["handling"], first["acked_by"]) == ("acked", "nora")
    assert again["handling"] == "new"
    assert [event["action"] for event in events] == ["raised", "acknowledged", "unacknowledged"]
    assert api.woken == 3


async def test_verdicts_and_notes_are_kept(api: ApiFloor) -> None:
    """What a person says about an alert is in its row and in its history."""
    (alert_id,) = raise_some(api, 1)
    async with api.caller("operator") as caller:
        judged = await caller.post(
            ACTIONS, json={"action": "verdict", "ids": [alert_id], "args": {"verdict": "false_positive"}}
        )
        await caller.post(ACTIONS, json={"action": "note", "ids": [alert_id], "args": {"text": "cleaning crew"}})
        detail = (await caller.get(f"/api/v1/alerts/{alert_id}")).json()

    assert judged.json()["items"][0]["verdict"] == "false_positive"
    assert "cleaning crew" in str(detail["events"][-1])


async def test_one_unknown_id_stops_the_whole_action(api: ApiFloor) -> None:
    """All or none: a half done bulk action would have to be explained."""
    (alert_id,) = raise_some(api, 1)
    async with api.caller("operator") as caller:
        answer = await caller.post(ACTIONS, json={"action": "close", "ids": [alert_id, "01NOBODY"]})
        alert = (await caller.get(f"/api/v1/alerts/{alert_id}")).json()["alert"]

    assert answer.status_code == 404
    assert alert["handling"] == "new"


async def test_detector_alerts_show_their_evidence(api: ApiFloor) -> None:
    """The chart's points come with the alert, and a picture of them with the list."""
    (ref,) = api.alerts.raise_detector_alerts([decision(Change.RAISE, 1)])
    async with api.caller("operator") as caller:
        detail = (await caller.get(f"/api/v1/alerts/{ref.alert_id}")).json()
        sparks = (await caller.get(f"/api/v1/alerts/sparks?ids={ref.alert_id},01NOBODY")).json()["sparks"]

    assert detail["alert"]["source"]["kind"] == "model"
    assert detail["evidence"]["points"][-1][1] == 20.5
    assert sparks == {ref.alert_id: {"values": [80.0, 20.5], "at": 1}}


async def test_foreign_tenants_find_nothing(api: ApiFloor) -> None:
    """Another tenant's alert does not exist: not in lists, not by id, not for actions."""
    (foreign,) = raise_some(api, 1, tenant="others")
    async with api.caller("operator", tenant="demo") as caller:
        answers = [
            (await caller.get(f"/api/v1/alerts/{foreign}")).status_code,
            (await caller.post(ACTIONS, json={"action": "close", "ids": [foreign]})).status_code,
        ]
        items = (await caller.get("/api/v1/alerts")).json()["items"]
        sparks = (await caller.get(f"/api/v1/alerts/sparks?ids={foreign}")).json()["sparks"]

    assert answers == [404, 404]
    assert items == []
    assert sparks == {}
