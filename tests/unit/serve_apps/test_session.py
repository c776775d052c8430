"""The session: every command, every error code and every close code, without a socket."""

import json
import random
from typing import Any

import pytest

from realtime.publication import Priority, Publication
from serve_apps import frames
from serve_apps.codes import CloseCode, ErrorCode
from serve_apps.effects import (
    Attach,
    Attachment,
    Close,
    Effect,
    Follow,
    Leave,
    ReadHistory,
    Refuse,
    Send,
)
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.session import Session
from tests.sessions import START, WALL_S, connected, decoded, identity, make, send, subscribed


def test_connect_answers_with_the_server_side_channels() -> None:
    """The identity decides the channels; the client asks for none."""
    session = make()

    (attach,) = send(session, {"id": 1, "connect": {"token": "ann"}})
    assert attach == Attach(1, {"user:ann": None, "noc:all": None}, is_connect=True)
    reply, *follows = session.on_attached(attach, [Attachment(name, START) for name in attach.wanted], 0.0)

    result = decoded(reply)["connect"]
    position = {"recoverable": True, "positioned": True, "epoch": "e", "offset": 5}
    assert decoded(reply)["id"] == 1
    assert result["client"] == "c1"
    assert result["subs"] == {"user:ann": position, "noc:all": position}
    assert (result["ping"], result["pong"], result["expires"], result["ttl"]) == (25, True, True, 3600)
    assert follows == [Follow("user:ann", START), Follow("noc:all", START)]


def test_connect_by_cookie_offers_no_refresh() -> None:
    """A page has no token to send again."""
    session = make(cookie=identity())

    (attach,) = send(session, {"id": 1, "connect": {}})
    assert isinstance(attach, Attach)
    reply = session.on_attached(attach, [Attachment(name, START) for name in attach.wanted], 0.0)[0]

    assert "expires" not in decoded(reply)["connect"]
    assert send(session, {"id": 2, "refresh": {"token": "ann"}}) == [Close(CloseCode.BAD_REQUEST)]


@pytest.mark.parametrize(
    ("command", "effects"),
    [
        pytest.param({"id": 1, "connect": {"token": "forged"}}, [Close(CloseCode.INVALID_TOKEN)], id="forged-token"),
        pytest.param({"id": 1, "connect": {}}, [Close(CloseCode.BAD_REQUEST)], id="no-identity"),
        pytest.param(
            {"id": 1, "connect": {"token": "expired"}}, [Refuse(1, ErrorCode.TOKEN_EXPIRED)], id="expired-token"
        ),
        pytest.param({"id": 1, "connect": {"token": "over"}}, [Refuse(1, ErrorCode.EXPIRED)], id="expired-now"),
        pytest.param(
            {"id": 1, "connect": {"token": "of-a-new-key"}}, [Refuse(1, ErrorCode.INTERNAL)], id="key-not-known-yet"
        ),
        pytest.param({"id": 1, "subscribe": {"channel": "run:a"}}, [Close(CloseCode.BAD_REQUEST)], id="not-connected"),
        pytest.param({"id": 1, "ping": {}}, [Close(CloseCode.BAD_REQUEST)], id="ping-before-connect"),
        pytest.param({"send": {}}, [Close(CloseCode.BAD_REQUEST)], id="send-before-connect"),
        pytest.param({}, [Close(CloseCode.BAD_REQUEST)], id="pong-before-a-ping"),
    ],
)
def test_first_command(command: dict[str, Any], effects: list[Effect]) -> None:
    """Only a connect with a proof of identity opens a session."""
    assert send(make(), command) == effects


