"""The command of ``python -m training`` that has a data set labelled.

``label`` runs in the lane ``ai_processing`` of the cluster; its questions go to the label queue.
"""

import json
from typing import Annotated

import typer
from rich.console import Console

from training.labelling.active_learning import MAX_CHOSEN
from training.labelling.labels import LabellingStrategy
from training.runs.driver import connect_ray
from training.runs.terminal import shell_user
from training.tasks import dataset_labeling

app = typer.Typer(help="Labels: what people are asked, and what the model may say itself.")


@app.command()
def label(
    dataset: Annotated[str, typer.Option(help="What to label, see ``datasets``.")] = "telemetry",
    strategy: Annotated[
        LabellingStrategy, typer.Option(help="Who labels: people, people who see the model's word, or the model.")
    ] = LabellingStrategy.MANUAL,
    k: Annotated[int, typer.Option("-k", min=1, max=MAX_CHOSEN, help="Questions at most.")] = 20,
    precision: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Share of its labels that the model must have proved right.")
    ] = 0.99,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Ask people about the windows that teach most, and let the model label where it has proved itself."""
    connect_ray()
    handle = dataset_labeling.submit(dataset, strategy.value, k, precision, shell_user())
    try:
        with Console(stderr=True).status(f"choosing windows of {dataset}"):
            result = handle.result()
    except KeyboardInterrupt:
        handle.cancel()
        raise
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"{result['dataset_id']}: {result['asked']} new questions, {result['audits_asked']} of those put are audits; "
        f"{result['labelled']} labelled by {result['model_id'] or 'no model: too few labels yet'}"
    )
    accuracy, low, high = result["audit_accuracy"]
    print(f"the model by its audits: {accuracy:.3f} right [{low:.3f}, {high:.3f}]")
    if result["calibration"]["why"]:
        print(f"auto: {result['calibration']['why']}")
