"""The commands of ``python -m training``.

Parsing and printing only; runs are driven by ``runs/driver.py``. Exit codes: 0 succeeded, 1 the
run did not, 2 the command cannot be carried out, 130 cancelled.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cluster.errors import ClusterError
from cluster.run_queue_client import RunQueueClient, current_submission_id
from cluster.runs import Run, RunState, run_to_json
from training import cli_datasets, cli_labelling, cli_models, cli_reports
from training.runs.compare import compare as side_by_side
from training.runs.driver import connect_ray, drive
from training.runs.job_logs import read_logs
from training.runs.order import TrainingOrder
from training.runs.terminal import describe, open_display, shell_user, watch
from training.tasks import submit_for

app = typer.Typer(help="Train models on the floor's telemetry.", no_args_is_help=True, add_completion=False)

app.add_typer(cli_models.app, name="models")
app.add_typer(cli_datasets.app)
app.add_typer(cli_reports.app)
app.add_typer(cli_labelling.app)

EXIT_CODES = {RunState.SUCCEEDED: 0, RunState.CANCELLED: 130}

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def train(
    dataset: Annotated[
        str, typer.Option(help="telemetry[:TENANT/DEVICE], recorded[:SERIES], or a data set's NAME[:VERSION].")
    ] = "telemetry",
    model: Annotated[str, typer.Option(help="Model type.")] = "anomaly_detector",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Hyperparameter, repeatable.")] = None,
    preset: Annotated[str, typer.Option(help="Named settings, such as anomaly_8gpu_h200.")] = "",
    user: Annotated[str, typer.Option(help="Who hears of the progress; default: the shell's user.")] = "",
    run_id: Annotated[str, typer.Option(help="Run to drive; given by the run queue.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Train a model; shows its progress until it is live."""
    display = open_display(as_json=as_json)
    connect_ray()
    queue = RunQueueClient.connect()
    submission_id = current_submission_id()
    if run_id:
        ended = drive(queue, queue.get(run_id), display)
    else:
        order = TrainingOrder(
            dataset_id=dataset,
            model_type=model,
            hyperparameters=_pairs(set_ or []),
            preset=preset,
            user_id=user or shell_user(),
        )
        if submission_id is not None:
            ended = drive(queue, queue.register(submission_id, order.to_request()), display)
        else:
            ended = _follow(queue, queue.submit(order.to_request()), display.show)
    display.show(ended)
    raise typer.Exit(EXIT_CODES.get(ended.state, 1))


@app.command("drive", hidden=True)
def drive_run(run_id: Annotated[str, typer.Option(help="Run to drive; given by the run queue.")]) -> None:
    """Carry out a run that the queue started; for its jobs."""
    display = open_display(as_json=False)
    connect_ray()
    queue = RunQueueClient.connect()
    ended = drive(queue, queue.get(run_id), display, submit_for)
    display.show(ended)
    raise typer.Exit(EXIT_CODES.get(ended.state, 1))


@app.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs."""
    connect_ray()
    found = RunQueueClient.connect().list(limit)
    if as_json:
        print(json.dumps([run_to_json(run) for run in found]))
        return
    table = Table("run", "model", "data set", "state", "%", "user", "what", box=None)
    for run in found:
        cells = (run.id, run.model_type, run.dataset_id, run.state.value, f"{run.progress:.0f}", run.user_id)
        table.add_row(*cells, describe(run))
    Console().print(table)


@app.command()
def show(run_id: Annotated[str, typer.Argument(help="Id of a run.")], as_json: JsonOption = False) -> None:
    """Show one run with its result."""
    connect_ray()
    document = run_to_json(RunQueueClient.connect().get(run_id))
    if as_json:
        print(json.dumps(document))
        return
    for name, value in document.items():
        print(f"{name:>14}  {json.dumps(value) if isinstance(value, dict) else value}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Id of a run.")],
    second: Annotated[str, typer.Argument(help="Id of another one.")],
    as_json: JsonOption = False,
) -> None:
    """Show two runs side by side: what differs, and all figures."""
    connect_ray()
    queue = RunQueueClient.connect()
    lines = side_by_side(queue.get(first), queue.get(second))
    if as_json:
        print(json.dumps([dataclasses.asdict(line) | {"difference": line.difference} for line in lines]))
        return
    table = Table("", "", first, second, "difference", box=None)
    for line in lines:
        difference = "" if line.difference is None else f"{line.difference:+.4g}"
        table.add_row(line.part, line.name, _cell(line.first), _cell(line.second), difference)
    Console().print(table)


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(help="Id of a run.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what a run's driver and workers wrote."""
    connect_ray()
    run = RunQueueClient.connect().get(run_id)
    for text in read_logs(run, follow=follow):
        if as_json:
            for line in text.splitlines():
                print(json.dumps({"run_id": run.id, "line": line}), flush=True)
        else:
            print(text, end="", flush=True)


def main() -> None:
    """Run the command line; our own errors become one line on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except ClusterError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _follow(queue: RunQueueClient, run: Run, show_run: Callable[[Run], None]) -> Run:
    """Show a run that the queue drives; Ctrl-C cancels it."""
    while True:
        try:
            ended = watch(queue, run.id, show_run)
        except KeyboardInterrupt:
            queue.cancel(run.id, run.user_id)
            continue  # until it has really ended; a second Ctrl-C asks again, which does no harm
        assert ended is not None
        return ended


def _pairs(items: list[str]) -> dict[str, Any]:
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (equals and name):
            _fail(f"--set takes K=V, got {item!r}")
        pairs[name.strip()] = value.strip()
    return pairs


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
