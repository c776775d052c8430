"""Alert engine, store and relay for the tests of alerts."""

import pytest
from sqlalchemy import Engine

from ingest.alerts.engine import AlertEngine
from ingest.alerts.relay import Relay
from ingest.alerts.store import AlertStore
from tests.fakes_alerts import FakeClock, FakeHub


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def alert_engine(sql: Engine, clock: FakeClock) -> AlertEngine:
    return AlertEngine(sql, clock)


@pytest.fixture
def store(sql: Engine, clock: FakeClock) -> AlertStore:
    return AlertStore(sql, clock)


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


@pytest.fixture
def relay(sql: Engine, hub: FakeHub, clock: FakeClock) -> Relay:
    return Relay(sql, hub, clock)
