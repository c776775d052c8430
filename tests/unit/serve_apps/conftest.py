"""A gateway in this process for the tests of the HTTP API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes_api import ApiFloor


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiFloor]:
    floor = ApiFloor(tmp_path)
    yield floor
    floor.engine.dispose()
