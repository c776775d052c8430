"""Broker addresses: what a URL means, and that a wrong one is refused without its password."""

import pytest

from cluster.errors import SettingsError
from ingest.mqtt_address import MqttAddress, VersionChoice


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("mqtt://h", MqttAddress("h", 1883, "auto", None, None, False, None), id="bare"),
        pytest.param("mqtt://u:p%40ss@h:99", MqttAddress("h", 99, "auto", "u", "p@ss", False, None), id="login"),
        pytest.param("mqtts://h?version=5", MqttAddress("h", 8883, "5", None, None, True, None), id="tls-5"),
        pytest.param("mqtts://h:1?ca=/x.pem", MqttAddress("h", 1, "auto", None, None, True, "/x.pem"), id="own-ca"),
        pytest.param("mqtt://h?version=3.1.1", MqttAddress("h", 1883, "3.1.1", None, None, False, None), id="3.1.1"),
    ],
)
def test_a_url_names_a_broker(url: str, expected: MqttAddress) -> None:
    """Ports, versions and credentials are read."""
    assert MqttAddress.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:1883",
        "http://h:1883",
        "mqtt://",
        "mqtt://u:secret@h:99999",
        "mqtt://u:secret@h:x",
        "mqtt://u:secret@h?version=4",
        "mqtt://u:secret@h?clean=1",
        "mqtt://u:secret@h?ca=x",
    ],
)
def test_anything_else_is_refused_without_the_password(url: str) -> None:
    """The error names the setting and shows no secret."""
    with pytest.raises(SettingsError) as refused:
        MqttAddress.parse(url)

    assert "MQTT_URL" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_5_is_tried_first_and_given_up_for_a_broker_that_has_it_not() -> None:
    """A broker that says so is believed at once; one that only closes the connection, the second time."""
    told, closed = VersionChoice("auto"), VersionChoice("auto")
    assert told.version == "5"

    told.refused(is_explicit=True)
    assert told.version == "3.1.1"
    closed.refused(is_explicit=False)
    assert closed.version == "5"
    closed.refused(is_explicit=False)
    assert closed.version == "3.1.1"
    closed.refused(is_explicit=False)
    assert closed.version == "5", "perhaps another broker by now"


def test_a_broker_that_had_5_is_not_left_for_a_restart() -> None:
    """While it starts it closes connections; 3.1.1 would cost the receive maximum and the session's expiry."""
    choice = VersionChoice("auto")
    choice.accepted()
    for _ in range(5):
        choice.refused(is_explicit=False)
    assert choice.version == "5"

    choice.refused(is_explicit=True)
    assert choice.version == "3.1.1"


@pytest.mark.parametrize("wanted", ["3.1.1", "5"])
def test_a_version_that_was_asked_for_stays(wanted: str) -> None:
    """Whoever names one gets it or an error."""
    choice = VersionChoice(wanted)  # type: ignore[arg-type]
    choice.refused(is_explicit=True)

    assert (choice.version, choice.is_free) == (wanted, False)
