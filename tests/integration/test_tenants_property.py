"""Tenants never see each other: whatever is done, no byte of one tenant's payloads reaches another's client.

A real app in this process: the real hub core, rings, sessions, SQL, alert engine and run
queue. Every payload carries the secret of whoever it is meant for, and everything that a
client receives -- frames, recovered publications, answers of the API, errors too -- is
searched for secrets that are not its own.
"""

import asyncio
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.ids import new_id
from cluster.runs import RunRequest
from ingest.alerts.heartbeats import Heartbeat, HeartbeatStore
from ingest.alerts.model import Severity, SuppressionKind
from ingest.alerts.silence import Matcher, Silence
from ingest.alerts.silence_store import SilenceStore
from ingest.command import CommandOrder
from ingest.dead_letter import DeadLetter, DeadLetterStore
from ingest.directory import DeviceDirectory, DeviceEntry
from ingest.directory_entry import Entry, Kind
from ingest.directory_store import DirectoryStore
from ingest.payload import Reading, Reason
from serve_apps.api import devices, uni
from serve_apps.auth import Role, issue_channel_token, issue_token
from serve_apps.authorisation import ROUTES
from serve_apps.connection import Connection
from tests.fakes_alerts import START_S, device_alert
from tests.fakes_api import ORIGIN, SECRET, ApiFloor
from tests.fakes_gateway import FakeTransport, draft
from training.data.labels import NO_LABELS
from training.data.snapshots import Series
from training.data.tabular import Readings
from training.datasets import DatasetShelf
from training.evaluation.report import FORMAT
from training.evaluation.report_files import write_report
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.settings import TrainSettings

TENANTS = ("alpha", "beta")
FLOOR = "floor"
LIMITED = "limited"
SHARED = "shared"
SECRETS = {name: f"secret-of-{name}" for name in (*TENANTS, FLOOR, LIMITED)}
NAMED = ("alpha-viewer", "floor-operator")
"""The users that a channel is limited to."""


@dataclass(frozen=True)
class Person:
    """Somebody with a token; user ids are the floor's own, as an identity provider's are."""

    user: str
    tenant: str | None
    role: Role

    @property
    def may_know(self) -> set[str]:
        known = {LIMITED} if self.user in NAMED else set()
        if self.tenant is not None:
            return known | {self.tenant}
        return known | ({*TENANTS, FLOOR} if self.role is not Role.VIEWER else set())

    @property
    def token(self) -> str:
        # A group of the same name in both tenants, as happens.
        return issue_token(
            SECRET, sub=self.user, tenant=self.tenant, roles=[self.role], groups=["ops"], clients=["7"], ttl_s=600
        )


PEOPLE = tuple(
    Person(f"{tenant or FLOOR}-{role}", tenant, role)
    for tenant in (*TENANTS, None)
    for role in (Role.VIEWER, Role.OPERATOR, Role.ENGINEER, Role.ADMIN)
)
RUNS = ("alpha", "beta", None)
"""Tenants of the runs that there are; the third one is the floor's."""
DEVICES = tuple(f"{tenant}/{name}" for tenant in TENANTS for name in ("door", "pump"))
CHANNELS = (
    "noc:all", "noc:client-7", "group:ops", f"group:ops#{','.join(NAMED)}",
    *(f"tenant:{tenant}" for tenant in TENANTS),
    *(f"user:{person.user}" for person in PEOPLE),
    *(f"device:{device}" for device in DEVICES),
    *(f"run:{number}" for number in range(len(RUNS))),
)  # fmt: skip
"""Runs by their number; their ids are made up by the queue."""

