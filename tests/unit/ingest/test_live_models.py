"""An alias moves by compare-and-set, and a version that cannot score is refused."""

from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest
from sqlalchemy import Engine

from cluster.store import read_transaction, write_transaction
from ingest import scorer as scorer_module
from ingest.errors import ScorerError, StaleRevisionError
from ingest.live_models import LiveModel, read_live_model, write_live_model
from ingest.scorer import load_scorer
from tests.fakes_alerts import LastDifference


def promote(engine: Engine, version: str, expected_revision: int) -> LiveModel:
    with write_transaction(engine) as connection:
        return write_live_model(
            connection,
            scorer="anomaly_detector",
            version=version,
            uri=f"file:///models/{version}",
            expected_revision=expected_revision,
            at=1.0,
        )


def current(engine: Engine) -> LiveModel | None:
    with read_transaction(engine) as connection:
        return read_live_model(connection)


def test_an_alias_never_set_points_nowhere(sql: Engine) -> None:
    """Then the baseline judges."""
    assert current(sql) is None


def test_every_change_raises_the_revision(sql: Engine) -> None:
    """So a reader sees a change by one number."""
    first = promote(sql, "v1", 0)
    second = promote(sql, "v2", first.revision)

    assert (first.revision, second.revision) == (1, 2)
    assert current(sql) == second


@pytest.mark.parametrize("expected_revision", [0, 2])
def test_the_slower_of_two_writers_is_refused(sql: Engine, expected_revision: int) -> None:
    """And nothing is changed by it."""
    promote(sql, "v1", 0)

    with pytest.raises(StaleRevisionError, match=f"revision {expected_revision}"):
        promote(sql, "v2", expected_revision)

    held = current(sql)
    assert held is not None
    assert held.version == "v1"


class BadShape(LastDifference):
    def residuals(self, windows_BW: np.ndarray) -> np.ndarray:
        return np.zeros((len(windows_BW), 2), dtype=np.float32)


class NotANumber(LastDifference):
    def residuals(self, windows_BW: np.ndarray) -> np.ndarray:
        return np.full(len(windows_BW), np.nan, dtype=np.float32)


def load_good(uri: str, version: str) -> LastDifference:
    return LastDifference(version)


def load_bad_shape(uri: str, version: str) -> LastDifference:
    return BadShape(version)


def load_nan(uri: str, version: str) -> LastDifference:
    return NotANumber(version)


def load_truncated(uri: str, version: str) -> LastDifference:
    raise OSError(f"{uri} is truncated")


def a_model(scorer: str) -> LiveModel:
    return LiveModel("champion", scorer, "v7", "file:///models/v7", 1, 1.0)


@pytest.fixture
def _entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> EntryPoints:
        names = ("load_good", "load_bad_shape", "load_nan", "load_truncated")
        return EntryPoints(Point(name, f"tests:{name}", group) for name in names)

    monkeypatch.setattr(scorer_module, "entry_points", entry_points)


class Point(EntryPoint):
    """An entry point into this file, which importlib mode gives no importable name."""

    def load(self) -> object:
        return globals()[self.name]


@pytest.mark.usefixtures("_entry_points")
def test_a_version_is_loaded_by_its_entry_point() -> None:
    """Name and version say what scored."""
    assert load_scorer(a_model("load_good")).version == "v7"


@pytest.mark.usefixtures("_entry_points")
@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        pytest.param("os.system", "no entry point", id="not-installed"),
        pytest.param("load_truncated", "truncated", id="files"),
        pytest.param("load_bad_shape", "trial", id="shape"),
        pytest.param("load_nan", "trial", id="nan"),
    ],
)
def test_a_version_that_cannot_score_is_refused(scorer: str, reason: str) -> None:
    """Before any detector depends on it, with the reason."""
    with pytest.raises(ScorerError, match=reason):
        load_scorer(a_model(scorer))
