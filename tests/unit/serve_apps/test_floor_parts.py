"""Ports, arguments, environment and folders of a floor: nothing is shared by default."""

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from cluster.lanes import ray_resources
from cluster.ports import PortBlock
from cluster.process import MARK, ProcessIdentity
from cluster.settings import Settings
from serve_apps.errors import BindRefusedError, FloorFolderError, FloorStartError
from serve_apps.floor_env import ServiceUrls, floor_env, worker_env
from serve_apps.floor_ports import FloorPorts
from serve_apps.floor_state import FloorFolder, FloorRecord, ServiceRecord, without_password
from serve_apps.ray_head import HAPROXY_MAX_CONNECTIONS, max_connections, ray_head_argv, ray_head_env
from serve_apps.supervisor import forget_old_sessions, refuse_open_bind

URLS = ServiceUrls(
    mqtt="mqtt://u:p@127.0.0.1:1",
    redis="redis://:p@127.0.0.1:2/0",
    database="sqlite:////x/floor.db",
    storage="file:///x/storage",
    ray="127.0.0.1:3",
    dashboard="http://127.0.0.1:4",
)


@pytest.fixture
def ports() -> FloorPorts:
    block = PortBlock.reserve()
    block.close()
    return FloorPorts.take(block)


def _numbers(ports: FloorPorts) -> list[int]:
    numbers = []
    for name in FloorPorts.__dataclass_fields__:
        value = getattr(ports, name)
        numbers += list(range(value[0], value[1] + 1)) if isinstance(value, tuple) else [value]
    return numbers


def test_every_port_is_different(ports: FloorPorts) -> None:
    """No two servers of a floor meet."""
    numbers = _numbers(ports)

    assert len(set(numbers)) == len(numbers)


def test_a_chosen_page_port_is_used() -> None:
    """WATCHFLOOR_HTTP_PORT replaces one port and leaves the others."""
    block = PortBlock.reserve()
    block.close()

    assert FloorPorts.take(block, http_port=8123).http == 8123


def test_ray_and_haproxy_keep_no_default_of_two_floors(ports: FloorPorts, tmp_path: Path) -> None:
    """Every port option of `ray start`, and every place of HAProxy's, is the floor's own."""
    argv = ray_head_argv(ports, tmp_path, num_cpus=2, resources=ray_resources())
    env = ray_head_env(ports, tmp_path, max_files=1024)

    own = set(map(str, _numbers(ports)))
    for option in (
        "port", "object-manager-port", "node-manager-port", "dashboard-port", "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port",
    ):  # fmt: skip
        (value,) = [part.partition("=")[2] for part in argv if part.startswith(f"--{option}=")]
        assert value in own
    for name, value in env.items():
        if name.endswith("_PORT"):
            assert value in own, name
        if name.endswith(("_LOC", "_PATH", "_BASE", "_FILE")):
            assert value.startswith(str(tmp_path)), name
    assert "--num-cpus=2" in argv


def test_haproxy_takes_no_more_connections_than_it_has_files_for() -> None:
    """It asks for 50030 files at 20 000 connections, and does not start with fewer."""
    assert max_connections(1_048_576) == HAPROXY_MAX_CONNECTIONS
    assert max_connections(20_000) == 7_960


def test_processes_see_resolved_settings(tmp_path: Path, ports: FloorPorts) -> None:
    """Settings.load in a worker gives what the supervisor resolved; our Python comes first on PATH."""
    env = floor_env(
        {"PATH": "/usr/bin", "PYTHONPATH": "/other"},
        Settings(),
        URLS,
        floor_id="f1",
        data_dir=tmp_path,
        http_port=ports.http,
        ray_token=tmp_path / "ray-token",
        ray=ray_head_env(ports, tmp_path, max_files=1024),
    )

    seen = Settings.load(env)

    assert (seen.mqtt_url, seen.redis_url, seen.database_url) == (URLS.mqtt, URLS.redis, URLS.database)
    assert (seen.data_dir, seen.http_port, seen.ray_address) == (str(tmp_path), ports.http, URLS.ray)
    assert env[MARK] == "f1"
    assert env["PATH"].endswith(":/usr/bin")
    assert "PYTHONPATH" not in env
    assert env["RAY_AUTH_MODE"] == "token"


