"""``python -m training datasets | dataset | freeze | import | export``, each as text and as JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli_datasets import app
from training.errors import DatasetFileError, HyperparameterError, UnknownDatasetError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def floor(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A floor of its own, and a folder to work in."""
    (tmp_path / "floor.db").write_bytes(migrated_file.read_bytes())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/floor.db")
    monkeypatch.setenv("STORAGE_URL", (tmp_path / "storage").as_uri())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> str:
    result = RUNNER.invoke(app, list(argv), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_file_becomes_a_version_and_a_file_again(floor: Path) -> None:
    """Import, list, show, export; the second time the same content is the same version."""
    lines = [
        f"acme/pump-{device}/bar,{ts},{ts % 7},{'1' if 50 <= ts < 60 else '0'}"
        for device in range(8)
        for ts in range(100)
    ]
    (floor / "pumps.csv").write_text("\n".join(["series,ts,value,label", *lines, "acme/pump-0/bar,7,nan,0"]) + "\n")
    said = run("import", "pumps.csv")
    again = json.loads(run("import", "pumps.csv", "--json"))
    shown = json.loads(run("dataset", "pumps", "--json"))

    assert "1 rows without a number were left out" in said
    assert "pumps:1 is " in said
    assert "800 readings of 8 series, 8 labels, 1 devices held out" in said
    assert (again["reference"], again["tenant"], again["is_kept"]) == ("pumps:1", "acme", True)
    assert shown["labels_are_complete"]
    assert len(shown["source"]["sha256"]) == 64
    assert shown["series"][0] | {"trains": True} == {
        "key": "acme/pump-0/bar", "readings": 100, "from_ts": 0.0, "to_ts": 99.0,
        "validation_from": 70.0, "held_out_from": 85.0, "trains": True,
    }  # fmt: skip
    assert sum(not one["trains"] for one in shown["series"]) == 1
    assert "pumps:1" in run("datasets")
    assert [one["id"] for one in json.loads(run("datasets", "--json"))] == [again["id"]]
    assert "acme/pump-7/bar" in run("dataset", "pumps")

    assert "pumps-1.parquet" in run("export", "pumps")
    out = json.loads(run("export", again["id"], "--format", "nab", "--out", "folder", "--json"))
    assert len(out["files"]) == 9
    back = json.loads(run("import", "folder", "--name", "back", "--json"))
    assert back["content"] == again["content"]


def test_a_source_is_frozen_under_a_name(floor: Path) -> None:
    said = run("freeze", "taxi", "--from", "recorded:nyc_taxi", "--holdout", "0.3")
    held = json.loads(run("freeze", "all", "--from", "recorded", "--hold-out", "recorded/nyc_taxi", "--json"))

    assert "taxi:1 is " in said
    assert "10320 readings of 1 series, 5 labels, 0 devices held out" in said
    assert held["num_held_out_devices"] == 1


def test_mistakes_are_said(floor: Path) -> None:
    (floor / "x.txt").write_text("ts,value\n1,2\n")
    for argv, error, reason in (
        (("dataset", "none"), UnknownDatasetError, "there are none yet"),
        (("import", "x.txt"), DatasetFileError, "say by --format"),
        (("import", "no.csv"), DatasetFileError, "there is no such file"),
        (("import", "x.txt", "--format", "csv", "--name", "recorded"), UnknownDatasetError, "a name is"),
        (("import", "x.txt", "--format", "csv", "--holdout", "0.9"), HyperparameterError, "between 0.01 and 0.4"),
    ):
        with pytest.raises(error, match=reason):
            run(*argv)


def test_what_to_look_at_first_is_found() -> None:
    """As text and as JSON, with what people have said of it."""
    found = json.loads(run("find", "recorded:nyc_taxi", "--top", "3", "--json"))
    said = run("find", "recorded:nyc_taxi", "--top", "3")

    assert [one["series"] for one in found] == ["recorded/nyc_taxi/value"] * 3
    assert all(one["from_ts"] <= one["peak_ts"] <= one["to_ts"] for one in found)
    assert any(one["labels"] for one in found)
    assert "anomaly" in said
