"""A command to a device and its life: queued, sent, delivered, and then ok, failed or timed out.

Pure: a command and a time in, a ``Change`` or None (nothing happened) out; tables and brokers
are elsewhere. Invariants: a final state is never left; what a device says after the deadline
is kept beside it as a late answer; the first answer counts, so a repetition changes nothing
and a device can make a command's history only so long.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from cluster.ids import new_id
from ingest.payload import AckStatus, CommandAck
from realtime.messages import iso_utc

BROKER = "broker"
DEVICE = "device"
FLOOR = "watchfloor"


class CommandState(StrEnum):
    """How far a command has come."""

    QUEUED = "queued"
    """Stored here; the broker does not have it yet."""
    SENT = "sent"
    """The broker has it and keeps it for the device."""
    DELIVERED = "delivered"
    """The device says that it has it."""
    OK = "ok"
    FAILED = "failed"
    """The device says that it could not do it, or the broker refused it."""
    TIMED_OUT = "timed_out"
    """No result before the deadline; whether it was carried out is not known."""


FINAL = frozenset({CommandState.OK, CommandState.FAILED, CommandState.TIMED_OUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOrder:
    """What a person asks for; checked at the door."""

    tenant: str
    device: str
    payload: dict[str, Any]
    timeout_s: float
    """Until it must have its result; the broker drops it afterwards where it can (MQTT 5)."""
    user_id: str
    request_id: str | None = None
    """The caller's own name for the request: sent twice, it is one command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command as it is stored; times are seconds since the epoch."""

    id: str
    tenant: str
    device: str
    payload: dict[str, Any]
    user_id: str
    request_id: str | None
    state: CommandState
    detail: str
    """The last words about it: the device's, or why it waits or ended; empty: none."""
    answer: AckStatus | None
    """What the device said of the result, before the deadline or late."""
    attempts: int
    """How often it was handed to the broker; more than once only while no PUBACK came."""
    created_at: float
    expires_at: float
    sent_at: float | None = None
    delivered_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    version: int
    """Number of its events."""

    @property
    def is_final(self) -> bool:
        """Tell whether it has ended."""
        return self.state in FINAL


@dataclass(frozen=True, slots=True)
class Change:
    """A command after one event, and what the history says of it."""

    after: Command
    at: float
    actor: str
    """A user id, or one of BROKER, DEVICE and FLOOR."""
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class CommandEvent:
    """One line of a command's history."""

    id: str
    command_id: str
    seq: int
    at: float
    actor: str
    state: CommandState
    is_late: bool
    detail: str


def ordered(order: CommandOrder, at: float) -> Change:
    """Return the command that an order makes."""
    command = Command(
        id=new_id(),
        tenant=order.tenant,
        device=order.device,
        payload=order.payload,
        user_id=order.user_id,
        request_id=order.request_id,
        state=CommandState.QUEUED,
        detail="",
        answer=None,
        attempts=0,
        created_at=at,
        expires_at=at + order.timeout_s,
        version=1,
    )
    return Change(command, at, order.user_id)


def sent(command: Command, at: float) -> Change | None:
    """Note that the broker has it; a device may have been quicker with its answer."""
    if command.state is not CommandState.QUEUED:
        return None
    return _changed(command, at, BROKER, state=CommandState.SENT, detail="", sent_at=at)


def waits(command: Command, at: float, reason: str) -> Change | None:
    """Note why it is still queued, once for each reason."""
    if command.state is not CommandState.QUEUED or command.detail == reason:
        return None
    return _changed(command, at, FLOOR, detail=reason)


def refused(command: Command, at: float, reason: str) -> Change | None:
    """Note that the broker will never take it."""
    if command.is_final:
        return None
    return _changed(command, at, BROKER, state=CommandState.FAILED, detail=reason, ended_at=at)


def overdue(command: Command, at: float) -> Change | None:
    """End it at its deadline, and say how far it had come."""
    if command.is_final or at < command.expires_at:
        return None
    match command.state:
        case CommandState.QUEUED:
            reason = f"not sent in time: {command.detail}" if command.detail else "not sent in time"
        case CommandState.SENT:
            reason = "the broker has it, the device did not confirm it in time"
        case _:
            reason = "the device has it and reported no result in time"
    return _changed(command, at, FLOOR, state=CommandState.TIMED_OUT, detail=reason, ended_at=at)


def answered(command: Command, ack: CommandAck) -> Change | None:
    """Take the device's word; None for one that was heard before or comes after the result."""
    at = ack.received_at
    if ack.status is AckStatus.DELIVERED:
        if command.delivered_at is not None or command.answer is not None:
            return None
        if command.is_final:
            return _late(command, ack, delivered_at=at)
        sent_at = command.sent_at or at  # the device was quicker than the sender
        state = CommandState.DELIVERED
        return _changed(command, at, DEVICE, state=state, detail=ack.detail, delivered_at=at, sent_at=sent_at)
    if command.answer is not None:
        return None
    heard = {
        "answer": ack.status,
        "answered_at": at,
        "delivered_at": command.delivered_at or at,
        "sent_at": command.sent_at or at,
    }
    if command.is_final:
        return _late(command, ack, **heard)
    state = CommandState(ack.status)
    return _changed(command, at, DEVICE, state=state, detail=ack.detail, ended_at=at, **heard)


def command_to_json(command: Command, *, with_payload: bool = True) -> dict[str, Any]:
    """Return a command as the API and the messages show it."""
    shown: dict[str, Any] = {
        "id": command.id,
        "tenant": command.tenant,
        "device": command.device,
        "user_id": command.user_id,
        "request_id": command.request_id,
        "state": command.state.value,
        "detail": command.detail,
        "answer": command.answer.value if command.answer else None,
        "attempts": command.attempts,
        "version": command.version,
    }
    for name in ("created_at", "expires_at", "sent_at", "delivered_at", "answered_at", "ended_at"):
        at = getattr(command, name)
        shown[name] = None if at is None else iso_utc(at)
    return shown | {"payload": command.payload} if with_payload else shown


def event_to_json(event: CommandEvent) -> dict[str, Any]:
    """Return an event as the API shows it."""
    return {
        "id": event.id,
        "seq": event.seq,
        "at": iso_utc(event.at),
        "actor": event.actor,
        "state": event.state.value,
        "late": event.is_late,
        "detail": event.detail,
    }


def _changed(command: Command, at: float, actor: str, **fields: Any) -> Change:
    return Change(replace(command, version=command.version + 1, **fields), at, actor)


def _late(command: Command, ack: CommandAck, **heard: Any) -> Change:
    words = f"{ack.status} after the end" + (f": {ack.detail}" if ack.detail else "")
    after = replace(command, version=command.version + 1, detail=words, **heard)
    return Change(after, ack.received_at, DEVICE, is_late=True)
