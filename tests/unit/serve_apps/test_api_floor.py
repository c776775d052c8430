"""Devices, dead letters, models, configuration and status over HTTP."""

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from ingest.dead_letter import DeadLetter, DeadLetterStore
from ingest.directory import DeviceDirectory, DeviceEntry
from ingest.payload import Reading, Reason
from serve_apps.api import devices
from serve_apps.api.status import judge_ingest
from serve_apps.status import EMPTY
from tests.fakes_alerts import START_S, device_alert, readings
from tests.fakes_api import ApiFloor


def register(api: ApiFloor, *names: str) -> None:
    DeviceDirectory(api.engine).register([DeviceEntry(*name.split("/")) for name in names])


async def test_devices_are_listed_by_tenant(api: ApiFloor) -> None:
    """A tenant sees its own devices; presence that was never announced is null, not offline."""
    register(api, "demo/pump-1", "others/pump-2")
    async with api.caller("viewer", tenant="demo") as caller:
        items = (await caller.get("/api/v1/devices")).json()["items"]

    assert [(item["device"], item["online"], item["last_seen_at"]) for item in items] == [("pump-1", None, None)]


async def test_telemetry_of_a_device_comes_oldest_first(api: ApiFloor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest readings of one device, by metric; other devices' are left out."""
    register(api, "demo/pump-1", "others/pump-1")
    stored = [*readings([1.0, 2.0, 3.0]), *readings([9.0], device="pump-2")]
    monkeypatch.setattr(devices, "_stream", lambda _url: FakeStream(stored))
    async with api.caller("viewer", tenant="demo") as caller:
        answer = (await caller.get("/api/v1/devices/demo/pump-1/telemetry?limit=2")).json()
        foreign = await caller.get("/api/v1/devices/others/pump-1/telemetry")
        unknown = await caller.get("/api/v1/devices/demo/nobody/telemetry")

    assert answer["metrics"] == {"temperature": [[START_S + 1, 2.0, None], [START_S + 2, 3.0, None]]}
    assert (foreign.status_code, unknown.status_code) == (404, 404)


class FakeStream:
    """A telemetry stream that holds what it was given."""

    def __init__(self, stored: list[Reading]) -> None:
        self._stored = stored

    def history(self, count: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(reading=reading) for reading in self._stored[-count:]]


async def test_dead_letters_show_reason_and_beginning(api: ApiFloor) -> None:
    """Operators see why a message was set aside; a tenant's operator only the own ones."""
    store = DeadLetterStore(api.engine, source="test")
    store.add([letter("wf/demo/pump/telemetry", b"{nonsense"), letter("wf/others/pump/telemetry", b"\xff")])
    async with api.caller("operator") as caller:
        page = (await caller.get("/api/v1/dead-letters?limit=1")).json()
        rest = (await caller.get(f"/api/v1/dead-letters?cursor={page['next_cursor']}")).json()
    async with api.caller("operator", tenant="demo") as caller:
        own = (await caller.get("/api/v1/dead-letters")).json()["items"]

    assert page["items"][0]["preview"] == "\ufffd"
    assert [item["topic"] for item in rest["items"]] == ["wf/demo/pump/telemetry"]
    assert [item["preview"] for item in own] == ["{nonsense"]


async def test_a_dead_letter_is_shown_whole_and_a_foreign_one_is_not_there(api: ApiFloor) -> None:
    """All that was kept, as base64; and replaying follows the same rule."""
    store = DeadLetterStore(api.engine, source="test")
    store.add([letter("wf/demo/pump/telemetry", b"\xff" * 300), letter("wf/others/pump/telemetry", b"{")])
    other, own = (row.id for row in store.list())
    async with api.caller("operator", tenant="demo") as caller:
        shown = (await caller.get(f"/api/v1/dead-letters/{own}")).json()
        answers = [
            await caller.get(f"/api/v1/dead-letters/{other}"),
            await caller.post("/api/v1/dead-letters/replay", json={"ids": [own, other]}),
        ]
        nothing = await caller.post("/api/v1/dead-letters/replay", json={"topic": "wf/others/"})

    assert base64.b64decode(shown["payload_base64"]) == b"\xff" * 300
    assert [answer.status_code for answer in answers] == [404, 404]
    assert nothing.json() == {"items": [], "counts": {"stored": 0, "known": 0, "refused": 0}, "next_cursor": None}
    assert [row.replays for row in store.list()] == [0, 0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": [0]},
        {"ids": [2**60]},
        {"ids": [1], "all": True},
        {"ids": ["1; drop table"]},
        {"reason": "because"},
        {"topic": ""},
        {"all": False},
        {"all": True, "user": "eve"},
    ],
)
async def test_a_replay_says_which_letters(api: ApiFloor, body: dict[str, Any]) -> None:
    """Never all of them by mistake."""
    async with api.caller("operator") as caller:
        answer = await caller.post("/api/v1/dead-letters/replay", json=body)

    assert answer.status_code == 422


