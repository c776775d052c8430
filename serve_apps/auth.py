"""Who is calling: signed tokens, one-time sign-in links and the session cookie.

Knows nothing of what an identity may do (``authorisation.py``) and opens no connection:
whether a link was used before is asked of the function it is given.
Invariant: an identity only ever comes from a signature, by the floor's secret or by a key
that its identity provider publishes, with an expiry; a token of one kind is never accepted
in the place of another, and a key never with another algorithm than its own.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt

from realtime.channels import kind_of
from serve_apps.errors import AuthenticationError, TokenExpiredError
from serve_apps.floor_keys import key_id, usable
from serve_apps.identity_provider import (
    KeySource,
    claimed_algorithm,
    claimed_key_id,
    provided_channel_claims,
    provided_claims,
)

ALGORITHM = "HS256"
SIGNIN_TTL_S = 600.0
SESSION_TTL_S = 12 * 3600.0
MAX_TTL_S = 365 * 86400.0
COOKIE_PREFIX = "watchfloor_session_"


class Role(StrEnum):
    """What a person may do; each role may do all that the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ENGINEER = "engineer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Place in the order, lowest first."""
        return list(Role).index(self)


class TokenKind(StrEnum):
    """Where a token is accepted: a header, the sign-in link, the cookie, a subscribe command."""

    ACCESS = "access"
    SIGNIN = "signin"
    SESSION = "session"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person or service whose token was verified."""

    user_id: str
    tenant: str | None
    """None: belongs to no tenant and works floor-wide, as far as the roles go."""
    roles: frozenset[Role]
    groups: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    """Customers whose own NOC channel this identity receives."""
    expires_at: float
    """Epoch seconds."""

    def has(self, role: Role) -> bool:
        """Tell whether one of the roles is ``role`` or above it."""
        return any(own.rank >= role.rank for own in self.roles)

    @property
    def is_floor_wide(self) -> bool:
        """True for operators and above that belong to no tenant."""
        return self.tenant is None and self.has(Role.OPERATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGrant:
    """What a verified channel token says: this user may listen to this channel for a while."""

    user_id: str
    tenant: str | None
    channel: str
    expires_at: float
    """Epoch seconds."""


def issue_token(
    secret: bytes,
    *,
    sub: str,
    tenant: str | None,
    roles: Iterable[str],
    groups: Iterable[str] = (),
    clients: Iterable[str] = (),
    ttl_s: float,
    kind: TokenKind = TokenKind.ACCESS,
    now_s: float | None = None,
) -> str:
    """Return a signed token.

    Args:
        secret: the floor's key, at least 32 bytes.
        sub: user id.
        tenant: tenant the user belongs to; None for floor-wide users and services.
        roles: names of ``Role``.
        groups: groups whose channels the user receives.
        clients: customers whose NOC channel the user receives.
        ttl_s: seconds until it expires, more than 0, at most a year.
        kind: where it will be accepted.
        now_s: epoch seconds of issue; None: now.

    Raises:
        ValueError: an empty user id, an unknown role, or a life time out of range.
    """
    rights = {
        "roles": sorted(Role(role).value for role in roles),
        "groups": list(groups),
        "clients": list(clients),
    }
    return _signed(secret, kind, rights, sub=sub, tenant=tenant, ttl_s=ttl_s, now_s=now_s)


def issue_channel_token(
    secret: bytes, *, sub: str, tenant: str | None, channel: str, ttl_s: float, now_s: float | None = None
) -> str:
    """Return a token with which one user may listen to one channel.

    Args:
        secret: the floor's key, at least 32 bytes.
        sub: user id; nobody else can use the token.
        tenant: tenant of that user; it must be that of the user's own token.
        channel: the one channel.
        ttl_s: seconds until it expires, more than 0, at most a year.
        now_s: epoch seconds of issue; None: now.

    Raises:
        ValueError: an empty user id, no channel of ours, or a life time out of range.
    """
    kind_of(channel)
    return _signed(secret, TokenKind.CHANNEL, {"channel": channel}, sub=sub, tenant=tenant, ttl_s=ttl_s, now_s=now_s)


def verify_token(secret: bytes, token: str, kind: TokenKind = TokenKind.ACCESS) -> Identity:
    """Return the identity that ``token`` of this one key proves.

    Raises:
        TokenExpiredError: signed by us, but its time is over.
        AuthenticationError: not signed by us, a claim is missing or of the wrong type, or
            the token is of another kind.
    """
    return _identity(_claims((secret,), token, kind))


def issue_signin_key(
    secret: bytes, *, sub: str, tenant: str | None, roles: Iterable[str], groups: Iterable[str] = ()
) -> str:
    """Return the key of a sign-in link: valid once, and for ten minutes."""
    return issue_token(
        secret, sub=sub, tenant=tenant, roles=roles, groups=groups, ttl_s=SIGNIN_TTL_S, kind=TokenKind.SIGNIN
    )


def cookie_name(port: int) -> str:
    """Return the session cookie's name; cookies know no ports, so two floors on one host need two names."""
    return f"{COOKIE_PREFIX}{port}"


