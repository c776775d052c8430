"""``watchfloor directory`` on a data folder without a floor: before the first start, and from standard input."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serve_apps import cli

FILE = "kind,id,tenant,client\ntenant,acme\nclient,north,acme\ndevice,pump-7,acme,north\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(folder: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, ["directory", *arguments, "--data-dir", str(folder)], input=stdin)


def listed(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(run(folder, "list", *arguments, "--json").stdout)["items"]
    return items


def test_a_directory_can_be_there_before_the_floor(folder: Path, tmp_path: Path) -> None:
    """Import, dry run, export, list, show: the same file again changes nothing, an export is an import."""
    path = tmp_path / "acme.csv"
    path.write_text(FILE, encoding="utf-8")
    dry = run(folder, "import", str(path), "--dry-run", "--json")
    assert json.loads(dry.stdout)["written"] is False
    assert listed(folder, "device") == []

    said = run(folder, "import", str(path))
    assert (said.exit_code, said.stdout) == (0, "tenants: 1 created\nclients: 1 created\ndevices: 1 created\n")
    exported = run(folder, "export", "--tenant", "acme").stdout
    again = run(folder, "import", "-", "--prune", "--json", stdin=exported)
    report = json.loads(again.stdout)
    assert (report["unchanged"], report["created"], report["removed"]) == (
        {"tenant": 1, "client": 1, "device": 1},
        {},
        {},
    )

    assert [item["id"] for item in listed(folder, "device", "--tenant", "acme", "--search", "PUMP")] == ["pump-7"]
    assert listed(folder, "device", "--unknown") == []
    assert "pump-7" in run(folder, "list", "device").stdout
    shown = run(folder, "show", "device", "acme/pump-7", "--json")
    assert json.loads(shown.stdout)["updated_by"] == "local"
    assert "north" in run(folder, "show", "device", "acme/pump-7").stdout


def test_a_file_with_mistakes_names_their_rows_and_changes_nothing(folder: Path) -> None:
    """On standard error, with exit status 1; for scripts the same as JSON."""
    wrong = FILE + "device,pump 8,acme,\ndevice,pump-9,acme,south\n"
    said = run(folder, "import", "-", stdin=wrong)
    as_json = run(folder, "import", "-", "--json", stdin=wrong)

    assert said.exit_code == as_json.exit_code == 1
    assert said.stdout == ""
    assert "row 5: the id of a device" in said.stderr
    assert "row 6: there is no client acme/south" in said.stderr
    assert [problem["row"] for problem in json.loads(as_json.stdout)["problems"]] == [5, 6]
    assert listed(folder, "tenant") == []


def test_what_is_not_there_is_said_in_a_sentence(folder: Path) -> None:
    """Exit status 2, or the error that ``main`` turns into one."""
    assert run(folder, "show", "device", "pump-7").exit_code == 2
    assert str(run(folder, "show", "device", "acme/pump-7").exception) == "there is no device acme/pump-7"
    assert isinstance(run(folder, "import", "no-such-file.csv").exception, OSError)
