"""Frames: what is decoded has the promised types, what is encoded is one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.publication import Priority, Publication, StreamPosition
from serve_apps import frames
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.errors import FrameError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=20,
)
METHODS = [
    "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "ping", "send", "rpc",
    "refresh", "sub_refresh",
]  # fmt: skip
FIELDS = ["channel", "token", "recover", "offset", "epoch", "since", "limit", "reverse", "subs", "flag", "type", "tf"]


def test_commands_of_one_frame_come_in_order() -> None:
    """The JavaScript SDK sends connect and its subscribes in one frame."""
    text = '{"id":1,"connect":{"token":"t"}}\n{"id":2,"subscribe":{"channel":"run:a"}}\n'

    connect, subscribe = frames.parse_frame(text)

    assert connect == frames.Connect(id=1, token="t", subs={})
    assert isinstance(subscribe, frames.Subscribe)
    assert (subscribe.id, subscribe.channel, subscribe.since) == (2, "run:a", None)


def test_a_broken_line_does_not_undo_the_ones_before_it() -> None:
    """Lines are decoded one after the other."""
    commands = frames.parse_frame('{"id":1,"connect":{}}\nnonsense')

    assert isinstance(next(commands), frames.Connect)
    with pytest.raises(FrameError):
        next(commands)


def test_recovery_positions_are_read() -> None:
    """A position counts only where `recover` asks for it."""
    text = '{"id":1,"connect":{"subs":{"noc:all":{"recover":true,"offset":7,"epoch":"e"},"user:u":{"offset":3}}}}'

    (command,) = frames.parse_frame(text)

    assert command == frames.Connect(id=1, token="", subs={"noc:all": StreamPosition("e", 7), "user:u": None})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\n \n", id="blank-lines"),
        pytest.param("nonsense", id="no-json"),
        pytest.param("[]", id="a-list"),
        pytest.param("null", id="null"),
        pytest.param("7", id="a-number"),
        pytest.param('{"id":1}', id="no-command"),
        pytest.param('{"id":1,"dance":{}}', id="unknown-command"),
        pytest.param('{"connect":{}}', id="no-id"),
        pytest.param('{"id":0,"connect":{}}', id="id-zero"),
        pytest.param('{"id":-1,"connect":{}}', id="negative-id"),
        pytest.param('{"id":true,"connect":{}}', id="boolean-id"),
        pytest.param('{"id":1.5,"connect":{}}', id="fraction-id"),
        pytest.param('{"id":4294967296,"connect":{}}', id="id-over-32-bits"),
        pytest.param('{"id":1,"connect":[]}', id="params-a-list"),
        pytest.param('{"id":1,"connect":{"token":7}}', id="token-a-number"),
        pytest.param('{"id":1,"connect":{"subs":[]}}', id="subs-a-list"),
        pytest.param('{"id":1,"connect":{"subs":{"a":1}}}', id="sub-a-number"),
        pytest.param('{"id":1,"subscribe":{"channel":{}}}', id="channel-an-object"),
        pytest.param('{"id":1,"subscribe":{"channel":"a","recover":1}}', id="recover-a-number"),
        pytest.param('{"id":1,"subscribe":{"channel":"a","recover":true,"offset":-1}}', id="negative-offset"),
        pytest.param('{"id":1,"subscribe":{"channel":"a","recover":true,"offset":1e400}}', id="infinite-offset"),
        pytest.param('{"id":1,"subscribe":{"channel":"a","recover":true,"offset":NaN}}', id="nan-offset"),
        pytest.param(
            '{"id":1,"subscribe":{"channel":"a","recover":true,"offset":18446744073709551616}}',
            id="offset-over-64-bits",
        ),
        pytest.param('{"id":1,"history":{"channel":"a","since":1}}', id="since-a-number"),
        pytest.param('{"id":1,"subscribe":' + "[" * 5000 + "]" * 5000 + "}", id="deep-list"),
        pytest.param('{"a":' * 5000 + "1" + "}" * 5000, id="deep-object"),
        pytest.param('{"id":1,"connect":{"token":"\\ud800"}}', id="lone-surrogate"),
    ],
)
def test_what_is_no_command_is_a_frame_error(text: str) -> None:
    """Anything a client should not send ends in the one error, never in another one."""
    with pytest.raises(FrameError):
        list(frames.parse_frame(text))


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_commands_or_a_frame_error(text: str) -> None:
    """No text makes the decoder fail in another way."""
    _parse(text)


@given(
    st.dictionaries(
        st.sampled_from(["id", *METHODS]),
        st.integers() | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | JSON,
        max_size=3,
    )
)
def test_near_commands_are_commands_or_a_frame_error(value: object) -> None:
    """Known keys with hostile values neither."""
    _parse(json.dumps(value))


@given(st.binary())
def test_any_bytes_as_text(data: bytes) -> None:
    """A binary frame is decoded with replacement characters first."""
    _parse(data.decode(errors="replace"))


def _parse(text: str) -> None:
    try:
        commands = list(frames.parse_frame(text))
    except FrameError:
        return
    for command in commands:
        for name in ("id", "limit"):
            assert type(getattr(command, name, 0)) is int
        for name in ("channel", "token", "method"):
            assert type(getattr(command, name, "")) is str


def test_empty_object_is_a_pong_and_send_needs_no_id() -> None:
    """The two messages without an id."""
    assert list(frames.parse_frame('{}\n{"send":{"data":1}}')) == [frames.Pong(), frames.Message()]


def test_replies_carry_their_key_and_errors_their_text() -> None:
    """Both SDKs fail on a reply without its key, and on an error without a message."""
    assert json.loads(frames.reply(3, "unsubscribe", {})) == {"id": 3, "unsubscribe": {}}
    assert json.loads(frames.error_reply(4, ErrorCode.PERMISSION_DENIED)) == {
        "id": 4,
        "error": {"code": 103, "message": "permission denied"},
    }
    assert json.loads(frames.error_reply(5, ErrorCode.INTERNAL))["error"]["temporary"] is True


def test_publication_push_embeds_the_payload_unchanged() -> None:
    """The payload is JSON already; it is not encoded again."""
    publication = Publication("run:a", 9, b'{"text":"a\\nb"}', Priority.NORMAL, 1234, "e")

    line = frames.push_publication(frames.push_prefix("run:a"), publication)

    assert b"\n" not in line
    expected = {"channel": "run:a", "pub": {"data": {"text": "a\nb"}, "offset": 9, "time": 1234}}
    assert json.loads(line) == {"push": expected}
    assert json.loads(frames.unwrap(line)) == expected


def test_ends_are_pushed_with_code_and_reason() -> None:
    """Both fields are read unguarded by an SDK."""
    unsubscribe = json.loads(frames.push_unsubscribe("run:a", UnsubscribeCode.INSUFFICIENT_STATE))
    disconnect = json.loads(frames.push_disconnect(CloseCode.SHUTDOWN))

    assert unsubscribe["push"] == {"channel": "run:a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
    assert disconnect["push"] == {"disconnect": {"code": 3001, "reason": "shutdown", "reconnect": True}}


def test_every_close_has_a_reason_that_is_no_json() -> None:
    """An empty or JSON-looking reason changes what the JavaScript SDK does."""
    for code in CloseCode:
        assert code.reason
        assert len(code.reason.encode()) <= 123
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(code.reason)
