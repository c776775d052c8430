"""What the tests of commands share: orders, commands in any state, answers."""

from ingest.command import FINAL, Command, CommandOrder, CommandState
from ingest.payload import AckStatus, CommandAck

NOW = 1_790_000_000.0


def make_order(number: int = 0, **changes: object) -> CommandOrder:
    """Return an order of nora's to demo/pump-7."""
    values: dict[str, object] = {
        "tenant": "demo",
        "device": "pump-7",
        "payload": {"do": "lock", "number": number},
        "timeout_s": 60.0,
        "user_id": "nora",
    }
    return CommandOrder(**(values | changes))  # type: ignore[arg-type]


def make_command(state: CommandState) -> Command:
    """Return a command that has come so far."""
    is_answered = state in {CommandState.OK, CommandState.FAILED}
    is_delivered = is_answered or state is CommandState.DELIVERED
    return Command(
        id="c1",
        tenant="demo",
        device="pump-7",
        payload={"do": "lock"},
        user_id="nora",
        request_id=None,
        state=state,
        detail="",
        answer=AckStatus(state) if is_answered else None,
        attempts=1,
        created_at=NOW,
        expires_at=NOW + 60.0,
        delivered_at=NOW if is_delivered else None,
        ended_at=NOW if state in FINAL else None,
        version=3,
    )


def ack(status: str, detail: str = "", command_id: str = "c1", device: str = "pump-7") -> CommandAck:
    """Return what a device of the demo answers."""
    return CommandAck("demo", device, command_id, AckStatus(status), detail, NOW)
