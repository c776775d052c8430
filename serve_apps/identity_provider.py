"""Tokens that an identity provider signed: which are taken, and what they claim.

Fetches no keys (``provider_keys_http.py``) and decides no rights. Invariant: a token is
verified with the algorithm that its key was published for and no other (RFC 8725, section
3.1), and names the floor as its audience.
"""

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import jwt

from serve_apps.errors import AuthenticationError, TokenExpiredError

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
MAX_TOKEN_CHARS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProviderSettings:
    """An identity provider whose tokens the floor takes beside its own."""

    jwks_url: str = ""
    """Address of its public keys (RFC 7517), ``https://``; empty: only tokens of the floor's own key count."""
    issuer: str = ""
    """What ``iss`` must be; empty: not looked at."""
    audience: str = ""
    """What ``aud`` must name; required with a JWKS address, or tokens for other services would count here."""
    channel_audience: str = ""
    """What ``aud`` of its channel tokens must name, and nothing that ``audience`` is; empty: it issues none."""
    roles_claim: str = "roles"
    """Claim with the list of roles; names that are no role of ours are passed over."""
    tenant_claim: str = "tenant"
    """Claim with the tenant; it must be there, and null to work floor-wide."""
    groups_claim: str = "groups"
    """Claim with the list of groups."""
    refresh_s: float = 300.0
    """Seconds between two fetches of the keys."""
    min_refresh_s: float = 10.0
    """Least seconds between two fetches when a token names a key that is not known yet."""
    timeout_s: float = 5.0
    """Seconds that one fetch may take."""

    def __post_init__(self) -> None:
        if not self.jwks_url:
            return
        address = urlsplit(self.jwks_url)
        is_local = address.hostname in {"127.0.0.1", "localhost", "::1"}
        if address.scheme != "https" and not (address.scheme == "http" and is_local):
            raise ValueError(f"jwks_url must begin with https://, got {self.jwks_url!r}")
        if not self.audience:
            raise ValueError("audience must be set together with jwks_url")
        if self.channel_audience == self.audience:
            raise ValueError("channel_audience must differ from audience, or one token could pass for the other")
        if not 0 < self.min_refresh_s <= self.refresh_s:
            raise ValueError(f"min_refresh_s must be above 0 and at most refresh_s, got {self.min_refresh_s}")


class KeySource(Protocol):
    """Where the provider's public keys come from.

    Guarantee: ``find`` returns at once.
    """

    settings: IdentityProviderSettings

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """Return the key that a token names.

        Raises:
            KeysUnavailableError: it may be known in a moment.
            AuthenticationError: no such key, or not for this algorithm.
        """
        ...


def claimed_algorithm(token: str) -> str:
    """Return what a token says it is signed with: tells only whom to ask for the key.

    Raises:
        AuthenticationError: it is no token.
    """
    return str(_header(token).get("alg"))


def claimed_key_id(token: str) -> str | None:
    """Return which key a token says it is signed with; None: it names none.

    Raises:
        AuthenticationError: it is no token.
    """
    return _header(token).get("kid")


def provided_claims(keys: KeySource, token: str) -> dict[str, Any]:
    """Return the verified claims of a provider's token.

    Raises:
        TokenExpiredError: it was good once.
        AuthenticationError: see ``KeySource.find``; or its signature, audience, issuer or time is
            wrong; or it is a channel token.
    """
    claims = _verified(keys, token, keys.settings.audience)
    if "channel" in claims:
        raise AuthenticationError("a channel token proves nobody's identity")
    return claims


def provided_channel_claims(keys: KeySource, token: str) -> dict[str, Any]:
    """Return the verified claims of a provider's channel token.

    Raises:
        TokenExpiredError: it was good once.
        AuthenticationError: as for ``provided_claims``; or the provider issues no channel tokens.
    """
    if not keys.settings.channel_audience:
        raise AuthenticationError("the identity provider issues no channel tokens here")
    return _verified(keys, token, keys.settings.channel_audience)


def _verified(keys: KeySource, token: str, audience: str) -> dict[str, Any]:
    header, settings = _header(token), keys.settings
    key = keys.find(header.get("kid"), str(header.get("alg")))
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm_name],
            audience=audience,
            issuer=settings.issuer or None,
            options={"require": ["exp", "sub", "aud", *(["iss"] if settings.issuer else [])]},
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenExpiredError from error
    except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
        raise AuthenticationError("invalid token") from error
    return claims


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_CHARS:
        raise AuthenticationError("token too long")
    try:
        return jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError) as error:
        raise AuthenticationError("invalid token") from error
