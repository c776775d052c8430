"""A floor that starts no service of its own: all five are somebody else's, and stay as they were when it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.util.state import list_actors
from sqlalchemy import create_engine, text

from cluster.process import find_marked
from serve_apps.floor_state import FloorFolder, FloorRecord
from tests.floors import Floor, watchfloor
from tests.ingest_parts import StoppableService, eventually, own_mosquitto, own_valkey
from tests.local_ray import LocalRay, local_ray
from tests.postgres import Postgres

pytestmark = [pytest.mark.floor, pytest.mark.ray, pytest.mark.mosquitto, pytest.mark.postgres, pytest.mark.timeout(400)]


@dataclass(frozen=True, slots=True)
class Services:
    """What somebody else runs, and where a floor is told to find it."""

    folder: Path
    broker: StoppableService
    valkey: StoppableService
    database_url: str
    ray: LocalRay

    @property
    def env(self) -> dict[str, str]:
        return {
            "MQTT_URL": self.broker.url,
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": self.database_url,
            "STORAGE_URL": (self.folder / "files").as_uri(),
            "RAY_ADDRESS": self.ray.address,
        }

    def actors(self) -> set[str]:
        """The living actors of floors and of Serve."""
        found = list_actors(address=self.ray.dashboard_url, filters=[("state", "=", "ALIVE")], detail=True)
        return {actor.name or actor.class_name for actor in found if actor.ray_namespace in ("watchfloor", "serve")}


@pytest.fixture
def services(tmp_path: Path, postgres: Postgres) -> Iterator[Services]:
    folder = tmp_path / "services"
    with (
        _running(own_mosquitto(folder / "broker")) as broker,
        _running(own_valkey(folder / "valkey")) as valkey,
        contextmanager(postgres.lend_database)() as database_url,
        # Without the address of its dashboard: where jobs are taken must come from the Ray itself.
        local_ray(env={"RAY_API_SERVER_ADDRESS": ""}) as ray,
    ):
        yield Services(folder, broker, valkey, database_url, ray)


@contextmanager
def _running(service: StoppableService) -> Iterator[StoppableService]:
    service.start()
    try:
        yield service
    finally:
        service.stop()


@pytest.mark.chaos  # long: two and a half minutes; that a dead service is named is tested in test_floor_refusals.py
def test_every_service_can_be_somebody_elses(services: Services, tmp_path: Path) -> None:
    """Readings go through the given services only; Ctrl-C ends the floor and leaves nothing on their Ray."""
    data_dir, output = tmp_path / "floor", tmp_path / "said"
    program = str(Path(sys.executable).parent / "watchfloor")
    with output.open("wb") as said:
        process = subprocess.Popen(
            [program, "up", "--data-dir", str(data_dir)],
            env=os.environ | services.env,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "the floor is ready" in output.read_text() or process.poll() is not None, 200)
        assert "the floor is ready" in output.read_text()
        floor = Floor(_record(data_dir).url, data_dir)
        _all_goes_there(floor, services)
        _a_job_finds_the_services(floor, services)
        _status_names_what_is_away(floor, services)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)
    lines = output.read_text().splitlines()
    assert lines[-1] == "the floor is stopped"
    assert '  eval "$(watchfloor env)"' in lines
    for begin in ("sign in (once, within 10 minutes): http://", "  ray job submit --working-dir . --runtime-env-json "):
        assert any(line.startswith(begin) for line in lines)
    assert find_marked(_record(data_dir).floor_id) == []
    assert services.actors() == set()


@pytest.mark.chaos
def test_what_a_floor_has_on_ray_is_taken_off_by_its_own_folder_only(services: Services, tmp_path: Path) -> None:
    """Another folder is refused; after a kill the next `up` replaces the actors, which know the services of then."""
    data_dir = tmp_path / "floor"

    def up(**env: str) -> FloorRecord:
        done = watchfloor(data_dir, "up", "--detach", "--no-demo", env=services.env | env, timeout_s=320)
        assert done.returncode == 0, done.stderr
        return _record(data_dir)

    try:
        first = up(WATCHFLOOR_TOPIC_ROOT="before")
        other = watchfloor(tmp_path / "other", "up", "--no-demo", env=services.env, timeout_s=90)
        assert other.returncode == 2
        assert f"has the floor of {socket.gethostname()}:{data_dir}" in other.stderr
        assert services.actors() >= {"hub", "ingest-0", "SERVE_CONTROLLER_ACTOR"}
        os.kill(first.supervisor.pid, signal.SIGKILL)
        assert eventually(lambda: not first.supervisor.is_running())
        assert "ingest-0" in services.actors()
        up(WATCHFLOOR_TOPIC_ROOT="after")
        found = list_actors(address=services.ray.dashboard_url, filters=[("name", "=", "ingest-0")], detail=True)
        roots = {actor.state: actor.serialized_runtime_env for actor in found}
        assert '"after"' in roots["ALIVE"]
        assert '"before"' in roots["DEAD"]
    finally:
        watchfloor(data_dir, "down", timeout_s=90)
    assert services.actors() == set()


def _all_goes_there(floor: Floor, services: Services) -> None:
    status = floor.status()
    states = {name: status["services"][name]["state"] for name in ("mqtt", "redis", "database", "storage", "ray")}
    assert set(states.values()) == {"external"}
    own = {Path(f"/proc/{one.pid}/comm").read_text().strip() for one in find_marked(_record(floor.data_dir).floor_id)}
    assert not {"nats-server", "valkey-server", "raylet", "gcs_server"} & own
    # None: ingest did not answer in time, as on a busy machine.
    before = status["readings_total"] or 0
    assert eventually(lambda: (floor.status()["readings_total"] or 0) > before, 60, every_s=0.5)
    assert eventually(lambda: any((services.folder / "files").rglob("*.parquet")), 60)
    engine = create_engine(services.env["DATABASE_URL"])
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM devices")).scalar_one() > 0
    engine.dispose()
    assert not (floor.data_dir / "floor.db").exists()
    assert not any((floor.data_dir / "storage").iterdir())


def _a_job_finds_the_services(floor: Floor, services: Services) -> None:
    code = "from cluster.settings import Settings; print(Settings.load().storage_url)"
    line = f'ray job submit --runtime-env-json "$WATCHFLOOR_RUNTIME_ENV" -- python -c "{code}"'
    done = subprocess.run(
        ["bash", "-c", line], env=os.environ | floor.env(), capture_output=True, text=True, timeout=90, check=False
    )
    assert services.env["STORAGE_URL"] in done.stdout.splitlines(), done.stdout + done.stderr


def _status_names_what_is_away(floor: Floor, services: Services) -> None:
    services.valkey.kill()
    try:
        # Wide enough for the table's longest line.
        done = watchfloor(floor.data_dir, "status", env={"COLUMNS": "250"})
    finally:
        services.valkey.start()
    assert done.returncode == 0
    assert done.stderr == ""
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("redis ")]
    assert "waiting" in line
    assert "REDIS_URL at redis://127.0.0.1" in line
    assert "cannot be reached" in line
    assert eventually(lambda: floor.status()["services"]["redis"]["state"] == "external")


def _record(data_dir: Path) -> FloorRecord:
    record = FloorFolder(data_dir).read()
    assert record is not None
    return record
