"""The commands of ``python -m training`` about data sets: list, show, freeze, bring in, look through, take out.

Works on the SQL store and the storage, which ``eval "$(watchfloor env)"`` names; whoever can read these can
do this. No Ray.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from cluster.settings import Settings, load_section
from cluster.store import open_engine
from ingest.alerts.model import iso
from training.data import catalogue
from training.data.catalogue import DatasetVersion
from training.data.files import DatasetFormat, ImportSettings, format_of, read_file, write_file
from training.data.versions import load
from training.datasets import DatasetShelf
from training.evaluation.finding import strangest
from training.registry.storage import Storage
from training.runs.terminal import shell_user
from training.settings import TrainSettings, with_hyperparameters

app = typer.Typer(help="Data sets: versions of readings, labels and split.")

SHORT_ID = 12
MANY_SERIES = 20

Reference = Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="A name, a name and a number, or an id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
FormatOption = Annotated[
    DatasetFormat | None, typer.Option("--format", help="Default: what the file's name says; a folder is nab.")
]
HoldOutOption = Annotated[
    list[str] | None,
    typer.Option("--hold-out", metavar="TENANT/DEVICE", help="A device that never trains, repeatable."),
]
FractionOption = Annotated[
    float | None, typer.Option("--holdout", help="Share of each device's readings, the last ones, that judge.")
]


@app.command("datasets")
def list_datasets(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the versions of all data sets."""
    with _shelf() as shelf:
        found = catalogue.list_versions(shelf.engine, limit)
    if as_json:
        print(json.dumps([catalogue.to_json(one) for one in found]))
        return
    _print(found)


@app.command("dataset")
def show_dataset(reference: Reference, as_json: JsonOption = False) -> None:
    """Show one version: its readings, its split, its labels and who gave them."""
    with _shelf() as shelf:
        document = shelf.describe(catalogue.resolve(shelf.engine, reference))
    if as_json:
        print(json.dumps(document))
        return
    series = document.pop("series")
    for name, value in document.items():
        print(f"{name:>20}  {json.dumps(value) if isinstance(value, dict | list) else value}")
    table = Table(Column("series", overflow="fold"), "readings", "from", "held out from", "trains", box=None)
    for one in series[:MANY_SERIES]:
        times = (str(iso(one[field]))[:16] for field in ("from_ts", "held_out_from"))
        table.add_row(one["key"], str(one["readings"]), *times, "yes" if one["trains"] else "never")
    Console().print(table)
    if len(series) > MANY_SERIES:
        print(f"and {len(series) - MANY_SERIES} more; --json has all")


