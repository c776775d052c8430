"""Identities: only from our signature, only in time, and a sign-in link only once."""

import base64
import json
import time

import jwt
import pytest

from serve_apps.auth import (
    Authenticator,
    Identity,
    Role,
    TokenKind,
    cookie_name,
    issue_signin_key,
    issue_token,
    verify_token,
)
from serve_apps.errors import AuthenticationError, TokenExpiredError
from serve_apps.floor_keys import key_id, parse_keys

SECRET = b"s" * 32
OTHER = b"o" * 32


class UsedOnce:
    """Remembers which ids it has seen."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    async def consume(self, link_id: str, ttl_s: float) -> bool:
        assert ttl_s >= 600
        fresh = link_id not in self.seen
        self.seen.add(link_id)
        return fresh


def authenticator(port: int = 8000) -> Authenticator:
    return Authenticator(SECRET, http_port=port, consume=UsedOnce().consume)


def signed(secret: bytes = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    body = {"sub": "ann", "exp": time.time() + 3600, "jti": "1", "roles": ["viewer"]} | claims
    return jwt.encode({name: value for name, value in body.items() if value is not None}, secret, algorithm=algorithm)


def test_token_round_trip() -> None:
    """What was issued is what is verified."""
    token = issue_token(
        SECRET, sub="ann", tenant="t1", roles=["operator"], groups=["g"], clients=["7"], ttl_s=60, now_s=None
    )

    identity = verify_token(SECRET, token)

    assert (identity.user_id, identity.tenant, identity.groups, identity.clients) == ("ann", "t1", ("g",), ("7",))
    assert identity.roles == {Role.OPERATOR}
    assert 50 < identity.expires_at - time.time() <= 60


def test_expired_token_says_so() -> None:
    """A client may fetch a new one for an expired token, and only then."""
    token = issue_token(SECRET, sub="ann", tenant=None, roles=[], ttl_s=60, now_s=time.time() - 61)

    with pytest.raises(TokenExpiredError):
        verify_token(SECRET, token)


def unsigned() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": "ann", "exp": time.time() + 3600, "jti": "1", "roles": ["admin"]}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="no-token"),
        pytest.param("x" * 9000, id="too-long"),
        pytest.param(unsigned(), id="alg-none"),
        pytest.param(signed(OTHER), id="wrong-key"),
        pytest.param(signed(SECRET * 2, "HS512"), id="other-algorithm"),
        pytest.param(signed(exp=None), id="no-expiry"),
        pytest.param(signed(sub=None), id="no-subject"),
        pytest.param(signed(sub=""), id="empty-subject"),
        pytest.param(signed(roles=["emperor"]), id="unknown-role"),
        pytest.param(signed(roles="admin"), id="roles-a-string"),
        pytest.param(signed(tenant=7), id="tenant-a-number"),
        pytest.param(signed(tenant=""), id="tenant-empty"),
        pytest.param(signed(groups=[1]), id="group-a-number"),
        pytest.param(signed(exp="soon"), id="expiry-a-word"),
        pytest.param(signed(kind="signin"), id="a-signin-key"),
        pytest.param(signed(kind="session"), id="a-session"),
        pytest.param(signed(kind=["access"]), id="kind-a-list"),
    ],
)
def test_forged_or_misused_token_proves_nothing(token: str) -> None:
    """Every way to be wrong ends in the same refusal."""
    with pytest.raises(AuthenticationError) as caught:
        verify_token(SECRET, token)
    assert not isinstance(caught.value, TokenExpiredError)


def test_access_token_is_no_session_and_no_signin_key() -> None:
    """A token is accepted in its own place only."""
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["admin"], ttl_s=60)

    with pytest.raises(AuthenticationError):
        authenticator().from_cookie(token)


async def test_signin_link_works_once() -> None:
    """The second visitor of a link gets nothing."""
    auth = authenticator()
    key = issue_signin_key(SECRET, sub="ann", tenant="t1", roles=["operator"], groups=["g"])

    identity, session = await auth.redeem(key)

    assert (identity.user_id, identity.tenant, identity.groups) == ("ann", "t1", ("g",))
    assert auth.from_cookie(session).user_id == "ann"
    with pytest.raises(AuthenticationError, match="used before"):
        await auth.redeem(key)


async def test_two_visits_at_once_give_one_session() -> None:
    """The mark is set before the session exists."""
    auth = authenticator()
    key = issue_signin_key(SECRET, sub="ann", tenant=None, roles=["operator"])
    outcomes = []
    for _ in range(2):
        try:
            await auth.redeem(key)
            outcomes.append("in")
        except AuthenticationError:
            outcomes.append("out")

    assert sorted(outcomes) == ["in", "out"]


async def test_old_signin_link_is_refused() -> None:
    """Ten minutes, not more."""
    key = issue_token(
        SECRET, sub="ann", tenant=None, roles=[], ttl_s=600, kind=TokenKind.SIGNIN, now_s=time.time() - 601
    )

    with pytest.raises(TokenExpiredError):
        await authenticator().redeem(key)


def test_cookie_is_named_by_port() -> None:
    """Cookies know no ports: two floors on one host must not sign each other out."""
    assert cookie_name(8001) == "watchfloor_session_8001"
    assert authenticator(8001).cookie_name != authenticator(8002).cookie_name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"sub": ""}, "sub", id="no-subject"),
        pytest.param({"ttl_s": 0}, "ttl_s", id="no-time"),
        pytest.param({"ttl_s": 1e12}, "ttl_s", id="for-ever"),
        pytest.param({"roles": ["emperor"]}, "emperor", id="unknown-role"),
    ],
)
def test_issuing_checks_its_arguments(arguments: dict[str, object], message: str) -> None:
    """The mistake is the issuer's and is named."""
    good = {"sub": "ann", "tenant": None, "roles": ["viewer"], "ttl_s": 60.0}
    with pytest.raises(ValueError, match=message):
        issue_token(SECRET, **(good | arguments))  # type: ignore[arg-type]


