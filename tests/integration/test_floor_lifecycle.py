"""Floors of two checkouts and two users beside each other: jobs, kills, starts; neither disturbs the other."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from cluster.process import find_marked
from tests.checkouts import Checkout
from tests.floors import Floor

pytestmark = [pytest.mark.floor, pytest.mark.timeout(600)]

UP = "watchfloor up --detach --no-demo"


@dataclass(frozen=True, slots=True)
class SecondFloor:
    """The floor of the second checkout; its data folder is where a user finds it."""

    checkout: Checkout

    @property
    def data_dir(self) -> Path:
        return self.checkout.folder / ".watchfloor"

    @property
    def url(self) -> str:
        url: str = _record(self.data_dir)["url"]
        return url

    def up(self) -> None:
        self.said(UP, 320)

    def token(self) -> str:
        return self.said("watchfloor token")

    def on_ray(self, line: str) -> str:
        """Run a line in a shell that was pointed at the floor's Ray."""
        return self.said(f'eval "$(watchfloor env)"; {line}')

    def said(self, line: str, timeout_s: float = 90.0) -> str:
        done = self.checkout.shell(line, timeout_s)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture
def second() -> Iterator[SecondFloor]:
    """Another checkout's floor, without the demo; another user's where root runs the tests."""
    # Not tmp_path, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="wf-second-"))
    folder.chmod(0o755)
    second = SecondFloor(Checkout.create(folder))
    print(f"the second floor belongs to {second.checkout.user or 'the same user'}")
    try:
        second.up()
        yield second
    finally:
        second.checkout.shell("watchfloor down", 90)
        shutil.rmtree(folder, ignore_errors=True)


def test_two_floors_do_not_meet(floor: Floor, second: SecondFloor) -> None:
    """Own ports, keys and jobs; gateway, service and supervisor of one are killed, and the other never notices."""
    before, other = _record(floor.data_dir), _record(second.data_dir)
    assert set(_ports(before)).isdisjoint(_ports(other))
    token = second.token()
    assert _answer(second.url, token) == 200
    assert _answer(second.url, floor.token()) == 401
    _submit(lambda line: _on_ray(floor, line), "3601")
    _submit(second.on_ray, "3602")
    _until(lambda: len(_running("3601")) == len(_running("3602")) == 1)
    job = _running("3601")

    gateway = [one.pid for one in find_marked(other["floor_id"]) if _is_gateway(one.pid)]
    assert len(gateway) >= 2, "a replica and HAProxy"
    for pid in gateway:
        os.kill(pid, signal.SIGKILL)
    answers: list[int] = []
    _until(lambda: answers.append(_answer_or_none(second.url, token)) or answers[-1] == 200, 90)
    # The first floor would not know the token.
    assert 401 not in answers

    os.kill(_services(second.data_dir)["redis"]["pid"], signal.SIGKILL)
    _until(lambda: _services(second.data_dir)["redis"]["restarts"] == 1)
    _until(lambda: _services(second.data_dir)["redis"]["state"] == "running")

    os.kill(other["supervisor"]["pid"], signal.SIGKILL)
    _until(lambda: _answer_or_none(second.url, token) == 0)
    assert _answer(floor.url, floor.token()) == 200
    second.up()
    assert not find_marked(other["floor_id"])
    assert _running("3602") == []

    again = _record(second.data_dir)
    second.said("watchfloor down")
    assert not find_marked(again["floor_id"])
    assert second.checkout.shell("watchfloor status --json").returncode == 3
    assert before["floor_id"] == _record(floor.data_dir)["floor_id"]
    services = _services(floor.data_dir)
    assert {name: part["restarts"] for name, part in services.items()} == dict.fromkeys(services, 0)
    assert _running("3601") == job
    _end(job)


@pytest.mark.chaos
def test_the_older_floor_may_end_first(second: SecondFloor) -> None:
    """The younger one goes on; it was started while the other's ports were taken."""
    folder = Path(tempfile.mkdtemp(prefix="wf-third-"))
    folder.chmod(0o755)
    third = SecondFloor(Checkout.create(folder))
    try:
        third.up()
        _submit(third.on_ray, "3603")
        _until(lambda: len(_running("3603")) == 1)
        job = _running("3603")
        second.said("watchfloor down")
        second.up()
        second.said("watchfloor down")
        assert _answer(third.url, third.token()) == 200
        assert _running("3603") == job
    finally:
        third.checkout.shell("watchfloor down", 90)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.chaos
def test_a_killed_ray_head_comes_back(second: SecondFloor) -> None:
    """Ray is started again, and everything on it."""
    (raylet,) = [one for one in find_marked(_record(second.data_dir)["floor_id"]) if _program(one.pid) == "raylet"]
    token = second.token()
    os.kill(raylet.pid, signal.SIGKILL)

    _until(lambda: _services(second.data_dir)["ray"]["restarts"] == 1, 30)
    _until(lambda: _record(second.data_dir)["ready_at"] > time.time() - 60, 120)
    _until(lambda: _answer_or_none(second.url, token) == 200, 120)


def _on_ray(floor: Floor, line: str) -> str:
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, **floor.env()}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _submit(shell: Callable[[str], str], seconds: str) -> None:
    """Submit a job that sleeps; its seconds name it among the machine's processes."""
    shell(f"ray job submit --no-wait -- sleep {seconds}")


def _running(seconds: str) -> list[int]:
    wanted = ["sleep", seconds]
    return [pid for pid in _pids() if _argv(pid) == wanted]


def _end(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def _is_gateway(pid: int) -> bool:
    return _program(pid) == "haproxy" or _argv(pid)[:1] == ["ray::ServeReplica:gateway:Gateway"]


def _record(data_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data_dir / "floor.json").read_text(encoding="utf-8"))
    return content


def _services(data_dir: Path) -> dict[str, Any]:
    services: dict[str, Any] = _record(data_dir)["services"]
    return services


def _ports(record: dict[str, Any]) -> list[str]:
    urls = [*record["urls"].values(), *record["env"].values(), record["url"]]
    return [url.rpartition("127.0.0.1:")[2].partition("/")[0] for url in urls if "127.0.0.1:" in url]


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _answer(url: str, token: str) -> int:
    request = Request(f"{url}/api/v1/status", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def _answer_or_none(url: str, token: str) -> int:
    """The status, or 0 when nothing answers."""
    try:
        return _answer(url, token)
    except OSError:
        return 0


def _until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.2)
