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
from serve_apps.api.batch import METHODS
from serve_apps.auth import COOKIE_PREFIX, Role
from serve_apps.authorisation import ROUTES, RPC
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.frames import _PARSERS
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.namespaces import NAMESPACES, Namespace

TEXT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"[A-Za-z0-9_]+", TEXT))


@pytest.mark.parametrize("code", [*ErrorCode, *UnsubscribeCode, *CloseCode], ids=lambda code: code.name)
def test_every_code_is_there_with_its_reason(code: ErrorCode | UnsubscribeCode | CloseCode) -> None:
    """The number and the words that travel beside it, on one line."""
    assert any(str(int(code)) in line and code.reason in line for line in TEXT.splitlines())


def test_every_name_is_there() -> None:
    """Message types, priorities, channel kinds, roles, commands and settings."""
    names = {
        *MessageType, *Priority, *Role, *_PARSERS, *RPC, COOKIE_PREFIX,
        *(field.name for field in dataclasses.fields(GatewaySettings)),
    }  # fmt: skip
    assert {str(name) for name in names} - WORDS == set()
    assert {kind for kind in ChannelKind if f"`{kind}:" not in TEXT} == set()


def test_every_path_of_the_protocol_is_there() -> None:
    """Sockets, streams and the calls of the server API."""
    paths = {path for _, path in ROUTES if path.startswith(("/connection/", "/api/")) and "/api/v1/" not in path}
    assert {path for path in paths if path not in TEXT} == set()


def table(head: str) -> tuple[list[str], dict[str, list[str]]]:
    """The head of the one table that begins so, and its rows by the name in their first cell."""
    lines = TEXT.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith(head)]
    rows: dict[str, list[str]] = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        names, *cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        rows |= {name.strip("`"): cells for name in names.split(", ")}
    return [cell.strip() for cell in lines[first].strip("|").split("|")][1:], rows


def test_options_of_channels_are_said_right() -> None:
    """Each option of each kind, in the columns that the table's head names."""
    head, rows = table("| option |")
    kinds = [ChannelKind(name) for name in head if name]
    assert {*kinds, ChannelKind.GATEWAY} == set(NAMESPACES)
    assert set(rows) == {field.name for field in dataclasses.fields(Namespace)}
    for option, cells in rows.items():
        values = [getattr(NAMESPACES[kind], option) for kind in kinds]
        said = [("on" if value else "off") if isinstance(value, bool) else str(value or "none") for value in values]
        assert cells[: len(kinds)] == said, option


def test_methods_are_said_right() -> None:
    """Each with the least role that may call."""
    _, rows = table("| method of `rpc` |")
    assert {name: cells[0] for name, cells in rows.items()} == {name: role.value for name, role in RPC.items()}


def test_calls_of_the_server_api_are_said_right() -> None:
    """Each with the least role that may call."""
    _, rows = table("| call | role |")
    assert {name: cells[0] for name, cells in rows.items()} == {
        name: str(ROUTES["POST", f"/api/{name}"]) for name in METHODS
    }


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
        errors.NotAllowedError("why"),
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