@app.command("freeze")
def freeze_dataset(
    name: Annotated[str, typer.Argument(help="What the data set is called from now on.")],
    source: Annotated[str, typer.Option("--from", help="telemetry[:TENANT/DEVICE], recorded[:SERIES], or a data set.")],
    history_s: Annotated[float | None, typer.Option("--history", help="How far back telemetry is read, in s.")] = None,
    holdout: FractionOption = None,
    hold_out: HoldOutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze readings, the labels of today and a split as a new version; a data set keeps its split."""
    with _shelf() as shelf:
        settings = _settings(history_s=history_s, holdout_fraction=holdout)
        made = shelf.keep(name, source, settings, time.time(), hold_out)
    _say(made, as_json)


@app.command("import")
def import_dataset(
    file: Annotated[Path, typer.Argument(help="A file; of nab also a folder.")],
    kind: FormatOption = None,
    name: Annotated[str, typer.Option(help="What it is called; default: the file's name.")] = "",
    labels: Annotated[Path | None, typer.Option(help="nab's windows, when they lie elsewhere.")] = None,
    holdout: FractionOption = None,
    hold_out: HoldOutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in readings and labels from a file as a new version."""
    form = kind or format_of(file)
    found = read_file(file, form, load_section(ImportSettings), labels)
    called = catalogue.check_name(name or file.stem)
    source: dict[str, Any] = {"format": form.value}
    if file.is_file():
        source["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    with _shelf() as shelf:
        made = shelf.take_in(called, found, source, _settings(holdout_fraction=holdout), time.time(), hold_out)
    if not as_json and found.dropped:
        print(f"{found.dropped} rows without a number were left out")
    if not as_json and found.ignored:
        print(f"columns that mean nothing here were left out: {', '.join(found.ignored)}")
    _say(made, as_json)


@app.command("find")
def find_stretches(
    reference: Annotated[str, typer.Argument(metavar="DATASET", help="As for train: a source or a data set.")],
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many stretches.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Find the stretches least like all others of their series, looking back: what to label first."""
    with _shelf() as shelf:
        dataset = shelf.read(reference, load_section(TrainSettings), time.time())
    labels = dataset.labels.by_series()
    rows = []
    bar = Console(stderr=True)
    series = track(dataset.series, "looking", console=bar, transient=True, disable=not bar.is_terminal)
    for one in strangest(series, top):
        said = {
            span.value for span in labels.get(one.series, ()) if span.from_ts <= one.to_ts and one.from_ts <= span.to_ts
        }
        rows.append(dataclasses.asdict(one) | {"labels": sorted(said)})
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(Column("series", overflow="fold"), "from", "to", "strangest at", "strangeness", "labels", box=None)
    for row in rows:
        times = (str(iso(row[field]))[:19] for field in ("from_ts", "to_ts", "peak_ts"))
        table.add_row(row["series"], *times, f"{row['strangeness']:.1f}", ", ".join(row["labels"]) or "none")
    Console().print(table)


@app.command("export")
def export_dataset(
    reference: Reference,
    kind: FormatOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: named as the data set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version's readings and labels into a file; nothing is written over."""
    with _shelf() as shelf:
        version = catalogue.resolve(shelf.engine, reference)
        form = kind or (format_of(out) if out is not None and out.suffix else DatasetFormat.PARQUET)
        suffix = "" if form is DatasetFormat.NAB else f".{form}"
        stem = f"{version.name}-{version.version}".replace("/", "-").replace(":", "-")
        files = write_file(load(version.id, shelf.storage, version.name), out or Path(f"{stem}{suffix}"), form)
    if as_json:
        print(json.dumps({"reference": version.reference, "id": version.id, "files": [str(one) for one in files]}))
    else:
        more = f" and {len(files) - 1} more" if files[1:] else ""
        print(f"{version.reference}: {version.num_readings} readings, {version.num_labels} labels in {files[0]}{more}")


def _print(found: list[DatasetVersion]) -> None:
    name = Column("data set", overflow="fold")
    table = Table(name, "id", "source", "series", "readings", "labels", "made", "by", box=None)
    for one in found:
        counts = map(str, (one.num_series, one.num_readings, one.num_labels))
        made = str(iso(one.created_at))[:16]
        table.add_row(one.reference, one.id[:SHORT_ID], one.source_kind, *counts, made, one.created_by)
    Console().print(table)


def _say(made: DatasetVersion, as_json: bool) -> None:
    if as_json:
        print(json.dumps(catalogue.to_json(made)))
        return
    counts = f"{made.num_readings} readings of {made.num_series} series, {made.num_labels} labels"
    print(f"{made.reference} is {made.id[:SHORT_ID]}: {counts}, {made.num_held_out_devices} devices held out")


def _settings(**changes: Any) -> TrainSettings:
    given = {name: value for name, value in changes.items() if value is not None}
    return with_hyperparameters(load_section(TrainSettings), given)


@contextmanager
def _shelf() -> Iterator[DatasetShelf]:
    settings = Settings.load()
    engine = open_engine(settings.database_url)
    try:
        yield DatasetShelf(Storage(settings.storage_url), engine, shell_user())
    finally:
        engine.dispose()
