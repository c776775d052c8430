"""Broker addresses: what a URL means, and that a wrong one is refused without its password."""

import pytest

from cluster.errors import SettingsError
from ingest.mqtt_address import MqttAddress


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("mqtt://h", MqttAddress("h", 1883, "3.1.1", None, None, False, None), id="bare"),
        pytest.param("mqtt://u:p%40ss@h:99", MqttAddress("h", 99, "3.1.1", "u", "p@ss", False, None), id="login"),
        pytest.param("mqtts://h?version=5", MqttAddress("h", 8883, "5", None, None, True, None), id="tls-5"),
        pytest.param("mqtts://h:1?ca=/x.pem", MqttAddress("h", 1, "3.1.1", None, None, True, "/x.pem"), id="own-ca"),
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
