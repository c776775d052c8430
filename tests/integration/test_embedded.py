"""The real programs, configured as promised: loopback, a password, durable."""

import json
import shutil
import socket
import stat
from pathlib import Path

import pytest

from cluster.embedded import Credentials, EmbeddedSettings, mqtt_service, redis_service
from cluster.errors import ServiceUnavailableError
from cluster.ports import free_port


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials.load_or_create(tmp_path)


def test_credentials_are_made_once_and_private(tmp_path: Path, credentials: Credentials) -> None:
    """A restarted floor keeps its passwords; nobody else reads them."""
    assert credentials == Credentials.load_or_create(tmp_path)
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600
    assert credentials.mqtt_password != credentials.redis_password


def test_valkey_asks_for_a_password_and_survives_a_kill(tmp_path: Path, credentials: Credentials) -> None:
    """What was acknowledged is there after SIGKILL; without the password nothing is answered."""
    import redis

    settings = EmbeddedSettings()
    service = redis_service(tmp_path, free_port(), credentials, settings)
    child = service.start()
    service.wait_ready(child, settings.start_timeout_s)
    with redis.Redis(port=service.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis.from_url(service.url) as client:
        client.set("kept", "yes")
        config = client.config_get("append*", "maxmemory*")
    child.kill()
    child.wait(5.0)

    child = service.start()
    service.wait_ready(child, settings.start_timeout_s)
    with redis.Redis.from_url(service.url) as client:
        assert client.get("kept") == b"yes"
    child.stop()
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["maxmemory"] == str(512 * 1024 * 1024)


def test_broker_listens_on_loopback_only_and_syncs(tmp_path: Path, credentials: Credentials) -> None:
    """Its configuration holds what the promise of an acknowledgement rests on."""
    settings = EmbeddedSettings()
    service = mqtt_service(tmp_path, free_port(), credentials, settings)
    child = service.start()
    service.wait_ready(child, settings.start_timeout_s)
    with socket.create_connection(("127.0.0.1", service.port), timeout=1):
        pass
    child.stop()

    config = json.loads((tmp_path / "mqtt" / "nats-server.conf").read_text())
    assert config["jetstream"]["sync_interval"] == "always"
    assert config["mqtt"] == {"listen": f"127.0.0.1:{service.port}", "ack_wait": "5s"}
    assert config["listen"].startswith("127.0.0.1:")


def test_a_service_that_ends_is_named_with_its_log(tmp_path: Path, credentials: Credentials) -> None:
    """A taken port ends as one sentence, not as a time-out."""
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        service = redis_service(tmp_path, squatter.getsockname()[1], credentials, EmbeddedSettings())
        child = service.start()
        with pytest.raises(ServiceUnavailableError, match=r"redis at 127\.0\.0\.1:\d+ .*redis\.log"):
            service.wait_ready(child, 10.0)


def test_settings_refuse_zero() -> None:
    """The bad value is in the text."""
    with pytest.raises(ValueError, match="mqtt_ack_wait_s must be at least 1, got 0"):
        EmbeddedSettings(mqtt_ack_wait_s=0)


def test_the_brokers_store_leaves_room_on_the_disk(tmp_path: Path, credentials: Credentials) -> None:
    """As set where there is room, less on a small disk."""

    def store_bytes(**settings: int) -> int:
        mqtt_service(tmp_path, 1883, credentials, EmbeddedSettings(**settings))
        config = json.loads((tmp_path / "mqtt" / "nats-server.conf").read_text(encoding="utf-8"))
        return int(config["jetstream"]["max_file_store"])

    free_mb = shutil.disk_usage(tmp_path).free // 2**20
    assert store_bytes(mqtt_store_mb=65, mqtt_disk_reserve_mb=1) == 65 * 2**20
    small = store_bytes(mqtt_store_mb=free_mb * 2, mqtt_disk_reserve_mb=free_mb // 2)
    assert 64 * 2**20 <= small < free_mb * 2**20
    assert store_bytes(mqtt_disk_reserve_mb=free_mb * 2) == 64 * 2**20