ConsumeOnce = Callable[[str, float], Awaitable[bool]]
"""``(id, ttl_s) -> True`` the first time an id is seen, False ever after (within ``ttl_s``)."""


class Authenticator:
    """Turns what a request carries into an identity, for one floor."""

    def __init__(
        self,
        *keys: bytes,
        http_port: int,
        consume: ConsumeOnce,
        provider: KeySource | None = None,
        shut_out: Container[tuple[str, str | None]] = (),
    ) -> None:
        """Prepare to verify.

        Args:
            keys: the floor's own; the first one signs, tokens of the others count until they end.
            http_port: names the cookie.
            consume: tells whether a sign-in link is used for the first time.
            provider: keys of an identity provider; None: there is none.
            shut_out: (user id, tenant) of those who may not come in, however good their token is; with the
                tenant None: of whichever tenant the token says.
        """
        if not keys:
            raise ValueError("the floor needs a key")
        self._keys = tuple(usable(key) for key in keys)
        self._consume = consume
        self._provider = provider
        self._shut_out = shut_out
        self.cookie_name = cookie_name(http_port)

    def from_token(self, token: str) -> Identity:
        """Verify a bearer token, an API key or the token of a connect command.

        Raises:
            KeysUnavailableError: the provider's keys are not known yet; the client may try again.
            AuthenticationError: see ``verify_token``.
        """
        if self._provider is not None and claimed_algorithm(token) != ALGORITHM:
            return self._admitted(_provided_identity(self._provider, token))
        return self._admitted(_identity(_claims(self._keys, token, TokenKind.ACCESS)))

    def from_channel_token(self, token: str) -> ChannelGrant:
        """Verify the token of a subscribe command.

        Raises:
            KeysUnavailableError: the provider's keys are not known yet; the client may try again.
            TokenExpiredError: it was good once.
            AuthenticationError: it is no channel token of ours or of the provider.
        """
        if self._provider is not None and claimed_algorithm(token) != ALGORITHM:
            return _grant(provided_channel_claims(self._provider, token), self._provider.settings.tenant_claim)
        return _grant(_claims(self._keys, token, TokenKind.CHANNEL), "tenant")

    def from_cookie(self, value: str) -> Identity:
        """Verify the session cookie's value.

        Raises:
            AuthenticationError: see ``verify_token``.
        """
        return self._admitted(_identity(_claims(self._keys, value, TokenKind.SESSION)))

    async def redeem(self, key: str) -> tuple[Identity, str]:
        """Exchange the key of a sign-in link for an identity and its session cookie's value.

        Raises:
            AuthenticationError: the key is not ours, too old, or was used before.
        """
        claims = _claims(self._keys, key, TokenKind.SIGNIN)
        identity = self._admitted(_identity(claims))
        # Marked before the session exists: of two simultaneous requests only one may win, and a
        # link lost to a crash in between costs one `watchfloor token`, not a second session.
        if not await self._consume(str(claims["jti"]), SIGNIN_TTL_S):
            raise AuthenticationError("this sign-in link was used before")
        session = issue_token(
            self._keys[0],
            sub=identity.user_id,
            tenant=identity.tenant,
            roles=identity.roles,
            groups=identity.groups,
            clients=identity.clients,
            ttl_s=SESSION_TTL_S,
            kind=TokenKind.SESSION,
        )
        return self.from_cookie(session), session

    def _admitted(self, identity: Identity) -> Identity:
        if any((identity.user_id, tenant) in self._shut_out for tenant in {identity.tenant, None}):
            raise AuthenticationError("this user is disabled")
        return identity


