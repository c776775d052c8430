"""What may be trained, judged and labelled from here: model types, data sets, and whether a request fits them.

No routes. Names only: whether a data set holds enough readings is seen when the run
reads it. Invariant: a tenant's engineer trains on the recordings and on the own tenant's
telemetry, frozen or not, on nobody else's.
"""

import re
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Engine

from cluster.runs import RunRequest
from ingest.topics import LEVEL
from serve_apps.api.border import tenant_of
from serve_apps.auth import Identity
from training.data import catalogue
from training.data.snapshots import RECORDED, TELEMETRY
from training.errors import TrainingError, UnknownDatasetError
from training.runs.order import FALSE_PER_DAY, EvaluationOrder, LabellingOrder, TrainingOrder

SCORERS = "watchfloor.scorers"

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}([:@][A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
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


def training_request(arguments: dict[str, Any], identity: Identity, request_id: str, engine: Engine) -> RunRequest:
    """Return the run that ``arguments`` ask for, as the command line would have ordered it.

    Args:
        arguments: ``dataset_id`` and, if wanted, ``model_type``, ``hyperparameters`` and ``preset``.
        identity: who asks.
        request_id: makes asking twice safe.
        engine: the SQL store, where data sets are listed.

    Raises:
        HTTPException: 422 with what is wrong, 403 for telemetry of others.
    """
    _check_names(arguments, "dataset_id", "model_type", "hyperparameters", "preset")
    if not isinstance(arguments.get("hyperparameters", {}), dict):
        raise HTTPException(422, "arguments.hyperparameters must be an object")
    if not isinstance(arguments.get("preset", ""), str):
        raise HTTPException(422, "arguments.preset must be the name of a preset")
    _check_dataset(arguments.get("dataset_id"), tenant_of(identity), engine)
    try:
        return TrainingOrder(**arguments, user_id=identity.user_id, tenant=identity.tenant).to_request(request_id)
    except TrainingError as error:
        raise HTTPException(422, str(error)) from error


def evaluation_request(arguments: dict[str, Any], identity: Identity, request_id: str, engine: Engine) -> RunRequest:
    """Return the run that judges a version.

    Args:
        arguments: ``model_id`` and, if wanted, ``dataset_id`` and ``false_alarms_per_day``.
        identity: who asks.
        request_id: makes asking twice safe.
        engine: the SQL store, where data sets are listed.

    Raises:
        HTTPException: 422 with what is wrong, 403 for telemetry of others.
    """
    _check_names(arguments, "model_id", "dataset_id", "false_alarms_per_day")
    if not isinstance(arguments.get("model_id"), str) or not _VERSION.fullmatch(arguments["model_id"]):
        raise HTTPException(422, "arguments.model_id must be TYPE, TYPE:VERSION, or TYPE:champion")
    price = arguments.get("false_alarms_per_day", FALSE_PER_DAY)
    if not _is_number(price):
        raise HTTPException(422, "arguments.false_alarms_per_day must be a number")
    dataset_id = arguments.get("dataset_id", TELEMETRY)
    _check_dataset(dataset_id, tenant_of(identity), engine)
    try:
        order = EvaluationOrder(
            model_id=arguments["model_id"], dataset_id=dataset_id, false_alarms_per_day=float(price)
        )
    except ValueError as error:
        raise HTTPException(422, f"arguments: {error}") from error
    return order.to_request(identity.user_id, identity.tenant, request_id)


def labelling_request(arguments: dict[str, Any], identity: Identity, request_id: str, engine: Engine) -> RunRequest:
    """Return the run that has windows labelled.

    Args:
        arguments: the fields of ``LabellingOrder``, as far as wanted.
        identity: who asks.
        request_id: makes asking twice safe.
        engine: the SQL store, where data sets are listed.

    Raises:
        HTTPException: 422 with what is wrong, 403 for telemetry of others.
    """
    _check_names(arguments, "dataset_id", "strategy", "k", "precision")
    if not isinstance(arguments.get("strategy", ""), str):
        raise HTTPException(422, "arguments.strategy must be the name of a strategy")
    if not isinstance(arguments.get("k", 1), int) or not _is_number(arguments.get("k", 1)):
        raise HTTPException(422, "arguments.k must be a whole number")
    if not _is_number(arguments.get("precision", 1)):
        raise HTTPException(422, "arguments.precision must be a number")
    _check_dataset(arguments.get("dataset_id", TELEMETRY), tenant_of(identity), engine)
    try:
        order = LabellingOrder(**arguments)
    except ValueError as error:
        raise HTTPException(422, f"arguments: {error}") from error
    return order.to_request(identity.user_id, identity.tenant, request_id)


def _check_names(arguments: dict[str, Any], *names: str) -> None:
    unknown = set(arguments) - set(names)
    if unknown:
        raise HTTPException(422, f"arguments: no such argument: {', '.join(sorted(unknown))}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_dataset(name: object, tenant: str | None, engine: Engine) -> None:
    if not isinstance(name, str):
        raise HTTPException(422, "arguments.dataset_id must be the name of a data set")
    if name.startswith(f"{RECORDED}:") and name.removeprefix(f"{RECORDED}:") in recorded_series():
        return
    match = _TELEMETRY.fullmatch(name)
    if match is None and name != TELEMETRY:
        if _is_listed(name, tenant, engine):
            return
        raise HTTPException(
            422,
            f"arguments.dataset_id must be {TELEMETRY}, {TELEMETRY}:<tenant>/<device>, {RECORDED}:<series>, "
            "or the name of a data set",
        )
    if tenant is not None and (match is None or match[1] != tenant):
        raise HTTPException(403, f"your tenant's data sets are {TELEMETRY}:{tenant}/<device> and the recordings")


def _is_listed(name: str, tenant: str | None, engine: Engine) -> bool:
    try:
        return catalogue.is_visible(catalogue.resolve(engine, name), tenant)
    except UnknownDatasetError:
        return False
