"""The commands of ``python -m training`` about reports: make one, and show it.

``evaluate`` runs in the lane ``ai_processing`` of the cluster; ``report`` reads what is there, without Ray.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from cluster.settings import Settings
from cluster.store import open_engine
from training.data import catalogue
from training.evaluation.report_files import read_report
from training.registry.manifest import Manifest
from training.registry.references import find_version
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.runs.driver import connect_ray
from training.runs.order import FALSE_PER_DAY, LEAST_FALSE_PER_DAY, MOST_FALSE_PER_DAY
from training.runs.terminal import shell_user
from training.tasks import evaluate_model

app = typer.Typer(help="Reports: how good a version's alerts are, beside honest baselines.")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[:VERSION]", help="A type for its newest version; champion and previous are versions."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

COLUMNS = {
    "vus_pr": ("VUS-PR", 3),
    "affiliation_f1": ("affiliation F1", 3),
    "event_recall": ("events found", 2),
    "false_per_device_day": ("false/device/day", 3),
    "delay_s": ("delay, min", 0),
    "event_recall_at_price": ("found at price", 2),
}
"""Figures of the table, with their titles and digits."""


@app.command()
def evaluate(
    model: Model,
    dataset: Annotated[str, typer.Option(help="What to judge it on, see ``datasets``.")] = "telemetry",
    price: Annotated[
        float,
        typer.Option(
            "--false-alarms-per-day",
            min=LEAST_FALSE_PER_DAY,
            max=MOST_FALSE_PER_DAY,
            help="What people bear, per device.",
        ),
    ] = FALSE_PER_DAY,
    as_json: JsonOption = False,
) -> None:
    """Judge a version on a data set's held-out part, and keep the report beside the version."""
    connect_ray()
    handle = evaluate_model.submit(model, dataset, shell_user(), price)
    try:
        with Console(stderr=True).status(f"judging {model} on {dataset}"):
            result = handle.result()
    except KeyboardInterrupt:
        handle.cancel()
        raise
    model_type, _, version = result["model_id"].partition("@")
    storage = Storage(Settings.load().storage_url)
    _show(read_report(storage, model_type, version, result["dataset_version"]), as_json=as_json)


@app.command()
def report(
    model: Model,
    dataset: Annotated[str, typer.Option(help="Which one; default: the newest report.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show a report that is there."""
    settings = Settings.load()
    storage = Storage(settings.storage_url)
    engine = open_engine(settings.database_url)
    try:
        manifest: Manifest = find_version(ModelRegistry(storage), engine, model)
        dataset_id = catalogue.resolve(engine, dataset).id if dataset else ""
    finally:
        engine.dispose()
    _show(read_report(storage, manifest.model_type, manifest.version, dataset_id), as_json=as_json)


def _show(document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document))
        return
    held_out, data = document["held_out"], document["dataset"]
    print(
        f"{document['model_id']} on {data['name']} ({data['id'][:12]}): {held_out['readings']} held-out readings of "
        f"{held_out['series']} series, {held_out['events']} events, {held_out['device_days']:.1f} device-days"
    )
    table = Table(Column("scored by", overflow="fold"), *(title for title, _ in COLUMNS.values()), box=None)
    for scorer in document["scorers"]:
        table.add_row(scorer["name"], *(_cell(name, scorer["figures"][name]) for name in COLUMNS))
    Console().print(table)
    print(
        f"in brackets 95 % intervals; the price is {document['settings']['false_per_day']:g} false alarms a "
        "device and day"
    )
    for against in document["comparisons"]:
        if against["vus_pr"]["value"] is not None:
            print(f"VUS-PR above {against['against']}: {_figure(against['vus_pr'], 3)}")
    for note in document["notes"]:
        print(f"note: {note}")


def _cell(name: str, figure: Mapping[str, Any]) -> str:
    if name == "delay_s":
        figure = {field: value / 60 if field != "n" and value is not None else value for field, value in figure.items()}
    return _figure(figure, COLUMNS[name][1])


def _figure(figure: Mapping[str, Any], digits: int) -> str:
    if figure["value"] is None:
        return "-"
    interval = "" if figure["low"] is None else f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    return f"{figure['value']:.{digits}f}{interval}"