def test_short_secret_is_refused() -> None:
    """A key that can be guessed protects nothing."""
    with pytest.raises(ValueError, match="32 bytes"):
        Authenticator(b"short", http_port=1, consume=UsedOnce().consume)


def test_keys_rotate_without_signing_anybody_out() -> None:
    """The first key signs; tokens of the older one count while it is listed."""
    consume = UsedOnce().consume
    before = Authenticator(SECRET, http_port=1, consume=consume)
    both = Authenticator(OTHER, SECRET, http_port=1, consume=consume)
    after = Authenticator(OTHER, http_port=1, consume=consume)
    old, new = (issue_token(key, sub="ann", tenant=None, roles=["viewer"], ttl_s=60) for key in (SECRET, OTHER))

    assert [one.from_token(old).user_id for one in (before, both)] == ["ann", "ann"]
    assert [one.from_token(new).user_id for one in (both, after)] == ["ann", "ann"]
    for wrong, token in ((before, new), (after, old)):
        with pytest.raises(AuthenticationError):
            wrong.from_token(token)


async def test_a_session_is_signed_with_the_first_key() -> None:
    """Also when the link was made with the older one."""
    auth = Authenticator(OTHER, SECRET, http_port=1, consume=UsedOnce().consume)
    _, session = await auth.redeem(issue_signin_key(SECRET, sub="ann", tenant=None, roles=["viewer"]))
    assert verify_token(OTHER, session, TokenKind.SESSION).user_id == "ann"


@pytest.mark.parametrize("named", [None, "another", 7])
def test_whoever_signs_with_the_first_key_need_not_name_it(named: object) -> None:
    """A service of the operator's own knows nothing of our key ids; the signature decides."""
    claims = {"sub": "ann", "exp": time.time() + 60, "jti": "1"}
    token = jwt.encode(claims, OTHER, algorithm="HS256", headers={} if named is None else {"kid": str(named)})
    auth = Authenticator(OTHER, SECRET, http_port=1, consume=UsedOnce().consume)
    assert auth.from_token(token).user_id == "ann"


KEY_LINE = b"k" * 40


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        pytest.param(SECRET + b"\n", (SECRET,), id="one"),
        pytest.param(KEY_LINE + b"\n" + SECRET + b"\n", (KEY_LINE, SECRET), id="two"),
        pytest.param(KEY_LINE + b"\r\n" + SECRET, (KEY_LINE, SECRET), id="two-from-windows"),
        pytest.param(b"\xff" * 40 + b"\n" + SECRET, (b"\xff" * 40 + b"\n" + SECRET,), id="bytes-with-a-line-break"),
        pytest.param(KEY_LINE + b"\nshort", (KEY_LINE + b"\nshort",), id="a-line-too-short-to-be-a-key"),
    ],
)
def test_a_secret_file_holds_one_key_or_one_a_line(content: bytes, keys: tuple[bytes, ...]) -> None:
    """What is no list of keys is one key, as it always was."""
    assert parse_keys(content) == keys


@pytest.mark.parametrize("content", [b"", b"short", b"\n".join([KEY_LINE] * 5)])
def test_a_secret_file_that_protects_nothing_is_refused(content: bytes) -> None:
    """Too short, or keys that nobody ever takes out."""
    with pytest.raises(ValueError, match=r"at least 32 bytes|at most 4 keys"):
        parse_keys(content)


def test_a_key_is_not_told_by_its_name() -> None:
    """Two keys have two names."""
    assert key_id(SECRET) != key_id(OTHER)
    assert SECRET.hex()[:8] not in key_id(SECRET)


def test_roles_include_the_ones_below() -> None:
    """viewer < operator < engineer < admin."""
    engineer = Identity(user_id="a", tenant=None, roles=frozenset({Role.ENGINEER}), expires_at=0)

    assert [engineer.has(role) for role in Role] == [True, True, True, False]
    assert engineer.is_floor_wide
    assert not Identity(user_id="a", tenant="t", roles=frozenset({Role.ADMIN}), expires_at=0).is_floor_wide
