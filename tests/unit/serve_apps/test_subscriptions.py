"""Commands about channels: tokens, presence, publishing, what the server changes, and the options that decide."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from realtime.channels import ChannelKind
from realtime.publication import StreamPosition
from serve_apps import frames
from serve_apps.auth import Role
from serve_apps.codes import CloseCode, ErrorCode
from serve_apps.effects import (
    Attach,
    Attachment,
    Call,
    Effect,
    Follow,
    Leave,
    Publish,
    ReadHistory,
    ReadPresence,
    Refuse,
)
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.namespaces import NAMESPACES, Namespace, namespace_of
from serve_apps.session import Session
from tests.sessions import START, WALL_S, connected, decoded, identity, make, rules, send, subscribed

CHANNELS = {
    ChannelKind.NOC: "noc:all",
    ChannelKind.USER: "user:ann",
    ChannelKind.TENANT: "tenant:t1",
    ChannelKind.GROUP: "group:crew",
    ChannelKind.RUN: "run:r1",
    ChannelKind.DEVICE: "device:t1/pump",
    ChannelKind.GATEWAY: "gateway:all",
}
"""One channel of each kind, which ``listener`` may listen to."""


def listener(role: Role = Role.OPERATOR, table: Mapping[ChannelKind, Namespace] = NAMESPACES) -> Session:
    """A session that may listen everywhere, so that the options alone decide."""
    return connected(
        rules=rules(
            server_channels=lambda _: ("user:ann",),
            may_subscribe=lambda _identity, _channel: True,
            namespace_of=lambda channel: table[ChannelKind(channel.partition(":")[0])],
        ),
        cookie=identity(role=role),
        token="",
    )


def only(option: str, value: Any) -> dict[ChannelKind, Namespace]:
    return {kind: Namespace(**{option: value}) for kind in ChannelKind}


def test_every_kind_has_its_options() -> None:
    """And an example here, so that the walks below leave none out."""
    assert set(NAMESPACES) == set(CHANNELS) == set(ChannelKind)
    assert all(namespace_of(channel) is NAMESPACES[kind] for kind, channel in CHANNELS.items())


@pytest.mark.parametrize("kind", list(ChannelKind))
class TestTheTableDecides:
    """Every kind, by what its row says."""

    def test_internal_channels_are_nobodys(self, kind: ChannelKind) -> None:
        """Neither listened to, nor looked into, nor written to."""
        denied = [Refuse(9, ErrorCode.PERMISSION_DENIED)]
        for method, more in (("subscribe", {}), ("history", {}), ("presence", {}), ("publish", {"data": 1})):
            found = send(listener(Role.ADMIN), {"id": 9, method: {"channel": CHANNELS[kind], **more}})
            if NAMESPACES[kind].is_internal:
                assert found == denied, method

    def test_publish(self, kind: ChannelKind) -> None:
        """From its role on, and nobody where there is none."""
        namespace = NAMESPACES[kind]
        for role in Role:
            (effect,) = send(listener(role), {"id": 9, "publish": {"channel": CHANNELS[kind], "data": {"a": 1}}})
            may = namespace.publish_role is not None and role.rank >= namespace.publish_role.rank
            if may:
                assert isinstance(effect, Publish)
                assert effect.command.data == b'{"a":1}'
                assert json.loads(effect.info) == {"user": "ann", "client": "c1"}
            else:
                assert effect == Refuse(9, ErrorCode.PERMISSION_DENIED)

    def test_presence_and_its_numbers(self, kind: ChannelKind) -> None:
        """108 where nobody is counted."""
        namespace = NAMESPACES[kind]
        if namespace.is_internal:
            return
        for method, limit in (("presence", namespace.presence_limit), ("presence_stats", 0)):
            (effect,) = send(listener(), {"id": 9, method: {"channel": CHANNELS[kind]}})
            if namespace.presence:
                assert isinstance(effect, ReadPresence)
                assert (effect.method, effect.limit) == (method, limit)
            else:
                assert effect == Refuse(9, ErrorCode.NOT_AVAILABLE)

    def test_joins_are_told_to_who_asked(self, kind: ChannelKind) -> None:
        """A server-side subscription always asks."""
        channel = CHANNELS[kind]
        if NAMESPACES[kind].is_internal or kind is ChannelKind.USER:  # subscribed to by the server already
            assert listener().hears_members("user:ann") is NAMESPACES[ChannelKind.USER].join_leave
            return
        for asked in (True, False):
            session = subscribed(listener(), channel, join_leave=asked)
            assert session.hears_members(channel) is (asked and NAMESPACES[kind].join_leave)
        session = listener()
        (attach,) = session.on_server_subscribe(channel)
        assert isinstance(attach, Attach)
        assert session.hears_members(channel) is NAMESPACES[kind].join_leave


def test_an_option_that_is_off_turns_its_command_off() -> None:
    """Whatever the kind."""
    run = {"channel": "run:r1"}
    assert send(listener(table=only("history", False)), {"id": 9, "history": run}) == [
        Refuse(9, ErrorCode.NOT_AVAILABLE)
    ]
    assert send(listener(table=only("presence", False)), {"id": 9, "presence": run}) == [
        Refuse(9, ErrorCode.NOT_AVAILABLE)
    ]
    (effect,) = send(listener(), {"id": 9, "history": run})
    assert isinstance(effect, ReadHistory)


def test_without_recovery_a_position_is_not_gone_back_to() -> None:
    """And the SDK is told not to ask."""
    session = listener(table=only("recovery", False))
    asked = {"channel": "run:r1", "recover": True, "offset": 3, "epoch": "e"}
    (attach,) = send(session, {"id": 9, "subscribe": asked})
    assert isinstance(attach, Attach)
    assert attach.wanted == {"run:r1": None}

    reply = session.on_attached(attach, [Attachment("run:r1", START)], 0.0)[0]

    assert decoded(reply)["subscribe"]["recoverable"] is False


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param({"channel": "group:crew"}, ErrorCode.BAD_REQUEST, id="no-data"),
        pytest.param({"channel": "group:crew", "data": "x" * 16_384}, ErrorCode.LIMIT_EXCEEDED, id="too-large"),
        pytest.param({"channel": "crew", "data": 1}, ErrorCode.UNKNOWN_CHANNEL, id="no-such-kind"),
    ],
)
def test_a_publish_that_cannot_be(command: dict[str, Any], code: ErrorCode) -> None:
    """107 without a payload, 106 for one that is too large."""
    assert send(listener(), {"id": 9, "publish": command}) == [Refuse(9, code)]


def test_publishing_needs_the_right_to_listen() -> None:
    """Whatever the role."""
    session = connected()
    assert send(session, {"id": 9, "publish": {"channel": "group:crew", "data": 1}}) == [
        Refuse(9, ErrorCode.PERMISSION_DENIED)
    ]


def test_null_is_a_payload() -> None:
    """JSON's, like any other."""
    (effect,) = send(listener(), {"id": 9, "publish": {"channel": "group:crew", "data": None}})
    assert isinstance(effect, Publish)
    assert effect.command.data == b"null"


