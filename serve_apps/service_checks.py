"""Whether the services that a floor depends on answer, in one clear sentence when they don't.

Blocking, with short time limits: for the CLI and the bootstrap, never on an event loop.
Invariant: whatever goes wrong leaves here as ``ServiceUnavailableError`` that names the
service and its address without the password.
"""

import socket
import time
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

from cluster.errors import ServiceUnavailableError
from cluster.settings import Settings
from serve_apps.floor_state import without_password

POLL_S = 0.1
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "redis": 6379, "rediss": 6379}


def check_redis(url: str, timeout_s: float) -> None:
    """Wait until Redis or Valkey answers PING with these credentials."""
    import redis

    def ping() -> None:
        with redis.Redis.from_url(url, socket_connect_timeout=2.0, socket_timeout=2.0) as client:
            client.ping()

    _until(ping, "REDIS_URL", url, timeout_s, (redis.RedisError, OSError, ValueError))


def check_mqtt(url: str, timeout_s: float) -> None:
    """Wait until the broker's port accepts connections; whether it accepts *us* is ingest's to say."""
    _until(lambda: _connect(url), "MQTT_URL", url, timeout_s, (OSError, ValueError))


def check_ray(address: str, timeout_s: float) -> None:
    """Wait until the GCS accepts connections."""
    _until(lambda: _connect(f"tcp://{address}"), "RAY_ADDRESS", address, timeout_s, (OSError, ValueError))


def check_sql(url: str) -> None:
    """Connect to the SQL store once."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    def connect() -> None:
        engine = create_engine(url)
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    _until(connect, "DATABASE_URL", url, 0.0, (SQLAlchemyError, OSError, ValueError, ImportError))


def check_storage(url: str) -> None:
    """Write a small file to the storage once, and delete it."""
    from training.registry.storage import Storage

    def write() -> None:
        storage, name = Storage(url), f"check-{uuid.uuid4().hex}"
        storage.write(name, b"")
        storage.delete(name)

    # An address that pyarrow cannot read is a ValueError of its own, one that it was not built for the other.
    _until(write, "STORAGE_URL", url, 0.0, (OSError, ValueError, NotImplementedError))


def check_set(settings: Settings, timeout_s: float) -> None:
    """Check every service that ``settings`` names; an empty address is nobody's yet.

    Raises:
        ServiceUnavailableError: the first that did not answer within ``timeout_s``.
    """
    for check in _servers(settings, timeout_s).values():
        check()
    if settings.storage_url:
        check_storage(settings.storage_url)


def problems(settings: Settings) -> dict[str, str]:
    """Return which of the servers that ``settings`` names do not answer now, each with a sentence.

    The storage is not asked: it would be written to at every question.
    """
    found = {}
    for name, check in _servers(settings, 0.0).items():
        try:
            check()
        except ServiceUnavailableError as error:
            found[name] = str(error)
    return found


def _servers(settings: Settings, timeout_s: float) -> dict[str, Callable[[], None]]:
    checks: dict[str, tuple[str, Callable[[], None]]] = {
        "redis": (settings.redis_url, lambda: check_redis(settings.redis_url, timeout_s)),
        "mqtt": (settings.mqtt_url, lambda: check_mqtt(settings.mqtt_url, timeout_s)),
        "ray": (settings.ray_address, lambda: check_ray(settings.ray_address, timeout_s)),
        "database": (settings.database_url, lambda: check_sql(settings.database_url)),
    }
    return {name: check for name, (address, check) in checks.items() if address}


def _connect(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError("no host and port in it")
    with socket.create_connection((parts.hostname, port), timeout=2.0):
        return


def _until(
    attempt: Callable[[], None], name: str, url: str, timeout_s: float, errors: tuple[type[Exception], ...]
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return attempt()
        except errors as error:
            if time.monotonic() >= deadline_s:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                shown = without_password(url)
                # pyarrow repeats the address that it cannot use.
                raise ServiceUnavailableError(name, shown, reason.replace(url, shown)) from error
        time.sleep(POLL_S)
