"""What the doctor and the status see: listeners, refused clients, shadowed packages."""

import os
import socket
from pathlib import Path

import pytest

from cluster.settings import Settings
from serve_apps import doctor, status
from serve_apps.listeners import Listener, listeners_of
from serve_apps.mqtt_log import refused_clients


def test_listeners_of_a_process_are_found_with_their_address() -> None:
    """Loopback and open ones are told apart, for both families."""
    with socket.socket() as closed, socket.socket(socket.AF_INET6) as opened:
        closed.bind(("127.0.0.1", 0))
        opened.bind(("::", 0))
        closed.listen()
        opened.listen()
        found = {listener.port: listener for listener in listeners_of([os.getpid()])}

        assert found[closed.getsockname()[1]].is_loopback
        assert not found[opened.getsockname()[1]].is_loopback
        assert found[closed.getsockname()[1]].host == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_addresses(host: str, expected: bool) -> None:
    """A mapped IPv4 address counts as what it is."""
    assert expected == Listener(1, host, "x").is_loopback


def test_refused_mqtt5_clients_are_named(tmp_path: Path) -> None:
    """By id where the broker knows one, else by address; each once."""
    log = tmp_path / "mqtt.log"
    line = '[1] 2026/11/23 22:32:51.780236 [ERR] {} - mid:25 - "{}" - unacceptable protocol version of 5\n'
    log.write_text(
        line.format("127.0.0.1:3", "")
        + line.format("127.0.0.1:4", "")
        + line.format("10.0.0.1:4", "pump-7")
        + "[1] [INF] other\n"
    )

    assert refused_clients(log) == ["127.0.0.1", "pump-7"]
    assert refused_clients(tmp_path / "none") == []


def test_this_installation_has_no_error(tmp_path: Path) -> None:
    """Our packages are ours, and the programs are there."""
    findings = doctor.examine(Settings(data_dir=str(tmp_path / "floor")))

    assert [finding for finding in findings if finding.level == "error"] == []
    assert {"python", "realtime", "MQTT_URL", "disk"} <= {finding.subject for finding in findings}


def test_status_of_no_floor_has_every_key(tmp_path: Path) -> None:
    """Scripts need not ask which keys are there."""
    found = status.collect(Settings(data_dir=str(tmp_path)))

    assert {"url", "services", "readings_total", "alerts_total", "dead_letters_total", "runs"} <= found.keys()
    assert found["phase"] == "stopped"