def test_answers_reach_the_command() -> None:
    """Under its own key; an error has its code; nothing after the end."""
    session = listener()
    (reply,) = session.on_answer(9, "presence_stats", {"num_clients": 1, "num_users": 1})
    assert decoded(reply) == {"id": 9, "presence_stats": {"num_clients": 1, "num_users": 1}}
    assert session.on_answer(9, "publish", ErrorCode.INTERNAL) == [Refuse(9, ErrorCode.INTERNAL)]
    session.on_close(CloseCode.SHUTDOWN)
    assert session.on_answer(9, "publish", {}) == []


def test_rpc_is_called_by_its_role() -> None:
    """104 for what is no method, 103 for whose it is not."""
    (effect,) = send(connected(), {"id": 9, "rpc": {"method": "me", "data": [1]}})
    assert isinstance(effect, Call)
    assert (effect.command.method, effect.command.data) == ("me", [1])
    assert send(connected(), {"id": 9, "rpc": {"method": "status"}}) == [Refuse(9, ErrorCode.PERMISSION_DENIED)]
    assert send(connected(), {"id": 9, "rpc": {}}) == [Refuse(9, ErrorCode.METHOD_NOT_FOUND)]


class TestChannelTokens:
    """A subscription that ends unless its token is renewed."""

    def subscribed(self, token: str) -> tuple[Session, dict[str, Any]]:
        session = connected()
        (attach,) = send(session, {"id": 2, "subscribe": {"channel": "run:r1", "token": token}})
        assert isinstance(attach, Attach)
        reply, _follow = session.on_attached(attach, [Attachment("run:r1", START)], 0.0)
        return session, decoded(reply)["subscribe"]

    def test_expiry_is_said(self) -> None:
        """Only where there is one."""
        assert self.subscribed("minute")[1].items() >= {"expires": True, "ttl": 60}.items()
        assert "expires" not in self.subscribed("good")[1]

    def test_a_token_opens_a_channel_that_the_identity_does_not(self) -> None:
        """That is what it is for."""
        (attach,) = send(connected(), {"id": 2, "subscribe": {"channel": "group:other", "token": "minute"}})
        assert isinstance(attach, Attach)

    def test_who_listens_by_a_token_is_a_listener(self) -> None:
        """With the history and the members that the identity alone would not see; until it leaves."""
        session = subscribed(connected(), "group:other", token="minute")
        history = {"id": 3, "history": {"channel": "group:other"}}
        presence = {"id": 3, "presence": {"channel": "group:other"}}
        publish = {"id": 3, "publish": {"channel": "group:other", "data": 1}}
        kinds = [type(send(session, command)[0]) for command in (history, presence, publish)]
        assert kinds == [ReadHistory, ReadPresence, Publish]
        send(session, {"id": 4, "unsubscribe": {"channel": "group:other"}})
        assert send(session, history) == [Refuse(3, ErrorCode.PERMISSION_DENIED)]

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            pytest.param("expired", ErrorCode.TOKEN_EXPIRED, id="expired"),
            pytest.param("forged", ErrorCode.PERMISSION_DENIED, id="forged"),
            pytest.param("of-another", ErrorCode.PERMISSION_DENIED, id="of-another-channel"),
        ],
    )
    def test_a_refused_token(self, token: str, code: ErrorCode) -> None:
        """109 makes the SDK fetch another one, 103 is final; the channel stays free."""
        session = connected()
        command = {"id": 2, "subscribe": {"channel": "run:r1", "token": token}}
        assert send(session, command) == send(session, command) == [Refuse(2, code)]

    def test_a_renewed_subscription_goes_on(self) -> None:
        """Beyond the end of its first token."""
        session, _ = self.subscribed("minute")
        (reply,) = send(session, {"id": 3, "sub_refresh": {"channel": "run:r1", "token": "hour"}}, now_s=50.0)
        assert decoded(reply) == {"id": 3, "sub_refresh": {"expires": True, "ttl": 3600}}
        assert "run:r1" in session.channels
        assert not [effect for effect in session.on_tick(90.0) if isinstance(effect, Leave)]

    def test_a_token_without_end_ends_the_worry(self) -> None:
        """Nothing is left to refresh."""
        session, _ = self.subscribed("minute")
        (reply,) = send(session, {"id": 3, "sub_refresh": {"channel": "run:r1", "token": "good"}})
        assert decoded(reply) == {"id": 3, "sub_refresh": {}}
        command = {"id": 4, "sub_refresh": {"channel": "run:r1", "token": "hour"}}
        assert send(session, command) == [Refuse(4, ErrorCode.NOT_AVAILABLE)]

    @pytest.mark.parametrize(
        ("token", "code"), [("expired", ErrorCode.EXPIRED), ("forged", ErrorCode.PERMISSION_DENIED)]
    )
    def test_a_refused_renewal_leaves_the_time_there_was(self, token: str, code: ErrorCode) -> None:
        """Until its end and the grace."""
        session, _ = self.subscribed("minute")
        assert send(session, {"id": 3, "sub_refresh": {"channel": "run:r1", "token": token}}) == [Refuse(3, code)]
        assert [effect for effect in session.on_tick(84.9) if isinstance(effect, Leave)] == []

    def test_an_expired_subscription_ends_with_2501(self) -> None:
        """Twenty-five seconds late; the SDK then subscribes with a new token."""
        session, _ = self.subscribed("minute")
        leave, push, *_ = session.on_tick(85.0)
        assert leave == Leave("run:r1")
        assert decoded(push)["push"]["unsubscribe"] == {"code": 2501, "reason": "subscription expired"}
        assert "run:r1" not in session.channels

    def test_a_subscription_that_was_left_expires_no_more(self) -> None:
        """Its end is forgotten with it."""
        session, _ = self.subscribed("minute")
        send(session, {"id": 3, "unsubscribe": {"channel": "run:r1"}})
        assert not [effect for effect in session.on_tick(90.0) if isinstance(effect, Leave)]


