"""The commands of ``python -m training`` about versions: list them, promote one, go back.

Reads and moves the aliases in the SQL store and the registry on the storage, which
``eval "$(watchfloor env)"`` names; whoever can read these can do this. No Ray.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from cluster.settings import Settings
from cluster.store import open_engine, read_transaction
from ingest.live_models import CHALLENGER, CHAMPION, PREVIOUS, LiveModel, read_live_model
from ingest.model_trial import list_trials
from training.errors import ModelVersionNotFoundError
from training.registry import lineage
from training.registry.manifest import Manifest
from training.registry.promotion import promote as move
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry, read_manifest
from training.runs.order import MODEL_TYPES
from training.runs.terminal import shell_user

app = typer.Typer(no_args_is_help=True, help="Versions of models: which is live, which were tried, and the way back.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the journal.")]
ModelOption = Annotated[str, typer.Option("--model", help="Model type.")]


@app.command("list")
def list_versions(model: ModelOption = MODEL_TYPES[0], as_json: JsonOption = False) -> None:
    """List versions, newest first, with the aliases that point to them and what became of their trials."""
    settings = Settings.load()
    registry = ModelRegistry(Storage(settings.storage_url))
    with _engine(settings) as engine, read_transaction(engine) as connection:
        found = [
            lineage.of_version(connection, registry.manifest(model, version))
            for version in reversed(registry.versions(model))
        ]
    if as_json:
        print(json.dumps(found))
        return
    table = Table("version", "alias", "trial", "data set", "accuracy", "run", box=None)
    for one in found:
        trials = ", ".join(f"{trial['state']}: {trial['reason']}" for trial in one["trials"][:1])
        accuracy = one["metrics"].get("accuracy")
        dataset = str(one["made_from"]["dataset"].get("name", ""))
        shown = "" if accuracy is None else f"{accuracy:.3f}"
        table.add_row(one["version"], ", ".join(one["aliases"]), trials, dataset, shown, one["made_by"]["run_id"])
    Console().print(table)


@app.command()
def show(version: str, model: ModelOption = MODEL_TYPES[0]) -> None:
    """Print all that is known of a version, as JSON: where it comes from and what became of it."""
    settings = Settings.load()
    manifest = ModelRegistry(Storage(settings.storage_url)).manifest(model, version)
    with _engine(settings) as engine, read_transaction(engine) as connection:
        print(json.dumps(lineage.of_version(connection, manifest), indent=1))


@app.command()
def trials(limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: JsonOption = False) -> None:
    """List trials, newest first."""
    with _engine(Settings.load()) as engine, read_transaction(engine) as connection:
        found = [lineage.trial_to_json(trial) for trial in list_trials(connection, limit)]
    if as_json:
        print(json.dumps(found))
        return
    table = Table("version", "state", "readings", "champion's alerts", "its alerts", "reason", box=None)
    for one in found:
        counts = (one["readings"], one["champion_alerts"], one["challenger_alerts"])
        table.add_row(one["version"], one["state"], *map(str, counts), one["reason"])
    Console().print(table)


@app.command()
def promote(
    version: str, reason: ReasonOption, model: ModelOption = MODEL_TYPES[0], as_json: JsonOption = False
) -> None:
    """Make a version the champion at once, without a trial."""
    settings = Settings.load()
    registry = ModelRegistry(Storage(settings.storage_url))
    manifest = registry.manifest(model, version)
    _move(settings, manifest, registry.uri(manifest), reason, as_json)


@app.command()
def rollback(reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Make the version before the champion champion again."""
    settings = Settings.load()
    with _engine(settings) as engine:
        previous = _alias(engine, PREVIOUS)
    if previous is None:
        raise ModelVersionNotFoundError(MODEL_TYPES[0], "(the one before the champion)")
    _move(settings, read_manifest(previous.uri), previous.uri, f"rolled back by hand: {reason}", as_json)


def _move(settings: Settings, manifest: Manifest, uri: str, reason: str, as_json: bool) -> None:
    with _engine(settings) as engine:
        before = _alias(engine, CHAMPION)
        revision = before.revision if before is not None else 0
        who = shell_user()
        live = move(engine, manifest, uri, reason=reason, at=time.time(), expected_revision=revision, user_id=who)
    document: dict[str, Any] = dataclasses.asdict(live) | {"replaced": before.version if before else None}
    print(json.dumps(document) if as_json else f"{live.scorer}@{live.version} is champion, revision {live.revision}")


def _alias(engine: Engine, alias: str) -> LiveModel | None:
    assert alias in {CHAMPION, CHALLENGER, PREVIOUS}
    with read_transaction(engine) as connection:
        return read_live_model(connection, alias)


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = open_engine(settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()
