"""docs/protocol.md says everything that a client can meet."""

import dataclasses
import pickle
import re
from pathlib import Path

import pytest

from realtime.channels import ChannelKind
from realtime.messages import MessageType
from realtime.publication import Priority
from serve_apps import errors
from serve_apps.auth import COOKIE_PREFIX, Role
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.frames import _PARSERS
from serve_apps.gateway_settings import GatewaySettings

TEXT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"[A-Za-z0-9_]+", TEXT))


@pytest.mark.parametrize("code", [*ErrorCode, *UnsubscribeCode, *CloseCode], ids=lambda code: code.name)
def test_every_code_is_there_with_its_reason(code: ErrorCode | UnsubscribeCode | CloseCode) -> None:
    """The number and the words that travel beside it, on one line."""
    assert any(str(int(code)) in line and code.reason in line for line in TEXT.splitlines())


def test_every_name_is_there() -> None:
    """Message types, priorities, channel kinds, roles, commands and settings."""
    names = {
        *MessageType, *Priority, *Role, *_PARSERS, COOKIE_PREFIX,
        *(field.name for field in dataclasses.fields(GatewaySettings)),
    }  # fmt: skip
    assert {str(name) for name in names} - WORDS == set()
    assert {kind for kind in ChannelKind if f"`{kind}:" not in TEXT} == set()


def test_reconnection_is_said_right() -> None:
    """The column agrees with the ranges the SDKs use."""
    for code in CloseCode:
        (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {int(code)} |")]
        assert line.rstrip(" |").endswith("stops" if code.is_final else "reconnects")


@pytest.mark.parametrize(
    "error",
    [
        errors.AuthenticationError("why"),
        errors.TokenExpiredError(),
        errors.FrameError("why"),
        errors.FeedUnavailableError("attach", "why"),
        errors.OutboxError("channel"),
        errors.FeedDeadError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_pickle(error: errors.GatewayError) -> None:
    """They cross processes when a deployment's method raises them."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