GETS = (
    "/api/v1/config", "/api/v1/status", "/api/v1/alerts", "/api/v1/alerts?order=worst&limit=1",
    "/api/v1/alerts/sparks?ids={alert}", "/api/v1/alerts/{alert}", "/api/v1/devices",
    "/api/v1/devices/{device}/telemetry", "/api/v1/runs", "/api/v1/runs?state=queued&limit=1", "/api/v1/runs/{run}",
    "/api/v1/lanes", "/api/v1/models", "/api/v1/dead-letters", "/api/v1/dead-letters?limit=1", "/api/openapi.json",
    "/api/v1/commands", "/api/v1/commands?limit=1", "/api/v1/commands/{command}", "/api/v1/directory/tenants",
    "/api/v1/directory/clients", "/api/v1/directory/users?limit=1", "/api/v1/directory/devices?q=e",
    "/api/v1/directory/users/{user}", "/api/v1/directory/devices/{device}", "/api/v1/silences",
    "/api/v1/silences/{silence}", "/api/v1/heartbeats", "/api/v1/dead-letters/{letter}", "/api/v1/notifications/dead",
    "/api/v1/datasets", "/api/v1/datasets?limit=1", "/api/v1/datasets/{dataset}",
    "/api/v1/circuits", "/api/v1/models/journal", "/api/v1/models/of-alert/{alert}", "/api/v1/models/{model}",
    "/api/v1/models/{version}/report", "/api/v1/models/{version}/report?dataset={dataset}", "/api/v1/labels",
)  # fmt: skip
POSTS = (
    "/api/v1/alerts/actions", "/api/v1/commands", "/api/v1/runs", "/api/v1/runs/{run}/cancel",
    "/api/publish", "/api/broadcast", "/api/history", "/api/presence", "/api/presence_stats", "/api/channels",
    "/api/batch", "/api/info", "/api/history_remove", "/api/disconnect", "/api/subscribe", "/api/unsubscribe",
    "/api/v1/drain",
)  # fmt: skip
SILENCE = {"matchers": [{"field": "device", "values": ["pump"]}], "for_s": 60, "comment": "painters"}
WRITES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/api/v1/directory/users/{user}", {"name": "Clerk"}),
    ("PATCH", "/api/v1/directory/users/{user}", {"role": "viewer"}),
    ("DELETE", "/api/v1/directory/users/{user}", None),
    ("PUT", "/api/v1/directory/devices/{device}", {"client": "7"}),
    ("PATCH", "/api/v1/directory/devices/{device}", {"supervisor": "alpha-clerk"}),
    ("DELETE", "/api/v1/directory/devices/{device}", None),
    ("POST", "/api/v1/silences", SILENCE),
    ("PATCH", "/api/v1/silences/{silence}", {"comment": "welders"}),
    ("POST", "/api/v1/silences/{silence}/expire", {}),
    ("PUT", "/api/v1/heartbeats/{heartbeat}", {"timeout_s": 60}),
    ("POST", "/api/v1/heartbeats/{heartbeat}/beat", {}),
    ("DELETE", "/api/v1/heartbeats/{heartbeat}", None),
    ("POST", "/api/v1/dead-letters/replay", {"ids": [1, 2]}),
    ("POST", "/api/v1/notifications/replay", {}),
    ("POST", "/api/v1/labels/lease", {"session": "a-session", "count": 5}),
    ("POST", "/api/v1/labels/renew", {"session": "a-session"}),
    ("POST", "/api/v1/labels/answer", {"id": "q", "token": 1, "value": "normal"}),
    ("POST", "/api/v1/labels/skip", {"id": "q", "token": 1}),
    ("POST", "/api/v1/labels/release", {"session": "a-session"}),
    ("POST", "/api/v1/models/{version}/report", {"dataset_id": "alpha-set"}),
    ("POST", "/api/v2/alerts", [{"labels": {"alertname": "HighLoad", "device": "pump"}}]),
)
NOT_ASKED = {
    ("POST", f"/api/v1/{path}")
    for path in ("circuits/{}/force", "circuits/{}/reset", "models/promote", "models/rollback")
}
"""Whoever belongs to a tenant is sent away before anything is looked at; what they do is this whole process'."""


def audience(channel: str) -> str:
    """For whom a channel is; ``SHARED`` for what crosses tenants by the token's own words."""
    kind, _, rest = channel.partition(":")
    if "#" in channel:
        return LIMITED
    if kind in {"tenant", "device"}:
        return rest.partition("/")[0]
    if kind == "user":
        return SHARED if rest == "floor-viewer" else rest.partition("-")[0]
    if kind == "run":
        return RUNS[int(rest)] or FLOOR
    return FLOOR if channel == "noc:all" else SHARED


def secret_of(name: str) -> str:
    return SECRETS.get(name, "of nobody in particular")


@dataclass
class Client:
    """One person's sockets and calls, and all they were told."""

    person: Person
    http: httpx.AsyncClient
    transports: list[FakeTransport] = field(default_factory=list)
    connection: Connection | None = None
    answers: list[tuple[str, str]] = field(default_factory=list)
    number: int = 1

    def check(self) -> None:
        """Fail on a secret that is not this person's."""
        foreign = {SECRETS[name] for name in SECRETS.keys() - self.person.may_know}
        if self.person.tenant is not None:  # who works for another tenant is its business as well
            foreign |= {other.user for other in PEOPLE if other.tenant not in {None, self.person.tenant}}
        heard = [("a socket", frame) for transport in self.transports for frame in transport.frames]
        for source, text in [*heard, *self.answers]:
            found = [secret for secret in foreign if secret in text]
            assert not found, f"{self.person} learnt {found} by {source}: {text[:500]}"
        for transport in self.transports:
            transport.frames.clear()
        self.answers.clear()


