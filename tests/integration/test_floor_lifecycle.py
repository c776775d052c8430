"""Floors beside each other, killed and started again; neither disturbs the other."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from cluster.process import find_marked
from tests.floors import Floor, watchfloor

pytestmark = [pytest.mark.floor, pytest.mark.timeout(600)]


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Floor]:
    """Another floor, without the demo."""
    data_dir = tmp_path / "second"
    started = watchfloor(data_dir, "up", "--detach", "--no-demo", timeout_s=320)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield Floor(_record(data_dir)["url"], data_dir)
    finally:
        watchfloor(data_dir, "down", timeout_s=90)


def test_two_floors_do_not_meet(floor: Floor, second: Floor) -> None:
    """Own ports, own keys; a killed supervisor leaves nothing, and the other floor never notices."""
    before = _record(floor.data_dir)
    other = _record(second.data_dir)
    assert set(_ports(before)).isdisjoint(_ports(other))
    assert _answer(second.url, second.token()) == 200
    assert _answer(second.url, floor.token()) == 401

    _kill_service(second, "redis")
    _until(lambda: _services(second)["redis"]["restarts"] == 1 and _services(second)["redis"]["state"] == "running")

    os.kill(other["supervisor"]["pid"], signal.SIGKILL)
    _until(lambda: _nothing_answers(second.url))
    # The other floor's page does not answer in its place, and it was not restarted.
    assert _answer(floor.url, floor.token()) == 200
    again = watchfloor(second.data_dir, "up", "--detach", "--no-demo", timeout_s=320)
    assert again.returncode == 0, again.stderr
    assert not find_marked(other["floor_id"])
    assert second.url == _record(second.data_dir)["url"]

    ended = _record(second.data_dir)
    assert second.cli("down", timeout_s=90).returncode == 0
    assert not find_marked(ended["floor_id"])
    assert second.cli("status", "--json").returncode == 3
    after = _record(floor.data_dir)
    assert before["floor_id"] == after["floor_id"]
    assert {name: part["restarts"] for name, part in _services(floor).items() if "restarts" in part} == {
        name: 0 for name, part in _services(floor).items() if "restarts" in part
    }


@pytest.mark.chaos
def test_a_killed_ray_head_comes_back(second: Floor) -> None:
    """Ray is started again, and everything on it."""
    (raylet,) = [one for one in find_marked(_record(second.data_dir)["floor_id"]) if _program(one.pid) == "raylet"]
    os.kill(raylet.pid, signal.SIGKILL)

    _until(lambda: _services(second)["ray"]["restarts"] == 1, 30)
    _until(lambda: _record(second.data_dir)["ready_at"] > time.time() - 60 and _answers(second), 120)


def _record(data_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data_dir / "floor.json").read_text(encoding="utf-8"))
    return content


def _services(floor: Floor) -> dict[str, Any]:
    services: dict[str, Any] = _record(floor.data_dir)["services"]
    return services


def _ports(record: dict[str, Any]) -> list[str]:
    urls = [*record["urls"].values(), *record["env"].values(), record["url"]]
    return [url.rpartition("127.0.0.1:")[2].partition("/")[0] for url in urls if "127.0.0.1:" in url]


def _kill_service(floor: Floor, name: str) -> None:
    os.kill(_services(floor)[name]["pid"], signal.SIGKILL)


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


def _answers(floor: Floor) -> bool:
    try:
        return _answer(floor.url, floor.token()) == 200
    except OSError:
        return False


def _nothing_answers(url: str) -> bool:
    try:
        urlopen(f"{url}/healthz", timeout=2).close()
    except HTTPError:
        return False
    except OSError:
        return True
    return False


def _until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.2)
