"""Files for brokers: from checked names only, and never with a password."""

from pathlib import Path

import pytest

from ingest.broker_acl import Passwords, device_of, mosquitto_acl, mosquitto_config, nats_users
from ingest.topics import TopicTree

HASH = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
DEPLOYED = Path(__file__).resolve().parents[3] / "deploy" / "mosquitto.conf"


@pytest.mark.parametrize(
    "user", ["acme/+", "#/pump-7", "acme/#", "acme", "acme/pump/7", "acme/", "/x", "acme/pu mp", 'a/"']
)
def test_names_that_are_no_device_are_none(user: str) -> None:
    """Wildcards above all: they would open the whole tree."""
    assert device_of(user) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(f"acme/+:{HASH}", r"line 1: 'acme/\+' is neither 'ingest' nor tenant/device", id="wildcard"),
        pytest.param(f"\n# people\nacme:{HASH}", "line 3: 'acme' is neither", id="tenant-alone"),
        pytest.param(f"acme/a:{HASH}\nacme/a:{HASH}", "line 2: 'acme/a' comes twice", id="twice"),
        pytest.param("acme/a:", "line 1: 'acme/a' has no hash", id="no-hash"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_refused_with_its_line(text: str, message: str) -> None:
    """And the hash is in no message."""
    with pytest.raises(ValueError, match=message) as refused:
        Passwords.parse(text, "ingest")

    assert HASH not in str(refused.value)


def test_nats_users_need_bcrypt_and_the_floors_own() -> None:
    """It takes any other text for the password itself."""
    tree = TopicTree("wf")
    with pytest.raises(ValueError, match="the hash of 'acme/a' is not bcrypt"):
        nats_users(tree, "ingest", Passwords.parse(f"ingest:{HASH}\nacme/a:$7$101$salt$hash", "ingest"))
    with pytest.raises(ValueError, match="the floor's own user 'ingest' has no line"):
        nats_users(tree, "ingest", Passwords.parse(f"acme/a:{HASH}", "ingest"))


def test_a_floor_user_with_a_wildcard_is_refused() -> None:
    """It stands in the file as it is given."""
    with pytest.raises(ValueError, match="the floor's user must be"):
        mosquitto_acl(TopicTree("wf"), "ingest\ntopic write #")


def test_the_deployed_configuration_is_the_generated_one() -> None:
    """One home for it; `watchfloor acl` writes the same for another folder."""
    assert DEPLOYED.read_text(encoding="utf-8") == mosquitto_config("/etc/mosquitto")