class World:
    """The floor, its people, and what they may ask about."""

    def __init__(self, folder: Path) -> None:
        self.api = ApiFloor(folder)
        self.register = self.api.app.state.connections
        self.clients = [
            Client(
                person,
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(self.api.app),
                    base_url=ORIGIN,
                    headers={"authorization": f"Bearer {person.token}"},
                ),
            )
            for person in PEOPLE
        ]
        DeviceDirectory(self.api.engine).register(
            [DeviceEntry(*name.split("/"), site=secret_of(name.partition("/")[0])) for name in DEVICES]
        )
        self.api.alerts.raise_device_alerts(
            [
                device_alert(number, tenant=name.partition("/")[0], device=name.partition("/")[2],
                             message=secret_of(name.partition("/")[0]))
                for number, name in enumerate(DEVICES)
            ]
        )  # fmt: skip
        DeadLetterStore(self.api.engine, source="test").add([letter(tenant) for tenant in TENANTS])
        self._fill_directory()
        self.commands = [self._command(*name.split("/")) for name in DEVICES]
        self.runs = [self._run(tenant) for tenant in RUNS]
        self.alerts = self._alerts()
        self.silences = [self._silence(tenant) for tenant in TENANTS]
        self.version = ModelRegistry(Storage(self.api.settings.storage_url)).add(
            model_type="anomaly_detector", weights=b"", created_at_s=START_S, config={}, dataset={}, metrics={},
            settings={}, seed=0, run_id="", user_id="", libraries={},
        )  # fmt: skip
        for tenant in TENANTS:
            self._dataset(tenant)

    def real(self, channel: str) -> str:
        """Return a channel's name with the run's id in place of its number."""
        kind, _, rest = channel.partition(":")
        return f"run:{self.runs[int(rest)]}" if kind == "run" else channel

    async def publish(self, channel: str) -> None:
        """Publish as the floor's own tasks do, with the secret of the audience."""
        await self.api.hub.publish([draft(self.real(channel), {"text": secret_of(audience(channel))})])

    async def connect(self, client: Client, channel: str, offset: int, unidirectional: bool) -> None:
        """Open a socket that asks to recover a channel, its own or not."""
        self.disconnect(client)
        transport = FakeTransport()
        client.transports.append(transport)
        client.connection = self.register.open(transport, unidirectional=unidirectional)
        position = {"recover": True, "offset": offset, "epoch": self.api.hub.core.epoch}
        request = {"token": client.person.token, "subs": {self.real(channel): position}}
        if unidirectional:
            await uni.connect(client.connection, json.dumps(request))
        else:
            await client.connection.on_text(json.dumps({"id": 1, "connect": request}))

    def disconnect(self, client: Client) -> None:
        if client.connection is not None:
            self.register.close(client.connection)
            client.connection = None

    async def command(self, client: Client, method: str, channel: str, offset: int, by_token: bool) -> None:
        """Send one command about a channel, perhaps with a good token for it."""
        if client.connection is None or not client.connection.session.is_open:
            await self.connect(client, channel, offset, unidirectional=False)
            assert client.connection is not None
        client.number += 1
        name = self.real(channel)
        asked: dict[str, Any] = {"channel": name}
        position = {"offset": offset, "epoch": self.api.hub.core.epoch}
        if method == "subscribe":
            asked |= {"recover": offset > 0, **position}
        elif method == "history":
            asked |= {"limit": -1} | ({"since": position} if offset else {})
        elif method == "rpc":
            asked = {"method": ("status", "config", "channels")[offset % 3]}
        elif method == "publish":
            asked |= {"data": secret_of(client.person.tenant or SHARED)}
        # To somebody without a tenant a token may give any channel: that is its issuer's will.
        if by_token and method in {"subscribe", "sub_refresh"} and client.person.tenant is not None:
            asked["token"] = issue_channel_token(
                SECRET, sub=client.person.user, tenant=client.person.tenant, channel=name, ttl_s=600
            )
        await client.connection.on_text(json.dumps({"id": client.number, method: asked}))

    async def get(self, client: Client, path: str, number: int) -> None:
        await self._answered(client, path, client.http.get(self._named(path, number)))

    async def write(self, client: Client, which: int, number: int) -> None:
        """Change an entry of the directory, its own or not."""
        method, path, body = WRITES[which % len(WRITES)]
        call = client.http.request(method, self._named(path, number), **({} if body is None else {"json": body}))
        await self._answered(client, path, call)

    def _named(self, path: str, number: int) -> str:
        names = {
            "alert": self.alerts[number % len(self.alerts)],
            "device": DEVICES[number % len(DEVICES)],
            "run": self.runs[number % len(self.runs)],
            "command": self.commands[number % len(self.commands)],
            "silence": self.silences[number % len(self.silences)],
            "model": "anomaly_detector/v1",
            "version": f"anomaly_detector/versions/{self.version.version}",
            "dataset": f"{TENANTS[number % len(TENANTS)]}-set",
            "heartbeat": f"{TENANTS[number % len(TENANTS)]}/nightly",
            "letter": str(1 + number % len(TENANTS)),
            "user": f"{TENANTS[number % len(TENANTS)]}-clerk",
        }
        return path.format(**names)

    async def post(self, client: Client, path: str, channel: str, number: int) -> None:
        """Call a route about a channel, or about one of the objects; a payload carries the caller's own secret."""
        own = client.person.tenant
        text = secret_of(own if own is not None else audience(channel))
        tenant, device = DEVICES[number % len(DEVICES)].split("/")
        message = {"data": text, "idempotency_key": "same-for-all"}
        others = [self.real(CHANNELS[(number + step) % len(CHANNELS)]) for step in range(3)] if own else []
        calls: dict[str, dict[str, Any]] = {
            "/api/publish": {"channel": self.real(channel), **message},
            "/api/broadcast": {"channels": [self.real(channel), *others], **message},
            "/api/history": {"channel": self.real(channel), "limit": 100},
            "/api/info": {},
            "/api/presence": {"channel": self.real(channel)},
            "/api/presence_stats": {"channel": self.real(channel)},
            "/api/channels": {"pattern": "*"},
            "/api/history_remove": {"channel": self.real(channel)},
            "/api/disconnect": {"user": PEOPLE[number % len(PEOPLE)].user, "disconnect": {"code": 3011}},
            "/api/subscribe": {"user": PEOPLE[number % len(PEOPLE)].user, "channel": self.real(channel)},
            "/api/unsubscribe": {"user": PEOPLE[number % len(PEOPLE)].user, "channel": self.real(channel)},
            "/api/v1/alerts/actions": {
                "action": "note",
                "ids": [self.alerts[number % len(self.alerts)]],
                "args": {"text": secret_of(own or tenant)},
                "request_id": "same-for-all",
            },
            "/api/v1/commands": {"tenant": tenant, "device": device, "payload": {"do": text}, "request_id": "same-1"},
            "/api/v1/runs": {
                "task": "train_model",
                "arguments": {"dataset_id": f"telemetry:{tenant}/{device}"},
                "request_id": "same-for-all",
            },
            "/api/v1/runs/{run}/cancel": {},
            # It tells nothing but a number; what it does is tested elsewhere.
            "/api/v1/drain": {},
        }
        calls["/api/batch"] = {
            "commands": [
                {"publish": calls["/api/publish"]},
                {"history": calls["/api/history"]},
                {"presence": calls["/api/presence"]},
                {"channels": calls["/api/channels"]},
                {"subscribe": calls["/api/subscribe"]},
                {"broadcast": calls["/api/broadcast"]},
            ]
        }
        run = self.runs[number % len(self.runs)]
        await self._answered(client, path, client.http.post(path.format(run=run), json=calls[path]))

    async def turn(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def end(self) -> None:
        for client in self.clients:
            self.disconnect(client)
            await client.http.aclose()
        await self.register.stop()
        self.api.engine.dispose()

    async def _answered(self, client: Client, path: str, call: Any) -> None:
        answer: httpx.Response = await call
        assert answer.status_code < 500 or answer.status_code == 503, f"{path}: {answer.text}"
        client.answers.append((path, f"{answer.headers} {answer.text}"))

    def _fill_directory(self) -> None:
        store = DirectoryStore(self.api.engine, self.api.clock)
        for tenant in TENANTS:
            name = secret_of(tenant)
            store.put(Entry(kind=Kind.TENANT, id=tenant, name=name), f"{tenant}-admin")
            store.put(Entry(kind=Kind.CLIENT, id="7", tenant=tenant, name=name), f"{tenant}-admin")
            store.put(Entry(kind=Kind.USER, id=f"{tenant}-clerk", tenant=tenant, name=name), f"{tenant}-admin")

    def _silence(self, tenant: str) -> str:
        """Make a silence and a heartbeat whose words are the tenant's."""
        now, author = self.api.clock.time_s(), f"{tenant}-operator"
        heartbeat = Heartbeat(
            tenant=tenant,
            name="nightly",
            device_id=None,
            timeout_s=3600.0,
            severity=Severity.HIGH,
            text=secret_of(tenant),
            created_by=author,
            created_at=now,
        )
        HeartbeatStore(self.api.engine, self.api.clock).put(heartbeat)
        silence = Silence(
            id=new_id(),
            kind=SuppressionKind.SILENCE,
            tenant=tenant,
            matchers=(Matcher("device", ("door",)),),
            starts_at=now,
            ends_at=now + 3600.0,
            comment=secret_of(tenant),
            created_by=author,
            created_at=now,
            updated_by=author,
            updated_at=now,
        )
        return SilenceStore(self.api.engine, self.api.clock).create(silence)[0].id

    def _dataset(self, tenant: str) -> None:
        """Freeze readings of a metric that is called as the tenant's secret, and judge a version on them."""
        ts = np.arange(100.0)
        series = Series(f"{tenant}/pump/{secret_of(tenant)}", ts, ts)
        shelf = DatasetShelf(Storage(self.api.settings.storage_url), self.api.engine, f"{tenant}-engineer")
        readings = Readings(series=(series,), labels=NO_LABELS)
        frozen = shelf.take_in(f"{tenant}-set", readings, {"file": secret_of(tenant)}, TrainSettings(), START_S)
        report = {"format": FORMAT, "dataset": {"id": frozen.id, "name": frozen.name}, "notes": [secret_of(tenant)]}
        write_report(Storage(self.api.settings.storage_url), "anomaly_detector", self.version.version, report)

    def _command(self, tenant: str, device: str) -> str:
        order = CommandOrder(
            tenant=tenant,
            device=device,
            payload={"do": secret_of(tenant)},
            timeout_s=600.0,
            user_id=f"{tenant}-operator",
        )
        return self.api.commands.create(order).id

    def _run(self, tenant: str | None) -> str:
        wanted = RunRequest(
            task="train_model",
            arguments={"model_type": "anomaly_detector", "dataset_id": secret_of(tenant or FLOOR)},
            user_id=f"{tenant or FLOOR}-engineer",
            tenant=tenant,
            request_id=f"run-of-{tenant}",
        )
        return self.api.run_queue.core.submit(wanted).id

    def _alerts(self) -> list[str]:
        from ingest.alerts.store import AlertQuery, AlertStore

        return [alert.id for alert in AlertStore(self.api.engine, self.api.clock).list(AlertQuery()).items]


def letter(tenant: str) -> DeadLetter:
    return DeadLetter(
        topic=f"wf/{tenant}/pump/telemetry",
        reason=next(iter(Reason)),
        detail="because",
        payload=secret_of(tenant).encode(),
        payload_bytes=20,
        sha256=tenant,
        received_at=START_S,
        is_repeat=False,
    )


class SecretStream:
    """Telemetry of every device; a reading's boot id is not shown, its metric's name is."""

    def history(self, _count: int) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                reading=Reading(
                    tenant=name.partition("/")[0],
                    device=name.partition("/")[2],
                    boot_id="boot",
                    seq=1,
                    ts=START_S,
                    values={secret_of(name.partition("/")[0]): 1.0},
                    recorded_at=None,
                    received_at=START_S,
                )
            )
            for name in DEVICES
        ]


