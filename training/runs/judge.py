"""A registered version judged on any data set, by a process that did not train it.

Two ways: how well it forecasts, with the figures of its manifest, and how good its alerts are, with the report
that people read. Invariants: forecasting figures are made as those in the manifest were -- same parts,
same baselines -- so the two may be compared; a report judges the floor's own detection with the version in it.
"""

from typing import Any

import torch
from sqlalchemy import Engine, select

from cluster.settings import load_section
from cluster.store import read_transaction
from ingest.detection_settings import DetectorSettings
from ingest.directory import devices
from ingest.live_models import LiveModel
from ingest.scorer import load_scorer
from training.data.snapshots import Dataset
from training.data.versions import DatasetManifest, read_manifest
from training.errors import ModelVersionNotFoundError, UnknownDatasetError
from training.evaluation.baselines import NearestScorer, PcaScorer
from training.evaluation.figures import FigureSettings
from training.evaluation.forecasts import ACCURACY_KIND, evaluate
from training.evaluation.multiscale import MultiscaleScorer
from training.evaluation.report import Progress, ReportContext, make_report
from training.evaluation.scoring import ChanceScorer, FloorScorer, SeriesScorer, ar_baseline
from training.models.anomaly import MODEL_TYPE, load_model
from training.registry.manifest import Manifest
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.runs.recipe import build_networks, prepare_parts
from training.settings import TrainSettings


def judge_forecasts(storage: Storage, manifest: Manifest, dataset: Dataset) -> dict[str, Any]:
    """Return how well a version forecasts the held-out part of ``dataset``.

    Returns:
        ``accuracy`` with its ``accuracy_kind``, and all ``metrics``.

    Raises:
        ModelVersionNotFoundError: it is no forecaster.
        ModelFileError: the version cannot be loaded.
        NotEnoughDataError: too few windows; the training part gives the baseline its closed form.
    """
    if manifest.model_type != MODEL_TYPE:
        raise ModelVersionNotFoundError(manifest.model_type, manifest.version)
    model = load_model(ModelRegistry(storage).uri(manifest), manifest.version)
    settings = settings_of(manifest)
    parts = prepare_parts(dataset, settings, torch.device("cpu"))
    _, baseline = build_networks(settings, parts)
    figures = evaluate(model, baseline, *parts.holdout).to_json()
    return {"accuracy": figures["accuracy"], "accuracy_kind": ACCURACY_KIND, "metrics": figures}


def report_on(
    storage: Storage, engine: Engine, manifest: Manifest, dataset: Dataset, false_per_day: float, progress: Progress
) -> dict[str, Any]:
    """Return the report of a version's alerts on the held-out part of a frozen data set, baselines beside it.

    Args:
        storage: where the registry is.
        engine: the floor's SQL store, for the devices' sites.
        manifest: of the version.
        dataset: a frozen version.
        false_per_day: false alarms per device and day that people bear.
        progress: hears percent and what is going on.

    Raises:
        ScorerError: the version cannot judge a floor's readings.
        NotEnoughDataError: no series is long enough.
    """
    detection = load_section(DetectorSettings)
    uri = ModelRegistry(storage).uri(manifest)
    live = LiveModel("", manifest.model_type, manifest.version, uri, revision=0, updated_at=0.0)
    scorers: list[SeriesScorer] = [
        FloorScorer(manifest.model_id, load_scorer(live), detection),
        ar_baseline(detection),
        PcaScorer(),
        NearestScorer(),
        MultiscaleScorer(),
        ChanceScorer(),
    ]
    context = ReportContext(sites=_sites(engine), trained_on=_trained_on(storage, manifest))
    settings = FigureSettings(rate=detection.exceedance_rate, false_per_day=false_per_day)
    report = make_report(dataset, scorers, settings, context, progress)
    return {"model_id": manifest.model_id, "model_type": manifest.model_type, "version": manifest.version} | report


def settings_of(manifest: Manifest) -> TrainSettings:
    """Return the settings that a version was trained with; the defaults for a model of another kind."""
    try:
        return TrainSettings(**manifest.settings)
    except (TypeError, ValueError):
        return TrainSettings()


def _trained_on(storage: Storage, manifest: Manifest) -> DatasetManifest | None:
    try:
        return read_manifest(str(manifest.dataset.get("id", "")), storage)
    except UnknownDatasetError:
        return None


def _sites(engine: Engine) -> dict[str, str]:
    query = select(devices.c.tenant, devices.c.device, devices.c.site).where(devices.c.site.is_not(None))
    with read_transaction(engine) as connection:
        return {f"{tenant}/{device}": site for tenant, device, site in connection.execute(query)}
