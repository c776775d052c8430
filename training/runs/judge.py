"""A registered version judged again, on any data set, by a process that did not train it.

Reads the registry and the archive, writes nothing. Invariant: the figures are made as
those in the manifest were -- same parts, same baselines -- so the two may be compared.
"""

from typing import Any

import torch

from training.data.snapshots import Dataset
from training.errors import ModelVersionNotFoundError
from training.evaluation.forecasts import ACCURACY_KIND, evaluate
from training.models.anomaly import MODEL_TYPE, load_model
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.runs.recipe import build_networks, prepare_parts
from training.settings import TrainSettings


def judge_version(storage: Storage, model_id: str, dataset: Dataset) -> dict[str, Any]:
    """Return the figures of a version on the held-out part of ``dataset``.

    Args:
        storage: where the registry is.
        model_id: ``<model type>@<version>``; without a version the newest one.
        dataset: what to judge it on; its training part gives the baseline its closed form.

    Raises:
        ModelVersionNotFoundError, ModelFileError: the version cannot be loaded.
        NotEnoughDataError: too few windows.
    """
    registry = ModelRegistry(storage)
    model_type, _, version = model_id.partition("@")
    if model_type != MODEL_TYPE:
        raise ModelVersionNotFoundError(model_type, version)
    if not version:
        versions = registry.versions(model_type)
        if not versions:
            raise ModelVersionNotFoundError(model_type, "(newest)")
        version = versions[-1]
    manifest = registry.manifest(model_type, version)
    model = load_model(registry.uri(manifest), version)
    settings = TrainSettings(**manifest.settings)
    parts = prepare_parts(dataset, settings, torch.device("cpu"))
    _, baseline = build_networks(settings, parts)
    figures = evaluate(model, baseline, *parts.holdout).to_json()
    return {
        "model_id": manifest.model_id,
        "dataset_id": dataset.name,
        "dataset_digest": dataset.digest,
        "dataset_version": dataset.id,
        "accuracy": figures["accuracy"],
        "accuracy_kind": ACCURACY_KIND,
        "metrics": figures,
    }