WHO = st.integers(0, len(PEOPLE) - 1)
CHANNEL = st.sampled_from(CHANNELS)
NUMBER = st.integers(0, 11)
PER_CHANNEL = ("/api/history", "/api/presence", "/api/batch", "/api/history_remove", "/api/subscribe")
METHODS = ("subscribe", "unsubscribe", "history", "presence", "presence_stats", "publish", "sub_refresh", "rpc")
STEP = st.one_of(
    st.tuples(st.just("publish"), CHANNEL),
    st.tuples(st.just("connect"), WHO, CHANNEL, NUMBER, st.booleans()),
    st.tuples(st.just("disconnect"), WHO),
    st.tuples(st.just("command"), WHO, st.sampled_from(METHODS), CHANNEL, NUMBER, st.booleans()),
    st.tuples(st.just("command"), WHO, st.just("subscribe"), CHANNEL, NUMBER, st.booleans()),
    st.tuples(st.just("write"), WHO, NUMBER, NUMBER),
    st.tuples(st.just("get"), WHO, st.sampled_from(GETS), NUMBER),
    st.tuples(st.just("post"), WHO, st.sampled_from(POSTS), CHANNEL, NUMBER),
    st.tuples(st.just("turn"), st.integers(1, 20)),
    st.tuples(st.just("restart")),
)