@pytest.mark.parametrize(
    ("command", "effects"),
    [
        pytest.param({"id": 9, "connect": {"token": "ann"}}, [Close(CloseCode.BAD_REQUEST)], id="second-connect"),
        pytest.param({}, [Close(CloseCode.BAD_REQUEST)], id="pong-without-a-ping"),
        pytest.param({"id": 9, "subscribe": {}}, [Close(CloseCode.BAD_REQUEST)], id="subscribe-no-channel"),
        pytest.param({"id": 9, "unsubscribe": {}}, [Close(CloseCode.BAD_REQUEST)], id="unsubscribe-no-channel"),
        pytest.param({"id": 9, "history": {}}, [Close(CloseCode.BAD_REQUEST)], id="history-no-channel"),
        pytest.param({"id": 9, "publish": {}}, [Close(CloseCode.BAD_REQUEST)], id="publish-no-channel"),
        pytest.param({"id": 9, "refresh": {}}, [Close(CloseCode.BAD_REQUEST)], id="refresh-no-token"),
        pytest.param({"id": 9, "refresh": {"token": "forged"}}, [Close(CloseCode.INVALID_TOKEN)], id="refresh-forged"),
        pytest.param({"id": 9, "refresh": {"token": "bob"}}, [Close(CloseCode.INVALID_TOKEN)], id="refresh-other-user"),
        pytest.param(
            {"id": 9, "refresh": {"token": "ann-as-viewer"}},
            [Close(CloseCode.FORCE_RECONNECT)],
            id="refresh-other-rights",
        ),
        pytest.param({"id": 9, "refresh": {"token": "expired"}}, [Refuse(9, ErrorCode.EXPIRED)], id="refresh-expired"),
        pytest.param(
            {"id": 9, "refresh": {"token": "of-a-new-key"}}, [Refuse(9, ErrorCode.INTERNAL)], id="refresh-new-key"
        ),
        pytest.param({"id": 9, "refresh": {"token": "over"}}, [Refuse(9, ErrorCode.EXPIRED)], id="refresh-over"),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "run:" + "a" * 252}}, [Refuse(9, ErrorCode.BAD_REQUEST)], id="too-long"
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "run:a", "tf": {}}}, [Refuse(9, ErrorCode.BAD_REQUEST)], id="filter"
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "run:a", "type": 1}}, [Refuse(9, ErrorCode.NOT_AVAILABLE)], id="map-type"
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "news"}}, [Refuse(9, ErrorCode.UNKNOWN_CHANNEL)], id="no-such-kind"
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "user:bob"}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="another-user",
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "noc:all"}},
            [Refuse(9, ErrorCode.ALREADY_SUBSCRIBED)],
            id="server-side-already",
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "run:r1"}}, [Refuse(9, ErrorCode.ALREADY_SUBSCRIBED)], id="already"
        ),
        pytest.param(
            {"id": 9, "unsubscribe": {"channel": "noc:all"}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="server-side-stays",
        ),
        pytest.param(
            {"id": 9, "publish": {"channel": "run:r1", "data": 1}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="publish",
        ),
        pytest.param({"id": 9, "presence": {}}, [Close(CloseCode.BAD_REQUEST)], id="presence-no-channel"),
        pytest.param(
            {"id": 9, "presence": {"channel": "user:bob"}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="presence-denied",
        ),
        pytest.param(
            {"id": 9, "presence_stats": {"channel": "news"}}, [Refuse(9, ErrorCode.UNKNOWN_CHANNEL)], id="stats-unknown"
        ),
        pytest.param(
            {"id": 9, "presence": {"channel": "gateway:all"}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="presence-internal",
        ),
        pytest.param(
            {"id": 9, "subscribe": {"channel": "gateway:all", "token": "good"}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="subscribe-internal",
        ),
        pytest.param(
            {"id": 9, "sub_refresh": {"channel": "run:r1"}},
            [Refuse(9, ErrorCode.NOT_AVAILABLE)],
            id="sub-refresh-without-expiry",
        ),
        pytest.param(
            {"id": 9, "sub_refresh": {"channel": "run:r2"}},
            [Refuse(9, ErrorCode.PERMISSION_DENIED)],
            id="sub-refresh-not-subscribed",
        ),
        pytest.param({"id": 9, "rpc": {"method": "x"}}, [Refuse(9, ErrorCode.METHOD_NOT_FOUND)], id="rpc"),
        pytest.param({"id": 9, "rpc": {"method": "status"}}, [Refuse(9, ErrorCode.PERMISSION_DENIED)], id="rpc-denied"),
        pytest.param({"id": 9, "ping": {}}, [Refuse(9, ErrorCode.NOT_AVAILABLE)], id="legacy-ping"),
        pytest.param({"send": {"data": 1}}, [], id="send"),
        pytest.param(
            {"id": 9, "history": {"channel": "user:bob"}}, [Refuse(9, ErrorCode.PERMISSION_DENIED)], id="history-denied"
        ),
    ],
)
def test_command_in_an_open_session(command: dict[str, Any], effects: list[Effect]) -> None:
    """Each command has the one answer the protocol gives it."""
    assert send(subscribed(connected()), command) == effects


def test_nothing_follows_a_close() -> None:
    """After the end there are no effects, whatever comes."""
    session = connected()
    send(session, {})

    assert send(session, {"id": 9, "rpc": {"method": "x"}}) == []
    assert session.on_tick(1e9) == []
    assert session.on_lost("noc:all") == []
    assert session.on_close(CloseCode.SLOW) == []


def test_refused_connect_ends_the_frame() -> None:
    """The subscribes that the SDK sent with its connect are not answered, nor is a second connect."""
    session = make()
    send(session, {"id": 1, "connect": {"token": "expired"}})

    assert not session.takes_commands
    assert send(session, {"id": 2, "connect": {"token": "ann"}}) == [Close(CloseCode.BAD_REQUEST)]


def test_hub_away_at_connect_is_temporary() -> None:
    """Error 100 makes the SDK try again."""
    session = make()
    (attach,) = send(session, {"id": 1, "connect": {"token": "ann"}})
    assert isinstance(attach, Attach)

    assert session.on_attach_failed(attach) == [Refuse(1, ErrorCode.INTERNAL)]
    assert not session.takes_commands


def test_hub_away_at_subscribe_leaves_the_channel_free() -> None:
    """The SDK's next try is not refused as a second subscription."""
    session = connected()
    (attach,) = send(session, {"id": 2, "subscribe": {"channel": "run:a"}})
    assert isinstance(attach, Attach)

    assert session.on_attach_failed(attach) == [Refuse(2, ErrorCode.INTERNAL)]
    assert isinstance(send(session, {"id": 3, "subscribe": {"channel": "run:a"}})[0], Attach)


def test_recovered_subscription_answers_with_the_asked_position() -> None:
    """The SDK moves on from the position it named by handling the publications."""
    session = connected()
    (attach,) = send(session, {"id": 2, "subscribe": {"channel": "run:a", "recover": True, "offset": 3, "epoch": "e"}})
    assert isinstance(attach, Attach)
    missed = tuple(Publication("run:a", offset, b"1", Priority.NORMAL, 0, "e") for offset in (4, 5))

    reply, follow = session.on_attached(attach, [Attachment("run:a", START, missed, recovered=True)], 0.0)

    result = decoded(reply)["subscribe"]
    assert (result["was_recovering"], result["recovered"], result["offset"]) == (True, True, 3)
    assert [item["offset"] for item in result["publications"]] == [4, 5]
    assert follow == Follow("run:a", START)


def test_lost_position_starts_anew_or_is_refused_on_request() -> None:
    """Flag 2 asks for error 112 where the default is a fresh start."""
    asked = {"channel": "run:a", "recover": True, "offset": 3, "epoch": "old"}
    session = connected()
    (attach,) = send(session, {"id": 2, "subscribe": asked})
    assert isinstance(attach, Attach)
    reply, _ = session.on_attached(attach, [Attachment("run:a", START)], 0.0)
    result = decoded(reply)["subscribe"]
    assert (result["recovered"], result["offset"], "publications" in result) == (False, 5, False)

    session = connected()
    (attach,) = send(session, {"id": 2, "subscribe": asked | {"flag": 2}})
    assert isinstance(attach, Attach)
    effects = session.on_attached(attach, [Attachment("run:a", START)], 0.0)
    assert effects == [Refuse(2, ErrorCode.UNRECOVERABLE_POSITION), Leave("run:a")]


def test_unsubscribe_is_answered_even_when_there_was_nothing() -> None:
    """The JavaScript SDK takes a missing answer for a broken connection."""
    session = subscribed(connected())

    for channel in ("run:r1", "run:r1"):
        leave, reply = send(session, {"id": 3, "unsubscribe": {"channel": channel}})
        assert leave == Leave(channel)
        assert decoded(reply) == {"id": 3, "unsubscribe": {}}


def test_history_is_read_and_answered() -> None:
    """A list even when empty; 112 when the position is lost; 100 when the hub is away."""
    session = connected()
    (effect,) = send(session, {"id": 4, "history": {"channel": "run:a", "limit": -1}})
    assert isinstance(effect, ReadHistory)

    (reply,) = session.on_history(effect.command, START, ())

    assert decoded(reply) == {"id": 4, "history": {"publications": [], "epoch": "e", "offset": 5}}
    assert session.on_history(effect.command, START, None) == [Refuse(4, ErrorCode.UNRECOVERABLE_POSITION)]
    assert session.on_history_failed(effect.command) == [Refuse(4, ErrorCode.INTERNAL)]


def test_refresh_moves_the_expiry() -> None:
    """A refreshed session outlives its first token."""
    session = connected("soon")

    (reply,) = send(session, {"id": 5, "refresh": {"token": "ann-again"}}, now_s=5.0)

    assert decoded(reply)["refresh"] == {"client": "c1", "version": "watchfloor", "expires": True, "ttl": 7200}
    assert session.on_tick(10 + 25) == [Send(frames.PING)]


def test_lost_publications_end_a_subscription_or_the_connection() -> None:
    """2500 makes the SDK recover the channel; for a server-side one only 3010 does."""
    session = subscribed(connected())

    leave, push = session.on_lost("run:r1")
    assert leave == Leave("run:r1")
    assert decoded(push)["push"]["unsubscribe"]["code"] == 2500
    assert session.on_lost("run:r1") == []
    assert session.on_lost("noc:all") == [Close(CloseCode.INSUFFICIENT_STATE)]


def test_128_channels_are_the_limit() -> None:
    """One more client-side channel is refused; one more server-side channel ends the connect."""
    session = connected(settings=GatewaySettings(max_channels=3))
    subscribed(session)
    assert send(session, {"id": 9, "subscribe": {"channel": "run:r2"}}) == [Refuse(9, ErrorCode.LIMIT_EXCEEDED)]

    session = make(settings=GatewaySettings(max_channels=1))
    assert send(session, {"id": 1, "connect": {"token": "ann"}}) == [Close(CloseCode.CHANNEL_LIMIT)]


def test_refused_admission_is_the_reason_of_the_close() -> None:
    """Whoever counts connections names the code."""
    session = make(admit=lambda _: CloseCode.CONNECTION_LIMIT)

    assert send(session, {"id": 1, "connect": {"token": "ann"}}) == [Close(CloseCode.CONNECTION_LIMIT)]
    assert session.identity is None


def test_flood_of_commands_is_refused_and_then_ended() -> None:
    """111 first, which is temporary; 3013 for who goes on."""
    session = connected(settings=GatewaySettings(commands_per_s=1, command_burst=2))
    effects = [send(session, {"id": 9, "rpc": {"method": "x"}})[0] for _ in range(4)]

    assert effects == [
        Refuse(9, ErrorCode.METHOD_NOT_FOUND),
        Refuse(9, ErrorCode.METHOD_NOT_FOUND),
        Refuse(9, ErrorCode.TOO_MANY_REQUESTS),
        Close(CloseCode.TOO_MANY_REQUESTS),
    ]


def test_stale_socket_is_closed() -> None:
    """Without a successful connect there are ten seconds, refused or not."""
    session = make()
    assert session.on_tick(9.9) == []
    assert session.on_tick(10.0) == [Close(CloseCode.STALE)]

    session = make()
    send(session, {"id": 1, "connect": {"token": "expired"}})
    assert session.on_tick(10.0) == [Close(CloseCode.STALE)]


def test_first_ping_comes_at_a_random_moment_then_regularly() -> None:
    """Within the second half of the interval at first."""
    session = connected()

    due = next(now for now in range(26) if session.on_tick(float(now)))
    assert 12 <= due <= 25
    session.credit.on_ping(float(due))
    assert send(session, {}, now_s=due + 0.2) == []
    assert session.round_trip_s == pytest.approx(0.2)
    assert session.on_tick(due + 24.9) == []
    assert session.on_tick(due + 25.1) == [Send(frames.PING)]


def test_silent_client_is_gone_and_a_loaded_one_is_slow() -> None:
    """3012 after eight seconds without data, 3008 after ten with data unacknowledged."""
    silent = connected()
    silent.credit.on_ping(100.0)
    assert silent.on_tick(107.9) != [Close(CloseCode.NO_PONG)]
    assert silent.on_tick(108.0) == [Close(CloseCode.NO_PONG)]

    slow = connected()
    slow.credit.on_sent(200_000)
    slow.credit.on_ping(100.0)
    assert slow.on_tick(109.9) != [Close(CloseCode.SLOW)]
    assert slow.on_tick(110.0) == [Close(CloseCode.SLOW)]


def test_expired_session_has_a_grace() -> None:
    """Twenty-five seconds for a refresh, then 3005."""
    session = connected("soon")
    assert session.on_tick(10 + 24.9) == [Send(frames.PING)]
    assert session.on_tick(10 + 25.0) == [Close(CloseCode.EXPIRED)]


def test_old_socket_is_renewed_at_a_random_age() -> None:
    """Between thirty and fifty minutes, so that HAProxy's hard stop never meets it."""
    ages = set()
    for seed in range(20):
        session = connected("ann-again")
        session._rng.seed(seed)
        session = Session(
            "c", GatewaySettings(), session._rules, now_s=0.0, rng=random.Random(seed), wall_s=lambda: WALL_S
        )
        (attach,) = send(session, {"id": 1, "connect": {"token": "ann-again"}})
        assert isinstance(attach, Attach)
        session.on_attached(attach, [Attachment(name, START) for name in attach.wanted], 0.0)
        age = next(now for now in range(0, 3001, 10) if session.on_tick(float(now)) == [Close(CloseCode.SHUTDOWN)])
        ages.add(age)
    assert len(ages) > 10
    assert all(1800 <= age <= 3010 for age in ages)


class TestUnidirectional:
    """A transport that only listens."""

    def test_connect_is_a_push(self) -> None:
        """There is no command id to answer to."""
        session = make(unidirectional=True)
        (attach,) = session.on_command(frames.parse_connect_request('{"token":"ann"}'), 0.0)
        assert isinstance(attach, Attach)

        push = session.on_attached(attach, [Attachment(name, START) for name in attach.wanted], 0.0)[0]

        result = decoded(push)["push"]["connect"]
        assert (result["client"], result["session"], result["pong"]) == ("c1", "c1", False)
        assert "expires" not in result

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            pytest.param("expired", CloseCode.INVALID_TOKEN, id="expired"),
            pytest.param("over", CloseCode.EXPIRED, id="over"),
            pytest.param("forged", CloseCode.INVALID_TOKEN, id="forged"),
            pytest.param("", CloseCode.BAD_REQUEST, id="none"),
        ],
    )
    def test_a_refused_connect_is_the_end(self, token: str, code: CloseCode) -> None:
        """Errors become closes."""
        session = make(unidirectional=True)
        request = frames.parse_connect_request(json.dumps({"token": token}))
        assert session.on_command(request, 0.0) == [Close(code)]

    def test_a_spent_budget_forces_a_reconnect(self) -> None:
        """What cannot be acknowledged is bounded."""
        session = make(unidirectional=True, settings=GatewaySettings(uni_budget_bytes=1000))
        (attach,) = session.on_command(frames.parse_connect_request('{"token":"ann"}'), 0.0)
        assert isinstance(attach, Attach)
        session.on_attached(attach, [Attachment(name, START) for name in attach.wanted], 0.0)
        session.credit.on_sent(1000)

        assert session.on_tick(1.0) == [Close(CloseCode.FORCE_RECONNECT)]
        assert send(make(unidirectional=True), {}) == [Close(CloseCode.BAD_REQUEST)]