def test_a_foreign_ray_is_given_settings_and_nothing_of_this_machine(tmp_path: Path) -> None:
    """Its workers see every resolved setting, but neither the mark nor an address of Ray that is theirs to know."""
    env = floor_env(
        {"PATH": "/usr/bin", "WATCHFLOOR_HUB_HISTORY_SIZE": "9", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
        Settings(),
        dataclasses.replace(URLS, dashboard="", is_foreign_ray=True),
        floor_id="f1",
        data_dir=tmp_path,
        http_port=8123,
        ray_token=tmp_path / "ray-token",
        ray={},
    )

    given = worker_env(env)

    seen = Settings.load(given)
    assert (seen.mqtt_url, seen.redis_url, seen.database_url) == (URLS.mqtt, URLS.redis, URLS.database)
    assert (seen.storage_url, seen.http_port, seen.data_dir) == (URLS.storage, 8123, str(tmp_path))
    assert given["WATCHFLOOR_HUB_HISTORY_SIZE"] == "9"
    assert not {MARK, "PATH", "RAY_ADDRESS", "RAY_SERVE_ENABLE_HA_PROXY"} & given.keys()
    # It would make a driver look for its node on 127.0.0.1.
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in env


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    """What is written is what is read, by its owner only; garbage is no record."""
    folder = FloorFolder(tmp_path)
    record = FloorRecord(
        floor_id="f1",
        phase="ready",
        supervisor=ProcessIdentity(1, 2),
        services={"mqtt": ServiceRecord(state="running", pid=7)},
        env={"RAY_ADDRESS": "127.0.0.1:3"},
    )

    folder.write(record)

    assert record == folder.read()
    assert not record.is_running
    assert stat.S_IMODE((tmp_path / "floor.json").stat().st_mode) == 0o600
    (tmp_path / "floor.json").write_text("{")
    assert folder.read() is None


def test_one_supervisor_holds_the_lock(tmp_path: Path) -> None:
    """The second asks in vain until the first lets go."""
    folder = FloorFolder(tmp_path)
    first = folder.lock()
    assert first is not None

    assert folder.lock() is None
    first.close()
    again = folder.lock()
    assert again is not None
    again.close()


def test_the_socket_folder_is_short_private_and_per_floor(tmp_path: Path) -> None:
    """Ray's sockets fit below it, and another floor or user has another one."""
    folder, other = FloorFolder(tmp_path / ("a" * 40)), FloorFolder(tmp_path / "b")
    made = folder.socket_folder()
    try:
        assert len(str(made)) <= 24
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert str(os.getuid()) in made.name
        assert made != other.socket_folder()
        made.chmod(0o777)
        with pytest.raises(FloorFolderError, match="private"):
            folder.socket_folder()
    finally:
        made.rmdir()
        other.socket_folder().rmdir()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_an_open_bind_without_credentials_is_refused(host: str, tmp_path: Path) -> None:
    """A key that somebody chose makes it possible; a short one does not."""
    with pytest.raises(BindRefusedError, match="WATCHFLOOR_SECRET_FILE"):
        refuse_open_bind(Settings(http_host=host))
    key = tmp_path / "key"
    key.write_bytes(b"x" * 31)
    with pytest.raises(FloorStartError, match="32 bytes"):
        refuse_open_bind(Settings(http_host=host, secret_file=str(key)))
    key.write_bytes(b"x" * 32)
    refuse_open_bind(Settings(http_host=host, secret_file=str(key)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_credentials(host: str) -> None:
    """The default works without any configuration."""
    refuse_open_bind(Settings(http_host=host))


def test_passwords_are_not_shown() -> None:
    """Addresses in status and messages keep everything else."""
    assert without_password("redis://:secret@db:6379/0") == "redis://db:6379/0"
    assert without_password("mqtts://me:secret@broker") == "mqtts://me@broker"
    assert without_password("file:///data") == "file:///data"


def test_only_the_newest_ray_session_is_kept(tmp_path: Path) -> None:
    """Starting a floor a hundred times must not fill the disk."""
    for name in ("session_2026-01-01_1", "session_2026-01-02_1", "session_2026-01-03_1"):
        (tmp_path / name).mkdir()
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_2026-01-03_1")

    forget_old_sessions(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["session_2026-01-03_1", "session_latest"]
