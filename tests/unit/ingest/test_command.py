"""The life of a command: every step from every state, and what a device can and cannot do to it."""

from dataclasses import replace

import pytest
from fakes_commands import NOW, ack, make_command

from ingest.command import CommandState, answered, overdue, refused, sent, waits

QUEUED, SENT, DELIVERED = CommandState.QUEUED, CommandState.SENT, CommandState.DELIVERED
OK, FAILED, TIMED_OUT = CommandState.OK, CommandState.FAILED, CommandState.TIMED_OUT
STEPS = {
    "sent": lambda command: sent(command, NOW),
    "waits": lambda command: waits(command, NOW, "the broker is away"),
    "refused": lambda command: refused(command, NOW, "not authorised"),
    "overdue": lambda command: overdue(command, command.expires_at),
    "delivered": lambda command: answered(command, ack("delivered")),
    "ok": lambda command: answered(command, ack("ok")),
    "failed": lambda command: answered(command, ack("failed")),
}
LATE = "late"
# State -> what each step makes of it; None: nothing happens, LATE: the state stays, the answer is kept.
TABLE: dict[CommandState, dict[str, CommandState | str | None]] = {
    QUEUED: {
        "sent": SENT, "waits": QUEUED, "refused": FAILED, "overdue": TIMED_OUT,
        "delivered": DELIVERED, "ok": OK, "failed": FAILED,
    },
    SENT: {
        "sent": None, "waits": None, "refused": FAILED, "overdue": TIMED_OUT,
        "delivered": DELIVERED, "ok": OK, "failed": FAILED,
    },
    DELIVERED: {
        "sent": None, "waits": None, "refused": FAILED, "overdue": TIMED_OUT,
        "delivered": None, "ok": OK, "failed": FAILED,
    },
    OK: dict.fromkeys(STEPS),
    FAILED: dict.fromkeys(STEPS),
    TIMED_OUT: dict.fromkeys(STEPS) | {"delivered": LATE, "ok": LATE, "failed": LATE},
}  # fmt: skip


@pytest.mark.parametrize("state", CommandState)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_from_each_state(state: CommandState, step: str) -> None:
    """What has ended stays as it ended; a step that changes nothing leaves no event."""
    before = make_command(state)
    change = STEPS[step](before)
    expected = TABLE[state][step]

    if expected is None:
        assert change is None
        return
    assert change is not None
    assert change.after.state is (state if expected == LATE else expected)
    assert change.is_late is (expected == LATE)
    assert change.after.version == before.version + 1
    assert (change.after.ended_at is not None) is (change.after.state in {OK, FAILED, TIMED_OUT})


def test_the_first_answer_counts() -> None:
    """A second one, the same or another, makes no history."""
    done = answered(make_command(SENT), ack("ok", "locked"))
    assert done is not None
    for status in ("ok", "failed", "delivered"):
        assert answered(done.after, ack(status)) is None


def test_a_device_cannot_lengthen_the_history_of_a_command_that_timed_out() -> None:
    """Late receipt and late result, once each."""
    command = make_command(TIMED_OUT)
    heard = 0
    for status in ("delivered", "delivered", "ok", "failed", "ok", "delivered"):
        change = answered(command, ack(status))
        heard += change is not None
        command = change.after if change is not None else command

    assert heard == 2
    assert (command.state, command.answer) == (TIMED_OUT, "ok")


def test_the_reason_of_a_time_out_says_how_far_it_came() -> None:
    """Three different things to do about it."""
    reasons = []
    for state in (QUEUED, SENT, DELIVERED):
        change = overdue(make_command(state), NOW + 1e6)
        assert change is not None
        reasons.append(change.after.detail)
    waited = waits(make_command(QUEUED), NOW, "the circuit of mqtt_broker is open")
    assert waited is not None
    never = overdue(waited.after, NOW + 1e6)
    assert never is not None

    assert len(set(reasons)) == 3
    assert never.after.detail == "not sent in time: the circuit of mqtt_broker is open"
    assert waits(waited.after, NOW, "the circuit of mqtt_broker is open") is None


def test_before_its_deadline_nothing_is_overdue() -> None:
    """To the second."""
    command = replace(make_command(SENT), expires_at=NOW + 1)
    assert overdue(command, NOW + 0.9) is None
