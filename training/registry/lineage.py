"""Where a model version comes from and what became of it: data, run, person; alerts, verdicts.

Reads tables and manifests, writes nothing. Both ways from any point: an alert names its model
version, the version its run and data set, the run its person; and back.
"""

import dataclasses
from typing import Any

from sqlalchemy import Connection, func, select

from ingest.alerts.model import iso
from ingest.alerts.tables import alerts
from ingest.live_models import live_models
from ingest.model_trial import Trial, list_trials
from training.registry.manifest import Manifest


def of_version(connection: Connection, manifest: Manifest) -> dict[str, Any]:
    """Return all that is known of a version, as one JSON object.

    Returns:
        ``made_from`` (data set, settings, seed, libraries), ``made_by`` (run and person), ``aliases`` that point
        to it now, ``trials``, and ``alerts`` that name it: how many, and how people judged them.
    """
    named = (alerts.c.model == manifest.model_type) & (alerts.c.model_version == manifest.version)
    judged = (
        select(alerts.c.verdict, func.count(), func.count(alerts.c.verdict_by.distinct()))
        .where(named, alerts.c.verdict.is_not(None))
        .group_by(alerts.c.verdict)
    )
    pointing = select(live_models.c.alias).where(
        live_models.c.scorer == manifest.model_type, live_models.c.version == manifest.version
    )
    return {
        "model_id": manifest.model_id,
        "model_type": manifest.model_type,
        "version": manifest.version,
        "created_at": manifest.created_at,
        "metrics": manifest.metrics,
        "made_from": {
            "dataset": manifest.dataset,
            "settings": manifest.settings,
            "seed": manifest.seed,
            "libraries": manifest.libraries,
            "files": {name: dataclasses.asdict(entry) for name, entry in manifest.files.items()},
        },
        "made_by": {"run_id": manifest.run_id, "user_id": manifest.user_id},
        "aliases": sorted(connection.execute(pointing).scalars()),
        "trials": [trial_to_json(trial) for trial in list_trials(connection, 20, manifest.version)],
        "alerts": {
            "total": connection.execute(select(func.count()).select_from(alerts).where(named)).scalar_one(),
            "verdicts": {row[0]: {"count": row[1], "people": row[2]} for row in connection.execute(judged)},
        },
    }


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as the API shows it; times are ISO 8601 in UTC."""
    return dataclasses.asdict(trial) | {
        "state": trial.state.value,
        "started_at": iso(trial.started_at),
        "ended_at": None if trial.ended_at is None else iso(trial.ended_at),
    }