def _provided_identity(keys: KeySource, token: str) -> Identity:
    claims, settings = provided_claims(keys, token), keys.settings
    if settings.tenant_claim not in claims:
        # Left out by mistake it must not open the floor to a tenant's user.
        raise AuthenticationError(f"invalid claims: {settings.tenant_claim} is missing")
    own = {role.value for role in Role}
    return _identity(
        {
            "sub": claims["sub"],
            "exp": claims["exp"],
            "tenant": claims[settings.tenant_claim],
            "roles": [role for role in _strings(claims, settings.roles_claim) if role in own],
            "groups": list(_strings(claims, settings.groups_claim)),
        }
    )


def _grant(claims: dict[str, Any], tenant_claim: str) -> ChannelGrant:
    channel, tenant = claims.get("channel"), claims.get(tenant_claim)
    if tenant_claim not in claims or not (tenant is None or (isinstance(tenant, str) and tenant)):
        raise AuthenticationError(f"invalid claims: {tenant_claim}")
    if not claims["sub"] or not (isinstance(channel, str) and channel):
        raise AuthenticationError("invalid claims: sub or channel")
    return ChannelGrant(user_id=claims["sub"], tenant=tenant, channel=channel, expires_at=float(claims["exp"]))


def _signed(
    secret: bytes,
    kind: TokenKind,
    claims: dict[str, Any],
    *,
    sub: str,
    tenant: str | None,
    ttl_s: float,
    now_s: float | None,
) -> str:
    if not sub:
        raise ValueError("sub must not be empty")
    if not 0 < ttl_s <= MAX_TTL_S:
        raise ValueError(f"ttl_s must be above 0 and at most {MAX_TTL_S:.0f}, got {ttl_s}")
    issued_at = time.time() if now_s is None else now_s
    claims = claims | {
        "sub": sub,
        "tenant": tenant,
        "kind": kind.value,
        "iat": int(issued_at),
        "exp": issued_at + ttl_s,
        "jti": secrets.token_hex(16),
    }
    return jwt.encode(claims, usable(secret), algorithm=ALGORITHM, headers={"kid": key_id(secret)})


def _claims(keys: Sequence[bytes], token: str, kind: TokenKind) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token, _key_of(keys, token), algorithms=[ALGORITHM], options={"require": ["exp", "sub", "jti"]}
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenExpiredError from error
    # ValueError too: hostile claims (an `exp` of 1e400) pass the signature check of whoever holds the key.
    except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
        raise AuthenticationError("invalid token") from error
    if claims.get("kind", TokenKind.ACCESS) != kind or ("channel" in claims) != (kind is TokenKind.CHANNEL):
        raise AuthenticationError(f"not a token of kind {kind}")
    return claims


def _key_of(keys: Sequence[bytes], token: str) -> bytes:
    # Who signs with the floor's key by other means may name no key, or name it as it likes: that is the first.
    named = claimed_key_id(token)
    return next((key for key in keys if key_id(key) == named), keys[0])


def _identity(claims: dict[str, Any]) -> Identity:
    tenant = claims.get("tenant")
    if not claims["sub"] or not (tenant is None or (isinstance(tenant, str) and tenant)):
        raise AuthenticationError("invalid claims: sub or tenant")
    try:
        roles = frozenset(Role(role) for role in _strings(claims, "roles"))
    except ValueError as error:
        raise AuthenticationError("invalid claims: roles") from error
    return Identity(
        user_id=claims["sub"],
        tenant=tenant,
        roles=roles,
        groups=_strings(claims, "groups"),
        clients=_strings(claims, "clients"),
        expires_at=float(claims["exp"]),
    )


def _strings(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise AuthenticationError(f"invalid claims: {name}")
    return tuple(value)
