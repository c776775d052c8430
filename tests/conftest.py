"""What all tests share: a Ray that asks for a token, real embedded services, one real floor.

Ray reads its authentication settings at import, so they are set before anything else is.
"""

import atexit
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

_RAY_TOKEN = Path(tempfile.mkdtemp(prefix="wf-test-")) / "ray-token"
atexit.register(shutil.rmtree, _RAY_TOKEN.parent, ignore_errors=True)
_RAY_TOKEN.write_text("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", encoding="utf-8")
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN_PATH"] = str(_RAY_TOKEN)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# As on a floor: no idle worker per CPU for every driver and every job.
os.environ |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
# Tests run side by side: threads of several torches on the same cores would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts background jobs with SIGINT ignored, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A developer's own settings must not steer the tests towards a floor that is in use.
for _name in ("MQTT_URL", "REDIS_URL", "DATABASE_URL", "STORAGE_URL", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.startswith("WATCHFLOOR_")]:
    del os.environ[_name]

from collections.abc import Callable, Iterator  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from sqlalchemy import Engine  # noqa: E402

from cluster import migrate  # noqa: E402
from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, mqtt_service, redis_service  # noqa: E402
from cluster.ports import free_port  # noqa: E402
from cluster.store import open_engine  # noqa: E402
from tests.floors import Floor, watchfloor  # noqa: E402
from tests.postgres import MIGRATED, Postgres, find_postgres, own_postgres  # noqa: E402

# A fresh checkout builds Hypothesis' table of characters at the first draw, and a busy machine is slow at any
# draw: neither says anything about the code under test.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

LEFT_OUT_WITHOUT: dict[str, tuple[object, str]] = {
    "browser": (CHROMIUM, "Chromium is not installed; Debian: apt-get install chromium"),
    "mosquitto": (MOSQUITTO, "mosquitto is not installed; Debian: apt-get install mosquitto"),
    "postgres": (find_postgres(), "PostgreSQL is not installed; Debian: apt-get install postgresql"),
    "prometheus": (
        shutil.which("prometheus") and shutil.which("prometheus-alertmanager"),
        "prometheus and prometheus-alertmanager are not installed; Debian: apt-get install both",
    ),
    "gpu": (shutil.which("nvidia-smi"), "there is no accelerator here"),
}
"""Marker -> whether what it needs is there, and how to get it."""

_left_out: dict[str, int] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, by name and aloud, what this machine cannot run."""
    kept, gone = [], []
    for item in items:
        missing = [name for name, (has, _) in LEFT_OUT_WITHOUT.items() if not has and item.get_closest_marker(name)]
        (gone if missing else kept).append(item)
        for name in missing:
            _left_out[name] = _left_out.get(name, 0) + 1
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = kept
    items.sort(key=_when)


def _when(item: pytest.Item) -> int:
    """Return the tests' order: the longest files first, so that processes side by side end together.

    The floor with its demo lives until the last test: whatever needs none of it is not slowed down by it.
    """
    if item.get_closest_marker("floor") is not None:
        return 2
    return 0 if item.get_closest_marker("ray") is not None else 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, count in sorted(_left_out.items()):
        terminalreporter.write_line(f"left out: {count} {name} tests: {LEFT_OUT_WITHOUT[name][1]}")


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL for the whole session; make databases of your own in it, and leave it running."""
    with own_postgres() as server:
        yield server


# Every SQL store keeps its promises on both databases: a test that takes ``sql`` or ``database_url`` runs once on
# each, on a database of its own that the migrations have made. `make check` leaves PostgreSQL out.
DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> Postgres:
    """A PostgreSQL whose database ``migrated`` has the newest schema, to be copied."""
    migrate.upgrade(postgres.create_database(MIGRATED))
    return postgres


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database with the newest schema and no rows."""
    if request.param == "sqlite":
        path = tmp_path / "floor.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
    else:
        yield from request.getfixturevalue("migrated_postgres").lend_database(MIGRATED)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
    else:
        yield from request.getfixturevalue("postgres").lend_database()


@pytest.fixture
def sql(database_url: str) -> Iterator[Engine]:
    """An engine on ``database_url``."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    """One floor with its demo for the whole session; leave it as you found it."""
    data_dir = tmp_path_factory.mktemp("floor") / "data"
    # The limit is tested where it matters; here a busy machine must not run into it.
    patience = {"WATCHFLOOR_RUN_QUEUE_START_TIMEOUT_S": "240"}
    started = watchfloor(data_dir, "up", "--detach", timeout_s=320, env=patience)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        url = json.loads((data_dir / "floor.json").read_text(encoding="utf-8"))["url"]
        yield Floor(url, data_dir, started.stdout)
    finally:
        watchfloor(data_dir, "down", timeout_s=90)
