"""What may be trained from here: model types, data sets, and whether a request fits them.

No routes. Names only: whether a data set holds enough readings is seen when the run
reads it. Invariant: a tenant's engineer trains on the recordings and on the own tenant's
telemetry, on nobody else's.
"""

import re
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from fastapi import HTTPException

from ingest.topics import LEVEL
from training.datasets import RECORDED, TELEMETRY
from training.errors import HyperparameterError
from training.settings import TrainSettings, with_hyperparameters

SCORERS = "watchfloor.scorers"

_TELEMETRY = re.compile(rf"{TELEMETRY}:({LEVEL})/({LEVEL})")


@lru_cache
def model_types() -> tuple[str, ...]:
    """Return the model types that a detector could load: the installed scorers."""
    return tuple(sorted(point.name for point in entry_points(group=SCORERS)))


@lru_cache
def recorded_series() -> tuple[str, ...]:
    """Return the names of the series that ship with the project."""
    folder = files("ingest") / "data" / "nab"
    return tuple(sorted(item.name.removesuffix(".csv") for item in folder.iterdir() if item.name.endswith(".csv")))


def offered_datasets(tenant: str | None) -> list[dict[str, str]]:
    """Return the data sets that the page offers, the obvious one first."""
    live = [{"id": TELEMETRY, "title": "live telemetry of all devices"}] if tenant is None else []
    return live + [{"id": f"{RECORDED}:{name}", "title": f"recorded: {name}"} for name in recorded_series()]


def check_training(arguments: dict[str, Any], tenant: str | None) -> None:
    """Make sure that ``arguments`` name a training.

    Args:
        arguments: ``dataset_id``, ``model_type`` and, if wanted, ``hyperparameters``.
        tenant: the caller's own tenant; None: floor-wide.

    Raises:
        HTTPException: 422 with what is wrong, 403 for telemetry of others.
    """
    unknown = set(arguments) - {"dataset_id", "model_type", "hyperparameters"}
    if unknown:
        raise HTTPException(422, f"arguments: no such argument: {', '.join(sorted(unknown))}")
    if arguments.get("model_type") not in model_types():
        raise HTTPException(422, f"arguments.model_type must be one of {', '.join(model_types())}")
    _check_dataset(arguments.get("dataset_id"), tenant)
    values = arguments.get("hyperparameters", {})
    if not isinstance(values, dict):
        raise HTTPException(422, "arguments.hyperparameters must be an object")
    try:
        with_hyperparameters(TrainSettings(), values)
    except HyperparameterError as error:
        raise HTTPException(422, str(error)) from error


def _check_dataset(name: object, tenant: str | None) -> None:
    if not isinstance(name, str):
        raise HTTPException(422, "arguments.dataset_id must be the name of a data set")
    if name.startswith(f"{RECORDED}:") and name.removeprefix(f"{RECORDED}:") in recorded_series():
        return
    match = _TELEMETRY.fullmatch(name)
    if match is None and name != TELEMETRY:
        raise HTTPException(
            422, f"arguments.dataset_id must be {TELEMETRY}, {TELEMETRY}:<tenant>/<device> or {RECORDED}:<series>"
        )
    if tenant is not None and (match is None or match[1] != tenant):
        raise HTTPException(403, f"your tenant's data sets are {TELEMETRY}:{tenant}/<device> and the recordings")
