"""A session without a socket, in the states that tests begin from."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from realtime.publication import StreamPosition
from serve_apps import frames
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import may_subscribe, server_channels
from serve_apps.codes import CloseCode
from serve_apps.effects import Attach, Attachment, Effect, Send
from serve_apps.errors import AuthenticationError, KeysUnavailableError, NotAllowedError, TokenExpiredError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.session import Session
from serve_apps.subscriptions import Rules

WALL_S = 1_700_000_000.0
START = StreamPosition("e", 5)


def identity(
    user_id: str = "ann", *, tenant: str | None = None, role: Role = Role.OPERATOR, ttl_s: float = 3600
) -> Identity:
    return Identity(user_id=user_id, tenant=tenant, roles=frozenset({role}), expires_at=WALL_S + ttl_s)


TOKENS: dict[str, Identity] = {
    "ann": identity(),
    "ann-again": identity(ttl_s=7200),
    "ann-as-viewer": identity(role=Role.VIEWER),
    "bob": identity("bob"),
    "soon": identity(ttl_s=10),
    "over": identity(ttl_s=-1),
}


def authenticate(token: str) -> Identity:
    if token == "expired":
        raise TokenExpiredError
    if token == "of-a-new-key":
        raise KeysUnavailableError
    if token not in TOKENS:
        raise AuthenticationError("invalid token")
    return TOKENS[token]


def authorise(identity: Identity, channel: str, token: str) -> float | None:
    if token == "expired":
        raise TokenExpiredError
    if token == "of-another":
        raise NotAllowedError("of another channel")
    if token == "forged":
        raise AuthenticationError("invalid token")
    return {"good": None, "minute": WALL_S + 60, "hour": WALL_S + 3600}[token]


def rules(**other: Any) -> Rules:
    """Return the floor's rules over the tokens above; ``other`` replaces some of them."""
    usual = {
        "authenticate": authenticate,
        "server_channels": server_channels,
        "may_subscribe": may_subscribe,
        "admit": lambda _: None,
        "authorise_subscription": authorise,
        "rpc": {"status": Role.ENGINEER, "me": Role.VIEWER},
    }
    return Rules(**(usual | other))


RULES = rules()


def make(
    *,
    settings: GatewaySettings | None = None,
    cookie: Identity | None = None,
    unidirectional: bool = False,
    native_pings: bool = False,
    admit: Callable[[Identity], CloseCode | None] = lambda _: None,
    rules: Rules | None = None,
) -> Session:
    """Return a session that nothing has happened to."""
    return Session(
        "c1",
        settings or GatewaySettings(),
        replace(rules or RULES, admit=admit),
        now_s=0.0,
        cookie_identity=cookie,
        unidirectional=unidirectional,
        native_pings=native_pings,
        rng=random.Random(1),
        wall_s=lambda: WALL_S,
    )


def send(session: Session, command: dict[str, Any], now_s: float = 0.0) -> list[Effect]:
    return session.on_command(frames.parse_command(json.dumps(command)), now_s)


def connected(token: str = "ann", **options: Any) -> Session:
    session = make(**options)
    (attach,) = send(session, {"id": 1, "connect": {"token": token}})
    assert isinstance(attach, Attach)
    session.on_attached(attach, [Attachment(channel, START) for channel in attach.wanted], 0.0)
    assert session.is_open
    return session


def subscribed(session: Session, channel: str = "run:r1", **more: Any) -> Session:
    (attach,) = send(session, {"id": 2, "subscribe": {"channel": channel, **more}})
    assert isinstance(attach, Attach)
    session.on_attached(attach, [Attachment(channel, START)], 0.0)
    return session


def decoded(effect: Effect) -> Any:
    assert isinstance(effect, Send)
    return json.loads(effect.line)
