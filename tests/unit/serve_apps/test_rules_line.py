"""``watchfloor rules``: what it prints, for people and for scripts, and how it ends."""

import json
from pathlib import Path

from typer.testing import CliRunner

from serve_apps.cli import app

SERIES = "recorded:rogue_agent_key_hold"
RULES = "rules:\n  - name: jump\n    metric: value\n    threshold: {above: 0.5, clear_below: 0.1}\n    severity: high\n"


def run(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["rules", *arguments])
    return found.exit_code, found.stdout, found.stderr


def test_a_good_file_is_shown(tmp_path: Path) -> None:
    """As a table, or as one JSON object."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    status, text, _ = run("check", str(path))
    assert status == 0
    assert "1 rule, no mistakes" in " ".join(text.split())
    assert "above 0.5, until below 0.1" in text
    (rule,) = json.loads(run("check", str(path), "--json")[1])["rules"]
    assert rule["fires"] == "above 0.5, until below 0.1"


def test_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    """All of them, on standard error; a script gets them as JSON. Both end with 1."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES + "    severty: x\n    for: soon\n")

    status, text, told = run("check", str(path))
    assert (status, text) == (1, "")
    assert [line.split(": ")[1] for line in told.splitlines()] == ["line 6", "line 7"]
    status, text, _ = run("check", str(path), "--json")
    assert status == 1
    assert len(json.loads(text)["problems"]) == 2
    assert run("try", str(path))[0] == 1
    assert run("check", str(tmp_path / "none.yaml"))[0] == 1
    assert run("check")[0] == 2  # no file and no setting


def test_a_dry_run_shows_when_rules_would_have_fired(tmp_path: Path) -> None:
    """In a table with a line of blocks, and for scripts with every alert."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    status, text, _ = run("try", str(path), "--data", SERIES)
    assert status == 0
    assert "▔" in text
    assert "█" in text
    found = json.loads(run("try", str(path), "--data", SERIES, "--json")[1])
    (rule,) = found["rules"]
    assert found["readings"] == 1882
    assert rule["alerts"] == len(rule["firings"]) > 0
    assert rule["alerts_per_day"] == round(rule["alerts"] / 18.53, 3)
    for firing in rule["firings"]:
        assert firing["value"] > 0.5
        assert firing["raised_at"] < firing["cleared_at"]
    assert run("try", str(path), "--data", "recorded:nothing")[0] == 2
    assert run("try", str(path), "--data", "elsewhere")[0] == 2
    assert run("try", str(path), "--data", "archive", "--data-dir", str(tmp_path))[0] == 2
