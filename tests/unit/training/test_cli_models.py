"""``python -m training models``: list, promote, go back, each as text and as JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.store import open_engine
from training.cli_models import app
from training.errors import ModelVersionNotFoundError
from training.registry.promotion import journal
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry

RUNNER = CliRunner()


@pytest.fixture
def versions(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two registered versions on a floor of their own, none of them live."""
    (tmp_path / "floor.db").write_bytes(migrated_file.read_bytes())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/floor.db")
    monkeypatch.setenv("STORAGE_URL", (tmp_path / "storage").as_uri())
    registry = ModelRegistry(Storage((tmp_path / "storage").as_uri()))
    return [
        registry.add(
            model_type="anomaly_detector",
            weights=bytes([number]),
            created_at_s=1_700_000_000.0 + number,
            config={},
            dataset={"name": "telemetry"},
            metrics={"accuracy": 0.9},
            settings={},
            seed=0,
            run_id=f"run-{number}",
            user_id="ada",
            libraries={},
        ).version
        for number in (1, 2)
    ]


def run(*argv: str) -> str:
    result = RUNNER.invoke(app, list(argv), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_versions_are_promoted_and_taken_back(versions: list[str], tmp_path: Path) -> None:
    """The journal keeps who and why; the list shows where the aliases point."""
    one, two = versions
    run("promote", one, "--reason", "first")
    assert "revision 2" in run("promote", two, "--reason", "better")
    assert json.loads(run("rollback", "--reason", "too loud", "--json"))["version"] == one

    listed = json.loads(run("list", "--json"))
    assert [(item["version"], item["aliases"]) for item in listed] == [(two, ["previous"]), (one, ["champion"])]
    assert json.loads(run("show", one))["made_by"] == {"run_id": "run-1", "user_id": "ada"}
    assert json.loads(run("trials", "--json")) == []
    assert "champion" in run("list")
    moves = journal(open_engine(f"sqlite:///{tmp_path}/floor.db"))
    assert moves[1].reason == "rolled back by hand: too loud"


def test_without_a_version_before_there_is_no_way_back(versions: list[str]) -> None:
    assert len(versions) == 2
    with pytest.raises(ModelVersionNotFoundError):
        run("rollback", "--reason", "x")