class TestServerSide:
    """What a service does to a client's subscriptions."""

    def test_a_pushed_subscription(self) -> None:
        """The client hears of it before its publications."""
        session = connected()
        (attach,) = session.on_server_subscribe("run:r1")
        assert attach == Attach(0, {"run:r1": None}, is_connect=False)
        push, follow = session.on_attached(attach, [Attachment("run:r1", START)], 0.0)
        assert decoded(push)["push"]["channel"] == "run:r1"
        assert decoded(push)["push"]["subscribe"]["offset"] == 5
        assert follow == Follow("run:r1", START)

    @pytest.mark.parametrize("channel", ["user:bob", "noc:all", "gateway:all"])
    def test_nobody_is_subscribed_to_what_they_may_not_hear_or_hear_already(self, channel: str) -> None:
        """Not even by a service."""
        assert connected().on_server_subscribe(channel) == []

    def test_the_limit_of_channels_holds(self) -> None:
        """For services too."""
        assert connected(settings=GatewaySettings(max_channels=2)).on_server_subscribe("run:r1") == []

    def test_a_hub_that_is_away_leaves_no_trace(self) -> None:
        """Nobody waits for an answer."""
        session = connected()
        (attach,) = session.on_server_subscribe("run:r1")
        assert isinstance(attach, Attach)
        assert session.on_attach_failed(attach) == []
        assert "run:r1" not in session.channels
        assert session.is_open

    def test_an_ended_subscription(self) -> None:
        """2000 is final, for either kind; a second end is nothing."""
        session = subscribed(connected())
        for channel in ("run:r1", "noc:all"):
            leave, push = session.on_server_unsubscribe(channel)
            assert leave == Leave(channel)
            assert decoded(push)["push"]["unsubscribe"] == {"code": 2000, "reason": "server unsubscribe"}
            assert session.on_server_unsubscribe(channel) == []

    def test_ended_while_it_was_being_granted(self) -> None:
        """The command still has its one answer, and nothing follows."""
        session = connected()
        (attach,) = send(session, {"id": 2, "subscribe": {"channel": "run:r1"}})
        assert isinstance(attach, Attach)
        session.on_server_unsubscribe("run:r1")
        assert session.on_attached(attach, [Attachment("run:r1", START)], 0.0) == [
            Refuse(2, ErrorCode.PERMISSION_DENIED)
        ]

    def test_nothing_happens_to_who_is_not_connected(self) -> None:
        """Or not any more."""
        session = make()
        assert (session.on_server_subscribe("run:r1"), session.on_server_unsubscribe("run:r1")) == ([], [])


