"""A gateway for tests of the HTTP API: real SQL, real queue core and alert engine, no Ray and no Valkey."""

import functools
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
from fastapi import FastAPI
from prometheus_client import generate_latest
from sqlalchemy import Engine

from cluster.migrate import load_tables
from cluster.run_queue import RunQueue, RunQueueSettings
from cluster.run_store import RunStore
from cluster.runs import LaneStatus, Run, RunRequest, RunState
from cluster.settings import Settings
from cluster.store import metadata, open_engine
from ingest.alerts.engine import AlertEngine
from ingest.alerts.external_store import ExternalAlertSettings
from ingest.alerts.settings import AlertSettings
from ingest.command_store import CommandStore
from serve_apps.app import create_app
from serve_apps.auth import Authenticator, issue_signin_key, issue_token
from serve_apps.deps import GatewayDeps
from serve_apps.disabled_users import DisabledUsers
from tests.fakes_alerts import FakeClock
from tests.fakes_cluster import FakeClock as QueueClock
from tests.fakes_cluster import FakeJobs
from tests.fakes_gateway import LocalHub
from training.labelling.label_client import CALL_TIMEOUT_S, Call, LabelQueueClient
from training.labelling.label_desk import LabelDesk
from training.labelling.label_queue import LabelQueue
from training.labelling.labels import RequestState

SECRET = b"s" * 32
PORT = 8000
ORIGIN = f"http://floor:{PORT}"


class LocalRunQueue:
    """The run queue's client over the real core, in this process."""

    def __init__(self, engine: Engine) -> None:
        self.jobs = FakeJobs()
        self.core = RunQueue(RunQueueSettings(listener="none"), RunStore(engine), self.jobs, QueueClock())

    async def asubmit(self, request: RunRequest) -> Run:
        return self.core.submit(request)

    async def aget(self, run_id: str) -> Run:
        return self.core.get(run_id)

    async def acancel(self, run_id: str, user_id: str) -> Run:
        return self.core.cancel(run_id, user_id)

    async def alist(self, limit: int = 100, state: RunState | None = None) -> tuple[Run, ...]:
        return self.core.list(limit, state)

    async def alanes(self) -> tuple[LaneStatus, ...]:
        return self.core.lanes()


class FakeRedis:
    """The few commands that the API sends to Valkey."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def set(self, key: str, value: str, *, nx: bool = False, ex: int | None = None) -> bool | None:
        assert ex is not None, "a key without an end would stay for ever"
        if nx and key in self.values:
            return None
        self.values[key] = value
        return True

    async def get(self, key: str) -> bytes | None:
        value = self.values.get(key)
        return None if value is None else value.encode()

    async def delete(self, key: str) -> int:
        return 1 if self.values.pop(key, None) is not None else 0


class HubWithStats(LocalHub):
    """A hub that says that it is there."""

    async def stats(self) -> dict[str, Any]:
        self._check("stats", 1.0)
        return {"epoch": "e"}


@functools.cache
def _tables() -> bytes:
    """A database with all tables: made once, since hundreds of tests want one."""
    with tempfile.TemporaryDirectory() as folder:
        load_tables()
        engine = open_engine(f"sqlite:///{folder}/made.db")
        metadata.create_all(engine)
        engine.dispose()
        return (Path(folder) / "made.db").read_bytes()


class LocalLabelQueue(LabelQueueClient):
    """The label queue's client over the real queue and desk, in this process."""

    def __init__(self, engine: Engine, clock: FakeClock) -> None:
        super().__init__()
        self.queue = LabelQueue(engine, clock)
        self.desk = LabelDesk(self.queue)

    async def acount_states(self) -> dict[RequestState, int]:
        return self.queue.counts()

    async def _travel(self, calls: Sequence[Call]) -> Sequence[Any]:
        return await self.desk.together([getattr(self.queue, method)(*args) for method, args in calls], CALL_TIMEOUT_S)


class ApiFloor:
    """The parts behind the API, and callers of it."""

    def __init__(self, folder: Path, engine: Engine | None = None) -> None:
        if engine is None:
            (folder / "floor.db").write_bytes(_tables())
            engine = open_engine(f"sqlite:///{folder}/floor.db")
        self.engine = engine
        self.clock = FakeClock()
        self.alerts = AlertEngine(self.engine, self.clock)
        self.run_queue = LocalRunQueue(self.engine)
        self.redis = FakeRedis()
        self.hub = HubWithStats()
        self.commands = CommandStore(self.engine, self.clock)
        self.disabled = DisabledUsers(self.engine)
        self.labels = LocalLabelQueue(self.engine, self.clock)
        self.woken = 0
        self._used: set[str] = set()
        self.settings = settings = Settings(
            http_port=PORT,
            data_dir=str(folder),
            storage_url=(folder / "storage").as_uri(),
            redis_url="redis://127.0.0.1:1",  # nobody: what needs a stream says that it is away
        )
        deps = SimpleNamespace(
            settings=settings,
            engine=self.engine,
            redis=self.redis,
            hub=self.hub,
            run_queue=self.run_queue,
            auth=Authenticator(SECRET, http_port=PORT, consume=self._consume, shut_out=self.disabled),
            relay=SimpleNamespace(wake=self._wake),
            metrics=SimpleNamespace(render=self._metrics),
            alerts=AlertSettings(),
            desk=SimpleNamespace(store=self.commands, wake=self._wake),
            disabled=self.disabled,
            external_alerts=ExternalAlertSettings(),
            labels=self.labels,
        )
        self.app: FastAPI = create_app(cast(GatewayDeps, deps))

    def caller(
        self, *roles: str, tenant: str | None = None, user: str = "nora", headers: dict[str, str] | None = None
    ) -> httpx.AsyncClient:
        """Return an HTTP client that is signed in with ``roles``; without any it is nobody."""
        own = dict(headers or {})
        if roles:
            token = issue_token(SECRET, sub=user, tenant=tenant, roles=roles, ttl_s=60)
            own["authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ORIGIN, headers=own)

    def signin_key(self, roles: Iterable[str] = ("admin",)) -> str:
        """Return the key of a fresh sign-in link."""
        return issue_signin_key(SECRET, sub="nora", tenant=None, roles=roles)

    async def _consume(self, link_id: str, _ttl_s: float) -> bool:
        is_new = link_id not in self._used
        self._used.add(link_id)
        return is_new

    async def _metrics(self) -> bytes:
        return generate_latest()

    def _wake(self) -> None:
        self.woken += 1
