"""``watchfloor rules``: check a file of rules, and try it on readings of the past."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cluster.settings import load_section
from ingest.errors import RulesFileError
from serve_apps.cli_options import AsJson, DataDir, fail, settings_of
from serve_apps.floor_state import FloorFolder

if TYPE_CHECKING:  # a command that needs no rules is not to wait for them
    from ingest.rules.model import Rule

app = typer.Typer(no_args_is_help=True, help="Threshold, rate and absence rules in a file: check it, try it.")

RulesPath = Annotated[Path | None, typer.Argument(help="File of rules; left out: WATCHFLOOR_RULES_FILE.")]


@app.command("check")
def rules_check(file: RulesPath = None, as_json: AsJson = False) -> None:
    """Say what a file of rules holds, or every mistake in it with its line (exit status 1)."""
    from serve_apps import rules_line as line

    path, found = _rules(file, as_json=as_json)
    if as_json:
        print(json.dumps({"file": str(path), "rules": line.rules_json(found), "problems": []}, indent=2))
    else:
        Console().print(line.render_rules(path, found))


@app.command("try")
def rules_try(
    file: RulesPath = None,
    data: Annotated[
        str, typer.Option(help="recorded, recorded:SERIES, archive, archive:TENANT or archive:TENANT/DEVICE.")
    ] = "recorded",
    days: Annotated[float, typer.Option(min=0.01, help="How far back an archive is read.")] = 7.0,
    site: Annotated[str | None, typer.Option(help="Where all these devices stand, for rules that name a site.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show when each rule would have fired and cleared on readings of the past, and how often a day."""
    from ingest.rules.trial import try_rules
    from ingest.rules.trial_data import readings_of
    from serve_apps import rules_line as line

    _, found = _rules(file, as_json=as_json)
    settings = settings_of(data_dir)
    record = FloorFolder.of(settings).read()
    storage_url = settings.storage_url or (record.urls.get("STORAGE_URL", "") if record is not None else "")
    if data.startswith("archive") and not storage_url:
        fail("there is no archive: no floor has run here, and STORAGE_URL is not set")
    try:
        readings, ends_at = readings_of(data, storage_url, days)
        outcome = try_rules(found, readings, site, ends_at)
    except ValueError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(outcome.to_json(), indent=2))
    else:
        Console().print(line.render_trial(outcome, data))


def _rules(file: Path | None, *, as_json: bool) -> "tuple[Path, tuple[Rule, ...]]":
    from ingest.rules.rules_file import read_rules
    from ingest.rules.settings import RulesSettings

    path = file or Path(load_section(RulesSettings).file)
    if path == Path():
        fail("name a file of rules, or set WATCHFLOOR_RULES_FILE")
    try:
        return path, read_rules(path)
    except RulesFileError as error:
        if as_json:
            print(json.dumps({"file": str(path), "rules": [], "problems": list(error.problems)}, indent=2))
        else:
            for problem in error.problems:
                print(f"{path}: {problem}", file=sys.stderr)
        sys.exit(1)