async def live(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "_stream", lambda _url: SecretStream())
        world = World(Path(folder))
        try:
            for channel in CHANNELS:  # so that there is something to recover and to read
                await world.publish(channel)
            for action, *arguments in steps:
                await perform(world, action, arguments)
            for channel in CHANNELS:
                await world.publish(channel)
            await world.turn(50)
            for client in world.clients:
                client.check()
        finally:
            await world.end()


async def perform(world: World, action: str, arguments: list[Any]) -> None:
    match action, arguments:
        case "publish", [channel]:
            await world.publish(channel)
        case "connect", [who, *rest]:
            await world.connect(world.clients[who], *rest)
        case "disconnect", [who]:
            world.disconnect(world.clients[who])
        case "command", [who, *rest]:
            await world.command(world.clients[who], *rest)
        case "get", [who, *rest]:
            await world.get(world.clients[who], *rest)
        case "post", [who, *rest]:
            await world.post(world.clients[who], *rest)
        case "write", [who, *rest]:
            await world.write(world.clients[who], *rest)
        case "turn", [times]:
            await world.turn(times)
        case "pause", [seconds]:
            await asyncio.sleep(seconds)
        case "restart", []:
            world.api.hub.restart()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, min_size=5, max_size=60))
def test_no_byte_of_a_tenant_reaches_another(steps: list[tuple[Any, ...]]) -> None:
    """Any interleaving of publishing, listening, recovering, reading and calling."""
    asyncio.run(live(steps))


