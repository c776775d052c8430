"""A device's side of commands: each is carried out once and answered every time it comes.

Pure: payloads in, answers out; ``device_mqtt.py`` carries them. The contract for device makers
stands in ``docs/devices.md``, and this keeps it. Invariants: a command that comes again (MQTT's
QoS 1 may repeat a message, and so may a floor that missed a PUBACK) is not carried out again,
but gets the same answer again; one whose deadline has passed is not carried out at all.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ingest.payload import AckStatus

REMEMBERED = 256
"""Commands whose answers are remembered; the oldest leaves first."""

CarryOut = Callable[[dict[str, Any]], str]
"""Does what a payload says and returns words about it; raises ``CommandRefusedError`` where it cannot."""


class CommandRefusedError(Exception):
    """A device cannot do what it was told; the text says why."""


class DeviceCommands:
    """What one device was told, and what it answered."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def receive(self, payload: bytes, now_s: float) -> Iterator[bytes]:
        """Yield what is to be answered, each answer when it is due; nothing for what is no command."""
        command = _parsed(payload)
        if command is None:
            return
        command_id = command["command_id"]
        known = self._answers.get(command_id)
        if known is not None:
            yield known
            return
        yield _answer(command_id, AckStatus.DELIVERED, "")
        answer = self._answers[command_id] = self._result(command, now_s)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        yield answer

    def _result(self, command: dict[str, Any], now_s: float) -> bytes:
        command_id, expires_at = command["command_id"], command.get("expires_at")
        if isinstance(expires_at, int | float) and now_s * 1000 > expires_at:
            return _answer(command_id, AckStatus.FAILED, "came after its deadline, not carried out")
        content = command.get("payload")
        try:
            return _answer(command_id, AckStatus.OK, self._carry_out(content if isinstance(content, dict) else {}))
        except CommandRefusedError as error:
            return _answer(command_id, AckStatus.FAILED, str(error))


def _parsed(payload: bytes) -> dict[str, Any] | None:
    try:
        command = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return command if isinstance(command, dict) and isinstance(command.get("command_id"), str) else None


def _answer(command_id: str, status: AckStatus, detail: str) -> bytes:
    return orjson.dumps({"command_id": command_id, "status": status} | ({"detail": detail} if detail else {}))
