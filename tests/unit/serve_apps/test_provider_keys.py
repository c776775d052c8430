"""Tokens of an identity provider: real keys of every kind, from a real HTTP server, rotated."""

import base64
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from serve_apps.auth import Authenticator, Role, issue_channel_token, issue_token
from serve_apps.errors import AuthenticationError, KeysUnavailableError, TokenExpiredError
from serve_apps.identity_provider import IdentityProviderSettings
from serve_apps.provider_keys_http import MAX_DOCUMENT_BYTES, ProviderKeys

SECRET = b"s" * 32
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
CLAIMS = {"sub": "ann", "aud": "floor", "iss": "https://id.example", "roles": ["operator"], "tenant": "t1"}


def published(algorithm: str, key_id: str, private: Any | None = None) -> dict[str, Any]:
    """A key as the provider publishes it."""
    maker: Any = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}[algorithm]
    key = maker.to_jwk((private or KEYS[algorithm]).public_key(), as_dict=True)
    return {**key, "kid": key_id, "alg": algorithm, "use": "sig"}


def token(algorithm: str = "RS256", key_id: str = "k1", private: Any | None = None, **claims: Any) -> str:
    body = CLAIMS | {"exp": time.time() + 60} | claims
    body = {name: value for name, value in body.items() if value is not ...}
    return jwt.encode(body, private or KEYS[algorithm], algorithm, headers={"kid": key_id})


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


class Provider:
    """An HTTP server with a JWKS document."""

    def __init__(self) -> None:
        self.document = b'{"keys": []}'
        self.status = 200
        self.num_requests = 0
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.num_requests += 1
                self.send_response(provider.status)
                self.end_headers()
                self.wfile.write(provider.document)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks"

    def publish(self, *keys: dict[str, Any]) -> None:
        self.document = json.dumps({"keys": keys}).encode()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make(provider: Provider, clock: Clock | None = None, **settings: Any) -> tuple[Authenticator, ProviderKeys]:
    given = {"jwks_url": provider.url, "audience": "floor", "issuer": "https://id.example"} | settings
    keys = ProviderKeys(IdentityProviderSettings(**given), clock or Clock())

    async def consume(_link: str, _ttl_s: float) -> bool:
        return True

    return Authenticator(SECRET, http_port=1, consume=consume, provider=keys), keys


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_a_token_of_each_kind_proves_who_it_is(provider: Provider, algorithm: str) -> None:
    """And the floor's own tokens count beside it."""
    provider.publish(published(algorithm, "k1"))
    auth, keys = make(provider)
    keys.fetch()

    identity = auth.from_token(token(algorithm, roles=["operator", "offline_access"], groups=["g"]))
    assert (identity.user_id, identity.tenant, identity.roles) == ("ann", "t1", frozenset({Role.OPERATOR}))
    assert identity.groups == ("g",)
    own = issue_token(SECRET, sub="local", tenant=None, roles=["admin"], ttl_s=60)
    assert auth.from_token(own).user_id == "local"


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"aud": "another"}, id="another-service"),
        pytest.param({"aud": ...}, id="no-audience"),
        pytest.param({"iss": "https://evil.example"}, id="another-issuer"),
        pytest.param({"iss": ...}, id="no-issuer"),
        pytest.param({"exp": ...}, id="no-expiry"),
        pytest.param({"sub": ...}, id="no-user"),
        pytest.param({"tenant": ...}, id="no-tenant-is-not-floor-wide"),
        pytest.param({"tenant": ""}, id="empty-tenant"),
        pytest.param({"roles": "admin"}, id="roles-no-list"),
        pytest.param({"nbf": time.time() + 86_400}, id="not-yet"),
        pytest.param({"private": rsa.generate_private_key(public_exponent=65537, key_size=2048)}, id="another-key"),
    ],
)
def test_whatever_is_wrong_with_it_it_is_refused(provider: Provider, changed: dict[str, Any]) -> None:
    """Nothing about the claims is guessed."""
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider)
    keys.fetch()

    with pytest.raises(AuthenticationError):
        auth.from_token(token(**changed))


def test_a_channel_token_has_an_audience_of_its_own(provider: Provider) -> None:
    """It opens a channel and proves nobody's identity; a connection token opens no channel."""
    provider.publish(published("ES256", "k1"))
    auth, keys = make(provider, channel_audience="floor-channels")
    keys.fetch()
    granted = token("ES256", aud="floor-channels", channel="group:ops")

    grant = auth.from_channel_token(granted)

    assert (grant.user_id, grant.tenant, grant.channel) == ("ann", "t1", "group:ops")
    for wrong in (
        token("ES256"),
        token("ES256", channel="group:ops"),
        token("ES256", aud="floor-channels"),
        token("ES256", aud="floor-channels", channel="group:ops", tenant=...),
        token("ES256", aud="floor-channels", channel=["group:ops"]),
    ):
        with pytest.raises(AuthenticationError):
            auth.from_channel_token(wrong)
    for wrong in (granted, token("ES256", aud=["floor", "floor-channels"], channel="group:ops")):
        with pytest.raises(AuthenticationError):
            auth.from_token(wrong)


