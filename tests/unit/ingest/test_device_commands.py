"""A device's side: once carried out, always answered."""

from typing import Any

import orjson
import pytest

from ingest.device_commands import REMEMBERED, CommandRefusedError, DeviceCommands

NOW = 1_790_000_000.0


class Valve:
    """Opens, and says so; knows nothing else."""

    def __init__(self) -> None:
        self.opened = 0

    def carry_out(self, payload: dict[str, Any]) -> str:
        if payload.get("do") != "open":
            raise CommandRefusedError("this is a valve")
        self.opened += 1
        return f"opened {self.opened} times"


@pytest.fixture
def valve() -> Valve:
    return Valve()


@pytest.fixture
def device(valve: Valve) -> DeviceCommands:
    return DeviceCommands(valve.carry_out)


def wire(command_id: str = "c1", expires_in_s: float = 60.0, **payload: Any) -> bytes:
    return orjson.dumps({"command_id": command_id, "expires_at": (NOW + expires_in_s) * 1000, "payload": payload})


def answers(device: DeviceCommands, payload: bytes) -> list[tuple[str, str]]:
    return [(one["status"], one.get("detail", "")) for one in map(orjson.loads, device.receive(payload, NOW))]


def test_a_command_is_confirmed_and_then_carried_out(device: DeviceCommands) -> None:
    """Two answers, the first before the work begins."""
    assert answers(device, wire(do="open")) == [("delivered", ""), ("ok", "opened 1 times")]
    assert answers(device, wire("c2", do="dance")) == [("delivered", ""), ("failed", "this is a valve")]


def test_a_repeated_command_is_answered_and_not_carried_out(device: DeviceCommands, valve: Valve) -> None:
    """With the answer of the first time."""
    for _ in range(3):
        assert answers(device, wire(do="open"))[-1] == ("ok", "opened 1 times")
    assert valve.opened == 1


def test_a_command_past_its_deadline_is_not_carried_out(device: DeviceCommands, valve: Valve) -> None:
    """MQTT 3.1.1 delivers it however old it is."""
    assert answers(device, wire(expires_in_s=-1.0, do="open"))[-1][0] == "failed"
    assert valve.opened == 0


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"{}", b'{"command_id":7}', b"\xff"])
def test_what_is_no_command_gets_no_answer(device: DeviceCommands, payload: bytes) -> None:
    """There is nothing that an answer could name."""
    assert answers(device, payload) == []


def test_the_memory_is_bounded(device: DeviceCommands, valve: Valve) -> None:
    """The oldest are forgotten."""
    for number in range(REMEMBERED + 1):
        answers(device, wire(f"c{number}", do="open"))
    answers(device, wire("c1", do="open"))
    assert valve.opened == REMEMBERED + 1
    answers(device, wire("c0", do="open"))
    assert valve.opened == REMEMBERED + 2
