"""Commands over HTTP: stored before they are answered for, once for each request, within the tenant."""

from typing import Any

import pytest

from ingest.command_store import CommandQuery, CommandSettings, CommandStore
from ingest.delivery import MAX_PAYLOAD_BYTES
from ingest.directory import DeviceDirectory, DeviceEntry
from tests.fakes_api import ApiFloor
from tests.fakes_commands import ack

COMMANDS = "/api/v1/commands"
BODY: dict[str, Any] = {
    "tenant": "demo",
    "device": "door-1",
    "payload": {"do": "lock"},
    "timeout_s": 30,
    "request_id": "request-1",
}


@pytest.fixture(autouse=True)
def doors(api: ApiFloor) -> None:
    names = ("demo/door-1", "others/door-1")
    DeviceDirectory(api.engine).register([DeviceEntry(*name.split("/")) for name in names])


async def test_a_command_is_stored_once_and_its_sender_woken(api: ApiFloor) -> None:
    """The answer is the queued command; a repeated request is the same one, another under its id is refused."""
    async with api.caller("operator") as caller:
        first = await caller.post(COMMANDS, json=BODY)
        again = await caller.post(COMMANDS, json=BODY)
        other = await caller.post(COMMANDS, json=BODY | {"payload": {"do": "unlock"}})

    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert first.json() == again.json()
    assert {name: first.json()[name] for name in ("state", "user_id", "payload", "answer")} == {
        "state": "queued",
        "user_id": "nora",
        "payload": {"do": "lock"},
        "answer": None,
    }
    assert len(api.commands.list(CommandQuery())) == 1
    assert api.woken == 2


async def test_a_command_is_followed_to_its_end(api: ApiFloor) -> None:
    """By its id, with the history, and in the list."""
    async with api.caller("operator", tenant="demo") as caller:
        command_id = (await caller.post(COMMANDS, json=BODY)).json()["id"]
        answer = ack("ok", "locked", command_id, "door-1")
        api.commands.record([answer])
        found = (await caller.get(f"{COMMANDS}/{command_id}")).json()
        listed = (await caller.get(f"{COMMANDS}?state=ok&device=door-1&user=nora")).json()

    assert (found["command"]["state"], found["command"]["detail"]) == ("ok", "locked")
    assert [(event["seq"], event["state"], event["actor"]) for event in found["events"]] == [
        (1, "queued", "nora"), (2, "ok", "device"),
    ]  # fmt: skip
    assert listed == {"items": [found["command"]], "next_cursor": None}


async def test_another_tenants_commands_are_not_found(api: ApiFloor) -> None:
    """By id, in the list, or by asking for the tenant; a viewer sees none: payloads may be secrets."""
    async with api.caller("operator") as floor:
        foreign = (await floor.post(COMMANDS, json=BODY | {"tenant": "others"})).json()["id"]
        both = [(await floor.post(COMMANDS, json=BODY | {"request_id": f"request-{n}"})).json()["id"] for n in (2, 3)]
        page = (await floor.get(f"{COMMANDS}?limit=2")).json()
        rest = (await floor.get(f"{COMMANDS}?limit=2&cursor={page['next_cursor']}")).json()
    async with api.caller("operator", tenant="demo") as caller:
        assert (await caller.get(f"{COMMANDS}/{foreign}")).status_code == 404
        assert {item["id"] for item in (await caller.get(COMMANDS)).json()["items"]} == set(both)
        assert (await caller.get(f"{COMMANDS}?tenant=others")).json()["items"] == []
    async with api.caller("viewer", tenant="demo") as viewer:
        assert (await viewer.get(COMMANDS)).status_code == 403

    assert [item["id"] for item in (*page["items"], *rest["items"])] == [*reversed(both), foreign]
    assert rest["next_cursor"] is None


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "foreign-tenant": ({"tenant": "others"}, 404),
    "unknown-device": ({"device": "nobody"}, 404),
    "wildcard": ({"device": "door/+"}, 422),
    "text": ({"payload": "lock"}, 422),
    "too-large": ({"payload": {"x": "y" * MAX_PAYLOAD_BYTES}}, 422),
    "a-number-no-device-reads": ({"payload": {"x": 2**80}}, 422),
    "too-soon": ({"timeout_s": 0.5}, 422),
    "too-late": ({"timeout_s": 1e9}, 422),
    "no-time": ({"timeout_s": "soon"}, 422),
    "in-somebody-elses-name": ({"user_id": "otto"}, 422),
    "a-field-of-ours": ({"state": "ok"}, 422),
    "request-id": ({"request_id": "short"}, 422),
}


async def test_what_cannot_be_a_command_is_refused_at_the_door(api: ApiFloor) -> None:
    """And nothing is stored."""
    async with api.caller("operator", tenant="demo") as caller:
        found = {name: (await caller.post(COMMANDS, json=BODY | change)) for name, (change, _) in REFUSED.items()}

    assert {name: answer.status_code for name, answer in found.items()} == {
        name: status for name, (_, status) in REFUSED.items()
    }
    assert api.commands.list(CommandQuery()) == ()


async def test_nan_is_not_json(api: ApiFloor) -> None:
    """Python's parser would take it; no device's would."""
    async with api.caller("operator") as caller:
        answer = await caller.post(
            COMMANDS,
            content=b'{"tenant":"demo","device":"door-1","payload":{"x":NaN}}',
            headers={"content-type": "application/json"},
        )

    assert answer.status_code == 422


async def test_a_busy_device_is_a_conflict(api: ApiFloor) -> None:
    """One open command more than it may have is refused, in words."""
    settings = CommandSettings(max_open_per_device=2)
    api.app.state.deps.desk.store = CommandStore(api.engine, api.clock, settings)
    async with api.caller("operator") as caller:
        answers = [await caller.post(COMMANDS, json=BODY | {"request_id": f"request-{n}"}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 409]
    assert "2 commands of demo/door-1 are open" in answers[-1].json()["error"]["message"]