class TestNamedInConnect:
    """Channels that a connect command names."""

    def attach(self, subs: dict[str, Any], **options: Any) -> Effect:
        (effect,) = send(make(**options), {"id": 1, "connect": {"token": "ann", "subs": subs}})
        return effect

    def test_what_the_client_may_ask_for_is_subscribed_to(self) -> None:
        """From its position, or from now on; what it may not is left out."""
        attach = self.attach(
            {
                "run:r1": {"recover": True, "offset": 3, "epoch": "e"},
                "run:r2": {},
                "user:bob": {},
                "nonsense": {"recover": True},
                "gateway:all": {},
            }
        )
        assert isinstance(attach, Attach)
        assert attach.wanted == {
            "user:ann": None, "noc:all": None, "run:r1": StreamPosition("e", 3), "run:r2": None,
        }  # fmt: skip

    def test_a_unidirectional_client_names_its_channels_so(self) -> None:
        """It can send no subscribe."""
        session = make(unidirectional=True)
        request = frames.parse_connect_request('{"token":"ann","subs":{"run:r1":{}}}')
        (attach,) = session.on_command(request, 0.0)
        assert isinstance(attach, Attach)
        assert "run:r1" in attach.wanted

    def test_too_many_are_cut(self) -> None:
        """The server's own come first; the connection stays."""
        attach = self.attach({f"run:r{number}": {} for number in range(9)}, settings=GatewaySettings(max_channels=4))
        assert isinstance(attach, Attach)
        assert list(attach.wanted) == ["user:ann", "noc:all", "run:r0", "run:r1"]


def test_a_name_that_no_channel_can_have_is_left_out() -> None:
    """Another provider's user ids and groups: their owner still connects."""
    odd = rules(server_channels=lambda _: ("user:auth0|7", "group:Night shift", "group:crew"))
    (attach,) = send(make(rules=odd), {"id": 1, "connect": {"token": "ann"}})
    assert isinstance(attach, Attach)
    assert attach.wanted == {"group:crew": None}


def test_native_pings_leave_the_stream_to_publications() -> None:
    """No ping is announced and none is sent; a pong is then out of place."""
    session = make(native_pings=True)
    (attach,) = send(session, {"id": 1, "connect": {"token": "ann"}})
    assert isinstance(attach, Attach)
    reply = session.on_attached(attach, [Attachment(name, START) for name in attach.wanted], 0.0)[0]

    assert {"ping", "pong"} & set(decoded(reply)["connect"]) == set()
    assert session.on_tick(30.0) == []
    assert WALL_S
