"""Whose run it is: looked up once, never guessed."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from serve_apps import run_tenants
from serve_apps.errors import RunLookupError
from serve_apps.run_tenants import RunTenants


class Runs:
    """A store that remembers what it was asked."""

    def __init__(self, **tenants: str | None) -> None:
        self.tenants = tenants
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def find(self, run_ids: Sequence[str]) -> dict[str, str | None]:
        self.asked += run_ids
        if self.failure is not None:
            raise self.failure
        return {run_id: self.tenants[run_id] for run_id in run_ids if run_id in self.tenants}


async def test_a_run_is_looked_up_once() -> None:
    """A run never changes its tenant."""
    store = Runs(a="t1", b=None)
    runs = RunTenants(store.find)
    for _ in range(3):
        await runs.learn("t1", ["run:a", "noc:all", "run:b"])
    assert dict(runs.known) == {"a": "t1", "b": None}
    assert store.asked == ["a", "b"]


async def test_an_unknown_run_is_asked_for_again() -> None:
    """A program that registers itself may come a moment after its listener."""
    store = Runs()
    runs = RunTenants(store.find)
    await runs.learn("t1", ["run:a"])
    assert "a" not in runs.known
    store.tenants["a"] = "t1"
    await runs.learn("t1", ["run:a"])
    assert runs.known["a"] == "t1"


async def test_who_is_of_no_tenant_asks_for_nothing() -> None:
    """Floor-wide users may see every run, whoever's."""
    store = Runs(a="t1")
    await RunTenants(store.find).learn(None, ["run:a"])
    assert store.asked == []


async def test_other_channels_cost_nothing() -> None:
    """Only a run has a tenant that its name does not say."""
    store = Runs()
    await RunTenants(store.find).learn("t1", ["device:t1/d"])
    assert store.asked == []


async def test_a_store_that_is_away_is_said() -> None:
    """So that the client tries again, rather than be told that it may not."""
    store = Runs(a="t1")
    store.failure = OperationalError("select", {}, Exception("locked"))
    with pytest.raises(RunLookupError) as caught:
        await RunTenants(store.find).learn("t1", ["run:a"])
    assert "select" not in str(caught.value)


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was asked for last is remembered."""
    monkeypatch.setattr(run_tenants, "MAX_KNOWN", 2)
    store = Runs(a="t", b="t", c="t")
    runs = RunTenants(store.find)
    for name in ("a", "b", "a", "c"):
        await runs.learn("t", [f"run:{name}"])
    assert set(runs.known) == {"a", "c"}


async def test_invented_runs_take_a_few_threads_at_most() -> None:
    """The rest wait their turn."""
    gate, lock = threading.Event(), threading.Lock()
    inside = most = 0

    def find(_run_ids: Sequence[str]) -> dict[str, str | None]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        assert gate.wait(10)
        with lock:
            inside -= 1
        return {}

    runs = RunTenants(find)
    asked: list[asyncio.Task[Any]] = [asyncio.create_task(runs.learn("t", [f"run:{n}"])) for n in range(40)]
    await asyncio.sleep(0.1)
    gate.set()
    await asyncio.gather(*asked)
    assert most <= run_tenants.AT_ONCE
