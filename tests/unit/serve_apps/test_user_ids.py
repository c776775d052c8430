"""Whatever a person changes carries the user id of the token that was shown, and no other."""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, select

from cluster.runs import runs
from cluster.store import read_transaction
from ingest.alerts.tables import alert_events, alerts, heartbeats, silences
from ingest.command_tables import command_events, commands
from ingest.directory import DeviceDirectory, DeviceEntry, devices
from ingest.directory_entry import Entry, Kind
from ingest.directory_store import DirectoryStore
from ingest.directory_tables import clients, tenants, users
from serve_apps.authorisation import ROUTES
from tests.fakes_alerts import device_alert
from tests.fakes_api import ApiFloor

USER = "auth0|7"
"""An identity provider's own form, so that nothing on the way may bend it."""
SIGNED_OVER: dict[str, Any] = {"user_id": "mallory", "actor": "mallory", "updated_by": "mallory", "acked_by": "mallory"}
"""What a body might say; each of it is refused."""


@dataclass(frozen=True)
class Write:
    """One way of changing something, and where its user stands."""

    method: str
    path: str
    body: dict[str, Any]
    columns: tuple[Column[Any], ...]


SILENCE = {"matchers": [{"field": "device", "values": ["door-1"]}], "for_s": 60, "comment": "painters"}


def action(name: str, *columns: Column[Any], **args: str) -> Write:
    body = {"action": name, "ids": ["{alert}"], "args": args}
    return Write("POST", "/api/v1/alerts/actions", body, (alert_events.c.actor, *columns))


WRITES = {
    "acknowledge": action("acknowledge", alerts.c.acked_by),
    "close": action("close", alerts.c.closed_by),
    "verdict": action("verdict", alerts.c.verdict_by, verdict="true_positive"),
    "close-with-verdict": action("close", alerts.c.closed_by, alerts.c.verdict_by, verdict="false_positive"),
    "note": action("note", text="seen"),
    "command": Write(
        "POST",
        "/api/v1/commands",
        {"tenant": "demo", "device": "door-1", "payload": {}},
        (commands.c.user_id, command_events.c.actor),
    ),
    "run": Write(
        "POST",
        "/api/v1/runs",
        {"task": "train_model", "arguments": {"dataset_id": "telemetry"}},
        (runs.c.user_id,),
    ),
    "tenant": Write("PUT", "/api/v1/directory/tenants/acme", {}, (tenants.c.updated_by,)),
    "client": Write("PUT", "/api/v1/directory/clients/demo/north", {}, (clients.c.updated_by,)),
    "user": Write("PUT", "/api/v1/directory/users/ann", {}, (users.c.updated_by,)),
    "a-users-field": Write("PATCH", "/api/v1/directory/users/old", {"disabled": True}, (users.c.updated_by,)),
    "silence": Write("POST", "/api/v1/silences", SILENCE, (silences.c.created_by,)),
    "a-silences-terms": Write("PATCH", "/api/v1/silences/{silence}", {"comment": "longer"}, (silences.c.updated_by,)),
    "a-silences-end": Write("POST", "/api/v1/silences/{silence}/expire", {}, (silences.c.expired_by,)),
    "heartbeat": Write("PUT", "/api/v1/heartbeats/demo/nightly", {"timeout_s": 3600}, (heartbeats.c.created_by,)),
    "device": Write("PATCH", "/api/v1/directory/devices/demo/door-1", {"site": "hall"}, (devices.c.updated_by,)),
}
NO_RECORD = {
    # These leave no row with a user: sockets that close, a run that has its user already, rows that go.
    ("POST", "/api/v1/drain"),
    ("POST", "/api/v1/runs/{}/cancel"),
    ("DELETE", "/api/v1/directory/{}/{}"),
    ("DELETE", "/api/v1/directory/{}/{}/{}"),
    ("DELETE", "/api/v1/heartbeats/{}/{}"),
    # The messages keep the ids that they had; the audit log has who sent them again.
    ("POST", "/api/v1/notifications/replay"),
    # test_dead_letter_replay asks for the user, with letters that a real stream takes.
    ("POST", "/api/v1/dead-letters/replay"),
    # A sign of life is nobody's in particular.
    ("POST", "/api/v1/heartbeats/{}/{}/beat"),
    # In the audit log and in Valkey; test_api_circuits asks for the author there.
    ("POST", "/api/v1/circuits/{}/force"),
    ("POST", "/api/v1/circuits/{}/reset"),
    # test_api_labels asks for the user, with questions that a real queue holds.
    *(("POST", f"/api/v1/labels/{call}") for call in ("lease", "renew", "release", "answer", "skip")),
    # test_api_models asks the journal for the user, with versions that a real registry holds.
    ("POST", "/api/v1/models/promote"),
    # The same for the run that makes a report.
    ("POST", "/api/v1/models/{}/versions/{}/report"),
    ("POST", "/api/v1/models/rollback"),
}


async def test_each_change_carries_the_tokens_user(api: ApiFloor) -> None:
    """And a body that names another is refused, so nobody acts in somebody else's name."""
    DeviceDirectory(api.engine).register([DeviceEntry("demo", "door-1")])
    DirectoryStore(api.engine, api.clock).put(Entry(kind=Kind.USER, id="old"), "somebody before")
    DirectoryStore(api.engine, api.clock).put(Entry(kind=Kind.TENANT, id="demo"), "somebody before")
    async with api.caller("admin", user="somebody before") as before:
        silence = (await before.post("/api/v1/silences", json=SILENCE)).json()["silence"]["id"]
    for number, (name, write) in enumerate(WRITES.items()):
        path = write.path.replace("{silence}", silence)
        user = f"{USER}{number}"
        (ref,) = api.alerts.raise_device_alerts([device_alert(number, device=f"door-{number}")])
        body = {**write.body, **({"ids": [ref.alert_id]} if "ids" in write.body else {})}
        async with api.caller("admin", user=user) as caller:
            for field, value in SIGNED_OVER.items():
                forged = await caller.request(write.method, path, json=body | {field: value})
                assert forged.status_code == 422, f"{name}, {field}: {forged.text}"
            answer = await caller.request(write.method, path, json=body)
        assert answer.status_code < 300, f"{name}: {answer.text}"
        for column in write.columns:
            with read_transaction(api.engine) as connection:
                found = set(connection.scalars(select(column).where(column.is_not(None))))
            assert user in found, f"{name}: {column} holds {found}"
            assert "mallory" not in found


def test_every_way_of_changing_something_is_above() -> None:
    """A new one is added there, or said to leave nothing."""
    changing = {(method, path) for method, path in ROUTES if method != "GET" and path.startswith("/api/v1/")}
    missing = {
        (method, path)
        for method, path in changing - NO_RECORD
        if not any(
            write.method == method and re.fullmatch(path.replace("{}", "[^/]+"), write.path)
            for write in WRITES.values()
        )
    }

    assert missing == set()