async def test_everybody_asks_for_everything() -> None:
    """Each person, each channel, each command and each route once: nothing is left to the dice."""
    for tenant in (*TENANTS, None):
        people = [number for number, person in enumerate(PEOPLE) if person.tenant == tenant]
        steps: list[tuple[Any, ...]] = [("connect", who, "noc:all", 0, False) for who in range(len(PEOPLE))]
        steps.append(("pause", 0.5))  # until the hub knows who is where
        for who in people:
            steps.append(("connect", who, "noc:all", 0, False))
            for number, channel in enumerate(CHANNELS):
                steps.append(("command", who, "subscribe", channel, number % 2, False))
                steps += [("command", who, method, channel, 0, False) for method in METHODS if method != "unsubscribe"]
                steps.append(("command", who, "subscribe", channel, 0, True))
                steps += [("post", who, path, channel, number) for path in POSTS if path.startswith("/api/publ")]
                steps += [("post", who, path, channel, 0) for path in PER_CHANNEL]
            steps += [("get", who, path, number) for path in GETS for number in range(4)]
            steps += [("post", who, path, "noc:all", number) for path in POSTS for number in range(4)]
            steps += [("write", who, which, number) for which in range(len(WRITES)) for number in range(4)]
        await live(steps)


def test_the_search_finds_a_leak() -> None:
    """A test that cannot fail proves nothing: what is let through on purpose is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve_apps.connections.may_subscribe", lambda *_: True)
        beta = next(number for number, person in enumerate(PEOPLE) if person.tenant == "beta")
        with pytest.raises(AssertionError, match="secret-of-alpha"):
            asyncio.run(live([("command", beta, "subscribe", "run:0", 0, False), ("turn", 5)]))


def test_every_guarded_route_is_asked() -> None:
    """A new route belongs into ``GETS`` or ``POSTS``, or shows that it tells nobody's data."""
    asked = {("GET", path.partition("?")[0]) for path in GETS} | {("POST", path) for path in POSTS}
    asked |= {(method, path) for method, path, _ in WRITES}
    templates = {
        (
            method,
            re.sub(
                r"{\w+}|(?<=directory/)\w+",
                "{}",
                re.sub("{device}|{heartbeat}|{model}", "{}/{}", path.replace("{version}", "{}/versions/{}")),
            ),
        )
        for method, path in asked
    }
    assert {key for key, access in ROUTES.items() if isinstance(access, Role)} == templates | NOT_ASKED
