"""Errors of the broadcast path cross processes."""

import inspect
import pickle

import pytest

from realtime import errors

EXAMPLES: list[errors.RealtimeError] = [
    errors.RealtimeError("text"),
    errors.InvalidChannelError("room:1", "must begin otherwise"),
    errors.InvalidMessageError("x", "is too large"),
    errors.HubUnavailableError("publish", 5.0, "ActorDiedError"),
    errors.HubNotFoundError("watchfloor"),
    errors.JournalUnavailableError("append", "refused"),
    errors.JournalLostError(3),
    errors.FencedError(3, 4),
    errors.UnreadablePayloadError("2026-11", "no such key is set"),
    errors.HubFrameError("no request"),
    errors.HubRefusedError("history", "too large"),
    errors.TransportError("hub", "unreachable", False, 2),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: errors.RealtimeError) -> None:
    """Fields and text are the same on the other side."""
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def test_every_error_is_in_the_list() -> None:
    """A new error cannot be forgotten here."""
    declared = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__}

    assert {type(error) for error in EXAMPLES} == declared
