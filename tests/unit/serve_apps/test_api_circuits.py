"""Circuits over HTTP: who sees them, who forces them, what is written down."""

import logging
from collections.abc import Iterator

import pytest

from cluster import breaker as breaker_module
from cluster.breaker import Breaker
from cluster.circuit_policies import BreakerSettings
from tests.fakes_api import ApiFloor

CIRCUITS = "/api/v1/circuits"


@pytest.fixture(autouse=True)
def breaker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Breaker]:
    """The process's breaker, fresh for each test."""
    fresh = Breaker(BreakerSettings())
    monkeypatch.setattr(breaker_module, "_breaker", fresh)
    return fresh


def fail(breaker: Breaker, service: str = "mqtt_broker") -> None:
    for _ in range(5):
        with pytest.raises(ConnectionError), breaker.call(service):
            raise ConnectionError("refused by 10.0.0.7")


async def test_an_open_circuit_says_why(api: ApiFloor, breaker: Breaker) -> None:
    """State, cause, the error that decided, and when the next try is."""
    fail(breaker)
    async with api.caller("operator") as caller:
        (found,) = (await caller.get(CIRCUITS)).json()["items"]

    assert (found["service"], found["state"], found["cause"]) == ("mqtt_broker", "open", "failures")
    assert found["reason"] == "ConnectionError: refused by 10.0.0.7"
    assert 290 < found["retry_in_s"] <= 300


async def test_a_tenant_sees_states_only(api: ApiFloor, breaker: Breaker) -> None:
    """Neither where a service is nor what it said, and nothing of one replica's stores."""
    fail(breaker)
    fail(breaker, "webhook.erp")
    for _ in range(3):
        with pytest.raises(ConnectionError), breaker.call("sql.10.0.0.8-5432"):
            raise ConnectionError
    async with api.caller("viewer", tenant="demo") as caller:
        found = (await caller.get(CIRCUITS)).json()["items"]

    assert found == [{"service": "mqtt_broker", "state": "open"}, {"service": "webhook.erp", "state": "open"}]


async def test_an_admin_forces_and_resets(api: ApiFloor, breaker: Breaker, caplog: pytest.LogCaptureFixture) -> None:
    """With name and reason for everybody, and a line each in the audit log."""
    async with api.caller("admin") as caller:
        with caplog.at_level(logging.WARNING, logger="watchfloor.audit"):
            forced = await caller.post(f"{CIRCUITS}/mqtt_broker/force", json={"state": "open", "reason": "it\nmoves"})
            listed = (await caller.get(CIRCUITS)).json()["items"]
            reset = await caller.post(f"{CIRCUITS}/mqtt_broker/reset", json={"reason": "moved"})
    author = forced.json()["author"]

    assert (forced.status_code, forced.json()["state"], forced.json()["reason"]) == (200, "forced_open", "it\nmoves")
    assert [(one["state"], one["author"]) for one in listed] == [("forced_open", author)]
    assert (reset.json()["state"], reset.json()["author"]) == ("closed", author)
    lines = [record.getMessage() for record in caplog.records if record.name == "watchfloor.audit"]
    assert [line.partition(" service=")[0] for line in lines] == ["circuit force", "circuit reset"]
    assert all(author in line and "\n" not in line for line in lines)
    assert "moves" in lines[0]


@pytest.mark.parametrize(
    ("service", "body", "status"),
    [
        pytest.param("mqtt-broker", {"state": "open", "reason": "x"}, 404, id="no-such-service"),
        pytest.param("sql.db-5432", {"state": "open", "reason": "x"}, 409, id="each-process-on-its-own"),
        pytest.param("mqtt_broker", {"state": "half_open", "reason": "x"}, 422, id="no-such-state"),
        pytest.param("mqtt_broker", {"state": "open"}, 422, id="no-reason"),
        pytest.param("mqtt_broker", {"state": "open", "reason": "  "}, 422, id="blank-reason"),
        pytest.param("mqtt_broker", {"state": "open", "reason": "x" * 201}, 422, id="long-reason"),
        pytest.param("A%2FB", {"state": "open", "reason": "x"}, 404, id="no-name"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: ApiFloor, breaker: Breaker, service: str, body: dict[str, str], status: int
) -> None:
    """And changes nothing."""
    breaker.circuit("sql.db-5432")
    async with api.caller("admin") as caller:
        answer = await caller.post(f"{CIRCUITS}/{service}/force", json=body)

    assert answer.status_code == status, answer.text
    assert {str(one.state) for one in breaker.snapshot()} == {"closed"}


async def test_only_an_admin_of_the_whole_floor_may(api: ApiFloor, breaker: Breaker) -> None:
    """An engineer may not, nor a tenant's admin: the broker is everybody's."""
    order = {"state": "open", "reason": "mine"}
    async with api.caller("engineer") as engineer, api.caller("admin", tenant="demo") as tenants_admin:
        for caller in (engineer, tenants_admin):
            assert (await caller.post(f"{CIRCUITS}/mqtt_broker/force", json=order)).status_code == 403

    assert breaker.snapshot() == []