def letter(topic: str, payload: bytes) -> DeadLetter:
    return DeadLetter(
        topic=topic,
        reason=next(iter(Reason)),
        detail="because",
        payload=payload,
        payload_bytes=len(payload),
        sha256=payload.hex(),
        received_at=START_S,
        is_repeat=False,
    )


async def test_models_are_empty_before_the_first_training(api: ApiFloor) -> None:
    """No storage folder yet is no failure."""
    async with api.caller("viewer", tenant="demo") as caller:
        answer = await caller.get("/api/v1/models")

    assert answer.json() == {"live": [], "versions": [], "trials": [], "settings": answer.json()["settings"]}


async def test_config_says_what_the_caller_may(api: ApiFloor) -> None:
    """The page greys out what the server would refuse."""
    async with api.caller("operator") as caller:
        config = (await caller.get("/api/v1/config")).json()

    assert config["may"] == {
        "acknowledge": True,
        "verdict": True,
        "train": False,
        "cancel": False,
        "promote": False,
        "command": True,
        "directory": False,
        "dead_letters": True,
    }
    assert {"id": "recorded:nyc_taxi", "title": "recorded: nyc_taxi"} in config["training"]["datasets"]


async def test_status_tells_what_is_away_and_never_guesses(api: ApiFloor) -> None:
    """Without Ray ingest and detector do not answer: their state says so, their figures are null."""
    api.alerts.raise_device_alerts([device_alert()])
    broken = letter("wf/demo/pump/telemetry", b"{nonsense")
    DeadLetterStore(api.engine, source="test").add([broken, broken])
    async with api.caller("operator") as caller:
        status = (await caller.get("/api/v1/status")).json()

    assert set(status) >= set(EMPTY) - {"phase", "error"}
    assert status["alerts_total"] == 1
    assert (status["dead_letters_total"], status["dead_letters"]) == (2, {str(broken.reason): 2})
    assert status["readings_total"] is None
    assert status["services"]["ingest"]["state"] == "waiting"
    assert status["services"]["hub"]["state"] == "running"


def test_status_names_a_store_that_is_near_its_bound() -> None:
    """Ingest still runs; once it is full the lanes that wait say so."""
    service = {"state": "running", "detail": ""}
    near = {"level": "near", "text": "alerts holds 4.5 GiB, 90% of its bound of 5.0 GiB"}
    judge_ingest(service, {"blocked": {}, "broker_connected": True, "stores": {"alerts": near, "runs": {"text": ""}}})
    assert service == {"state": "running", "detail": near["text"]}

    judge_ingest(service, {"blocked": {"alert": "store alerts is full"}, "stores": {"alerts": near}})
    assert service == {"state": "waiting", "detail": "alert: store alerts is full"}


async def test_status_keeps_other_tenants_to_itself(api: ApiFloor) -> None:
    """A tenant hears of its own alerts, and of parts only whether they work."""
    DeadLetterStore(api.engine, source="test").add([letter("wf/others/pump/telemetry", b"\xff")])
    api.alerts.raise_device_alerts([device_alert(), device_alert(2, tenant="others", device="x")])
    async with api.caller("viewer", tenant="demo") as caller:
        status = (await caller.get("/api/v1/status")).json()

    assert status["alerts_total"] == 1
    assert status["readings_total"] is None
    assert (status["dead_letters_total"], status["dead_letters"]) == (None, None)
    assert status["alerts"]["total"] == 1
    assert set(status["detector"]) == {"model", "version", "revision"}
    assert all(set(part) == {"state"} for part in (*status["services"].values(), *status["circuits"].values()))
