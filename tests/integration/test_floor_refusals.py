"""`watchfloor up` that cannot work ends at once with one sentence, and leaves nothing behind."""

import socket
from pathlib import Path

import pytest

from tests.floors import watchfloor
from tests.local_ray import local_ray


@pytest.mark.parametrize(
    ("env", "named"),
    [
        pytest.param({"REDIS_URL": "redis://:secret@127.0.0.1:1/0"}, "REDIS_URL at redis://127.0.0.1:1/0", id="redis"),
        pytest.param({"MQTT_URL": "mqtt://u:secret@127.0.0.1:1"}, "MQTT_URL at mqtt://u@127.0.0.1:1", id="mqtt"),
        pytest.param({"RAY_ADDRESS": "127.0.0.1:1"}, "RAY_ADDRESS at 127.0.0.1:1", id="ray"),
        pytest.param({"DATABASE_URL": "postgresql+psycopg://u:secret@127.0.0.1:1/x"}, "DATABASE_URL at", id="sql"),
        pytest.param({"STORAGE_URL": "file:///proc/nowhere"}, "STORAGE_URL at file:///proc/nowhere", id="storage"),
        pytest.param({"STORAGE_URL": "swift://u:secret@host/x"}, "STORAGE_URL at swift://u@host/x", id="storage-kind"),
        pytest.param({"WATCHFLOOR_HTTP_HOST": "0.0.0.0"}, "WATCHFLOOR_SECRET_FILE", id="open-bind"),
        pytest.param({"WATCHFLOOR_HTTP_PORT": "hello"}, "WATCHFLOOR_HTTP_PORT='hello'", id="bad-setting"),
        pytest.param({"WATCHFLOOR_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere", id="data-dir"),
    ],
)
def test_up_names_what_is_missing(env: dict[str, str], named: str, tmp_path: Path) -> None:
    """One sentence, no traceback, no password, status 2."""
    folder = Path(env.get("WATCHFLOOR_DATA_DIR", tmp_path / "floor"))

    done = watchfloor(folder, "up", "--no-demo", env=env, timeout_s=30)

    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret@" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.ray
def test_a_ray_without_the_lanes_resources_is_told_which(tmp_path: Path) -> None:
    """The sentence says what lacks and how a node is started with it."""
    with local_ray(resources={"general": 8, "external": 4, "ai_processing": 1}) as ray:
        done = watchfloor(tmp_path / "floor", "up", "--no-demo", env={"RAY_ADDRESS": ray.address}, timeout_s=90)

    assert done.returncode == 2, done.stderr
    assert "the lanes' resources ai_processing, ml_training" in done.stderr
    assert """ray start --resources='{"ai_processing": 4.0, "ml_training": 1.0}'""" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_page_port_is_named(tmp_path: Path) -> None:
    """A chosen port is not replaced by another one silently."""
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]

        done = watchfloor(tmp_path / "floor", "up", env={"WATCHFLOOR_HTTP_PORT": str(port)}, timeout_s=30)

    assert done.returncode == 2
    assert f"port {port}" in done.stderr


def test_questions_without_a_floor_say_so(tmp_path: Path) -> None:
    """Status tells it with its exit status, `env` and `lanes` with a sentence, `down` is content."""
    for command in ("env", "lanes"):
        done = watchfloor(tmp_path, command)
        assert done.returncode == 3
        assert "watchfloor up" in done.stderr
    assert watchfloor(tmp_path, "status").returncode == 3
    assert watchfloor(tmp_path, "down").returncode == 0
