"""kill -9 of each part of the broadcast path of a floor, under load: every socket comes back and misses nothing."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from bench.recovery import PARTS

pytestmark = [pytest.mark.chaos, pytest.mark.floor, pytest.mark.timeout(900)]


def test_whatever_is_killed_each_socket_gets_each_publication_once(pytestconfig: pytest.Config) -> None:
    """200 sockets: all positions are recovered, no offset is used for two publications."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.recovery", "--json", "--sockets", "200", "--per-s", "10"],
        cwd=pytestconfig.rootpath,
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
        timeout=880,
        check=True,
    )
    found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    assert [figures["killed"] for figures in found] == list(PARTS)
    for figures in found:
        print(figures)
        wrong = {name: figures[name] for name in ("lost", "doubled", "unordered", "reused") if figures[name]}
        assert not wrong, figures
        assert figures["recovered"] in (None, 1.0), figures
    cut = {figures["killed"] for figures in found if figures["cut"]}
    assert cut == {"gateway replica", "proxy"}
