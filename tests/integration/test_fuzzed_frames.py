"""Hostile frames: whatever arrives, each command has one answer, or the socket is closed with a code."""

import asyncio
import contextlib
import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_apps import frames
from serve_apps.auth import Authenticator, Role, issue_token
from serve_apps.connections import Connections
from serve_apps.effects import Attach, Attachment, Close, Effect, Follow, Leave, ReadHistory, Refuse, Send
from serve_apps.errors import FrameError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.session import Session
from tests.fakes_gateway import FakeTransport, LocalHub
from tests.sessions import START, make

SECRET = b"s" * 32
TOKEN = issue_token(SECRET, sub="ann", tenant=None, roles=[Role.ADMIN], groups=["crew"], ttl_s=3600)

CHANNELS = st.sampled_from(
    ["run:a", "run:b", "noc:all", "user:ann", "group:crew", "device:t/d", "gateway:all", "", "news", "run:" + "x" * 300]
)
NUMBERS = st.integers(-1, 3) | st.sampled_from([2**31, 2**32, 2**63, 2**64, 1.5, 1e308])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | CHANNELS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
POSITION = {"recover": st.booleans(), "offset": st.integers(0, 9), "epoch": st.sampled_from(["", "e"])}
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "connect": {"token": st.sampled_from(["ann", "bob", "expired", "forged", ""]), "subs": st.dictionaries(
        CHANNELS, st.fixed_dictionaries({}, optional=POSITION), max_size=3)},
    "subscribe": {"channel": CHANNELS, "token": st.sampled_from(["", "minute", "forged"]),
                  "flag": st.sampled_from([0, 2]), "join_leave": st.booleans(), **POSITION},
    "unsubscribe": {"channel": CHANNELS},
    "publish": {"channel": CHANNELS, "data": JSON},
    "presence": {"channel": CHANNELS},
    "presence_stats": {"channel": CHANNELS},
    "history": {"channel": CHANNELS, "limit": st.integers(-2, 5), "reverse": st.booleans()},
    "rpc": {"method": st.sampled_from(["status", "me", "x", ""]), "data": JSON},
    "refresh": {"token": st.sampled_from(["ann-again", "bob", "expired", ""])},
    "sub_refresh": {"channel": CHANNELS, "token": st.sampled_from(["hour", "good", "expired"])},
    "send": {"data": JSON},
    "ping": {},
}  # fmt: skip
assert set(FIELDS) == set(frames._PARSERS)


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    """A command as clients send it, or with one of its parts exchanged for anything."""
    name = draw(st.sampled_from(sorted(FIELDS)))
    params: Any = draw(st.fixed_dictionaries({}, optional=FIELDS[name]))
    command: dict[str, Any] = {"id": draw(st.integers(1, 9)), name: params}
    match draw(st.sampled_from(["whole"] * 6 + ["field", "params", "id", "extra", "pong"])):
        case "field" if params:
            params[draw(st.sampled_from(sorted(params)))] = draw(JSON)
        case "params":
            command[name] = draw(JSON)
        case "id":
            command["id"] = draw(JSON)
        case "extra":
            command |= draw(st.dictionaries(st.text(max_size=6), JSON, max_size=2))
        case "pong":
            command = {}
    return command


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A frame of a few commands, whole or damaged on its way."""
    text = "\n".join(json.dumps(command) for command in draw(st.lists(commands(), max_size=4)))
    match draw(st.sampled_from(["whole"] * 4 + ["cut", "inserted", "anything"])):
        case "cut":
            return text[: draw(st.integers(0, len(text)))]
        case "inserted":
            place = draw(st.integers(0, len(text)))
            return text[:place] + draw(st.text(max_size=4)) + text[place:]
        case "anything":
            return draw(st.text(max_size=40))
    return text


@given(texts())
@example("[" * 5000)
@example('{"id":1,"publish":{"channel":"group:crew","data":' + "[" * 500 + "]" * 500 + "}}")
@example('{"id":1,"connect":{"token":"' + "\\ud800" + '"}}')
@example('{"id":1e400,"ping":{}}')
def test_a_frame_is_commands_or_a_frame_error(text: str) -> None:
    """Nothing else ever comes out of the parser, and what it writes back is one line."""
    with contextlib.suppress(FrameError):
        for command in frames.parse_frame(text):
            if isinstance(command, frames.Publish):
                assert b"\n" not in command.data
    with contextlib.suppress(FrameError):
        assert isinstance(frames.parse_connect_request(text), frames.Connect)


def answered(session: Session, effects: list[Effect]) -> list[Any]:
    """Perform what a session wants of the hub, and return the ids it answered, ``close`` among them."""
    found: list[Any] = []
    for effect in effects:
        match effect:
            case Send(line):
                assert line
                assert b"\n" not in line
                found += [value["id"] for value in [json.loads(line)] if "id" in value]
            case Refuse(command_id):
                found.append(command_id)
            case Close(code):
                assert code.reason
                found.append("close")
            case Attach():
                attachments = [Attachment(channel, START) for channel in effect.wanted]
                found += answered(session, session.on_attached(effect, attachments, 0.0))
            case ReadHistory():
                found += answered(session, session.on_history(effect.command, START, ()))
            case Follow() | Leave():
                pass
            case question:
                found += answered(session, session.on_answer(question.command.id, question.method, {}))
    return found


@given(st.lists(texts(), max_size=6), st.booleans())
def test_a_session_answers_each_command_once(received: list[str], is_connected: bool) -> None:
    """Or ends, and then nothing more comes."""
    session = make()
    if is_connected:
        answered(session, session.on_command(frames.parse_command('{"id":1,"connect":{"token":"ann"}}'), 0.0))
    for text in received:
        try:
            for command in frames.parse_frame(text):
                was_closed = session.is_closed
                found = answered(session, session.on_command(command, 0.0))
                wants_answer = not isinstance(command, frames.Message | frames.Pong)
                if was_closed:
                    assert found == []
                elif "close" in found:
                    assert session.is_closed
                else:
                    assert found == ([command.id] if wants_answer else [])  # type: ignore[union-attr]
        except FrameError:
            expected = [] if session.is_closed else ["close"]
            assert answered(session, session.on_bad_frame(FrameError("bad"))) == expected


async def _no_link(_id: str, _ttl_s: float) -> bool:
    return True


async def exchange(received: list[str]) -> None:
    hub = LocalHub()
    auth = Authenticator(SECRET, http_port=1, consume=_no_link)
    register = Connections(hub, auth, GatewaySettings())  # type: ignore[arg-type]
    transport = FakeTransport()
    connection = register.open(transport)
    try:
        await connection.on_text(json.dumps({"id": 99, "connect": {"token": TOKEN}}))
        sent = [99]
        for text in received:
            if connection.session.is_closed:
                break
            sent += ids_before_the_end(text)
            async with asyncio.timeout(5):
                await connection.on_text(text)
        if connection.session.is_closed:
            await transport.until(lambda made: made.close_code is not None)
        else:
            await transport.until(lambda made: len([line for line in made.lines if "id" in line]) >= len(sent))
            assert [line["id"] for line in transport.lines if "id" in line] == sent
    finally:
        register.close(connection)
        await register.stop()
    assert register.feed.num_channels == 0


def ids_before_the_end(text: str) -> list[int]:
    try:
        found = list(frames.parse_frame(text))
    except FrameError:
        return []
    return [command.id for command in found if not isinstance(command, frames.Message | frames.Pong)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(texts(), max_size=5))
@example(["x" * 70_000])
@example(['{"id":1,"publish":{"channel":"group:crew","data":' + "[" * 500 + "]" * 500 + "}}"])
def test_a_connection_answers_or_closes_with_a_code(received: list[str]) -> None:
    """Over the real feed, outbox and hub core; and it leaves nothing behind."""
    asyncio.run(exchange(received))
