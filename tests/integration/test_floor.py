"""The running floor as its users meet it on the command line."""

import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.floors import Floor

pytestmark = pytest.mark.floor


def test_status_is_one_object(floor: Floor) -> None:
    """Every part runs, readings arrive, and nothing was dead-lettered."""
    status = floor.status()

    assert {"url", "services", "readings_total", "alerts_total", "dead_letters_total", "runs"} <= status.keys()
    assert status["phase"] == "ready"
    states = {name: part["state"] for name, part in status["services"].items()}
    assert {"mqtt", "redis", "database", "storage", "ray", "gateway", "ingest", "detector"} <= states.keys()
    assert set(states.values()) == {"running"}


def test_a_second_up_says_that_it_runs(floor: Floor) -> None:
    """It gives the address and starts nothing."""
    done = floor.cli("up")

    assert done.returncode == 0
    assert "already runs" in done.stdout
    assert floor.url in done.stdout


def test_page_and_api_ask_who_is_there(floor: Floor) -> None:
    """No data without a token; with one, the API answers."""
    url = f"{floor.url}/api/v1/status"
    with pytest.raises(HTTPError) as refused:
        urlopen(url, timeout=5)
    with urlopen(Request(url, headers={"Authorization": f"Bearer {floor.token()}"}), timeout=5) as answer:
        assert answer.status == 200

    assert refused.value.code == 401
    refused.value.close()


def test_doctor_finds_no_error_and_lists_what_is_exposed(floor: Floor) -> None:
    """Ray, broker and stores listen on loopback; what does not is named, and known to us."""
    done = floor.cli("doctor", "--json")

    assert done.returncode == 0, done.stdout
    exposed = re.findall(r"\S+:\d+ \(([^)]*)\)", done.stdout)
    assert set(exposed) <= {"haproxy", "ray::ServeRepli"}


def test_env_points_to_this_floor(floor: Floor) -> None:
    """The lines work in a shell and name the floor's own Ray and token."""
    env = floor.env()

    assert env["RAY_ADDRESS"].startswith("127.0.0.1:")
    assert env["RAY_API_SERVER_ADDRESS"].startswith("http://127.0.0.1:")
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] == str(floor.data_dir / "ray-token")


def test_lanes_are_shown(floor: Floor) -> None:
    """The seed's `inspect active_queues`."""
    done = floor.cli("lanes")

    assert done.returncode == 0
    assert all(name in done.stdout for name in ("ml_training", "ai_processing", "general", "external"))