def test_a_provider_that_was_not_told_to_issues_no_channel_tokens(provider: Provider) -> None:
    """The floor's own count all the same."""
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider)
    keys.fetch()
    with pytest.raises(AuthenticationError):
        auth.from_channel_token(token(channel="group:ops"))
    own = issue_channel_token(SECRET, sub="ann", tenant="t1", channel="group:ops", ttl_s=60)
    assert auth.from_channel_token(own).channel == "group:ops"


def test_null_as_tenant_works_floor_wide(provider: Provider) -> None:
    """Said by the provider, not left out."""
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider)
    keys.fetch()

    assert auth.from_token(token(tenant=None)).is_floor_wide


def test_an_expired_one_says_so(provider: Provider) -> None:
    """The SDK then fetches a new one."""
    provider.publish(published("ES256", "k1"))
    auth, keys = make(provider)
    keys.fetch()

    with pytest.raises(TokenExpiredError):
        auth.from_token(token("ES256", exp=time.time() - 1))


def test_a_public_key_is_no_shared_secret(provider: Provider) -> None:
    """RFC 8725, section 2.1: whoever knows the public key must not be able to sign with it."""
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider)
    keys.fetch()
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = {"typ": "JWT", "alg": "HS256", "kid": "k1"}
    signing_input = f"{encoded(head)}.{encoded(CLAIMS | {'exp': time.time() + 60, 'jti': '1'})}"
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signing_input.encode(), "sha256")).rstrip(b"=").decode()

    with pytest.raises(AuthenticationError):
        auth.from_token(f"{signing_input}.{signature}")
    with pytest.raises(AuthenticationError):
        auth.from_token(jwt.encode(CLAIMS | {"exp": time.time() + 60}, None, "none", headers={"kid": "k1"}))
    with pytest.raises(AuthenticationError):
        keys.find("k1", "ES256")


def test_a_new_key_is_taken_up_and_an_old_one_dropped(provider: Provider) -> None:
    """The client with the new key is told to try again, not that its token is bad."""
    clock = Clock()
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider, clock)
    with pytest.raises(KeysUnavailableError):
        auth.from_token(token())
    keys.fetch()
    auth.from_token(token())

    provider.publish(published("EdDSA", "k2"))
    clock.now_s += 60
    with pytest.raises(KeysUnavailableError):
        auth.from_token(token("EdDSA", "k2"))
    keys.fetch()
    auth.from_token(token("EdDSA", "k2"))
    with pytest.raises(AuthenticationError) as refused:
        auth.from_token(token())
    assert not isinstance(refused.value, KeysUnavailableError)


def test_made_up_key_ids_do_not_reach_the_provider(provider: Provider) -> None:
    """A thousand of them cause one fetch more."""
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider, Clock(), min_refresh_s=30.0)
    keys.start()
    give_up_at_s = time.monotonic() + 30
    while provider.num_requests == 0 and time.monotonic() < give_up_at_s:
        time.sleep(0.01)
    for number in range(1000):
        with pytest.raises(AuthenticationError):
            auth.from_token(token(key_id=f"made-up-{number}") if number < 3 else token(key_id="made-up"))
    assert provider.num_requests <= 2
    keys.close()


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", b'{"keys": [{"kty": "RSA"}]}', b"x" * (MAX_DOCUMENT_BYTES + 1)]
)
def test_while_the_provider_is_away_or_talks_nonsense_the_last_keys_go_on(provider: Provider, document: bytes) -> None:
    """An outage of the provider is none of the floor."""
    provider.publish(published("RS256", "k1"))
    auth, keys = make(provider)
    keys.fetch()
    provider.document = document
    keys.fetch()
    provider.status = 503
    keys.fetch()

    assert auth.from_token(token()).user_id == "ann"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"jwks_url": "http://id.example/jwks", "audience": "a"}, "https"),
        ({"jwks_url": "file:///etc/passwd", "audience": "a"}, "https"),
        ({"jwks_url": "https://id.example/jwks"}, "audience"),
        ({"jwks_url": "https://id.example/jwks", "audience": "a", "channel_audience": "a"}, "channel_audience"),
        ({"jwks_url": "https://id.example/jwks", "audience": "a", "min_refresh_s": 0.0}, "min_refresh_s"),
    ],
)
def test_settings_that_would_be_unsafe_are_refused(settings: dict[str, Any], text: str) -> None:
    """With the name of the setting."""
    with pytest.raises(ValueError, match=text):
        IdentityProviderSettings(**settings)
