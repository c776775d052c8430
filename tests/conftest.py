"""What all tests share: a Ray that asks for a token, real embedded services, one real floor.

Ray reads its authentication settings at import, so they are set before anything else is.
"""

import os
import tempfile
from pathlib import Path

_RAY_TOKEN = Path(tempfile.mkdtemp(prefix="wf-test-")) / "ray-token"
_RAY_TOKEN.write_text("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", encoding="utf-8")
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN_PATH"] = str(_RAY_TOKEN)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# A developer's own settings must not steer the tests towards a floor that is in use.
for _name in ("MQTT_URL", "REDIS_URL", "DATABASE_URL", "STORAGE_URL", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.startswith("WATCHFLOOR_")]:
    del os.environ[_name]

from collections.abc import Callable, Iterator  # noqa: E402

import pytest  # noqa: E402

from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, mqtt_service, redis_service  # noqa: E402
from cluster.ports import free_port  # noqa: E402

ServiceMaker = Callable[[Path, int, Credentials, EmbeddedSettings], EmbeddedService]


def _running(make: ServiceMaker, folder: Path) -> Iterator[str]:
    settings = EmbeddedSettings()
    service = make(folder, free_port(), Credentials.load_or_create(folder), settings)
    child = service.start()
    try:
        service.wait_ready(child, settings.start_timeout_s)
        yield service.url
    finally:
        child.stop()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey that lives for the whole session; use ``redis_url`` for an empty one."""
    yield from _running(redis_service, tmp_path_factory.mktemp("redis"))


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of a real, empty Valkey."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def mqtt_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real MQTT 3.1.1 broker for the whole session; use topics and client ids of your own."""
    yield from _running(mqtt_service, tmp_path_factory.mktemp("mqtt"))
