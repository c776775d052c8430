"""The classifier that proposes or labels, as a registered version: what its labels lead back to.

Files by ``registry``, no Ray, no SQL. Invariant: a version holds the threshold at which it labels and the
audits that vouch for it, so a label's ``model_id`` answers who labelled and why that was allowed.
"""

import sys

import torch

from cluster.ids import new_id
from training.data.snapshots import Dataset
from training.labelling.dataset_labelling import Labelling
from training.labelling.labels import Label, Provenance
from training.models.classifier import MODEL_TYPE
from training.models.weights import dump_weights
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry


def register(storage: Storage, found: Labelling, dataset: Dataset, user_id: str, now_s: float) -> str | None:
    """Write the classifier of a labelling to the registry and return its id; None: there is none yet."""
    if found.model is None:
        return None
    calibration = found.calibration
    share, low, high = found.audit_accuracy
    metrics = {
        "labels": float(found.num_labels),
        "audits": float(calibration.audits),
        "audit_accuracy": share,
        "audit_accuracy_low": low,
        "audit_accuracy_high": high,
    }
    if calibration.threshold is not None:
        metrics |= {
            "auto_threshold": calibration.threshold,
            "auto_precision_at_least": calibration.precision_at_least,
            "auto_mistakes_in_audits": float(calibration.mistakes),
        }
    manifest = ModelRegistry(storage).add(
        model_type=MODEL_TYPE,
        weights=dump_weights(found.model.state_dict()),
        created_at_s=now_s,
        config=found.model.config.to_json(),
        dataset={"name": dataset.name, "digest": dataset.digest, "labels": found.num_labels},
        metrics=metrics,
        settings={},
        seed=0,
        run_id="",
        user_id=user_id,
        libraries={"torch": torch.__version__, "python": sys.version.split()[0]},
    )
    return manifest.model_id


def own_labels(found: Labelling, model_id: str, now_s: float) -> list[Label]:
    """Return the labels that the version gives; nobody's name stands on them but its own."""
    return [
        Label(
            id=new_id(),
            at=now_s,
            tenant=one.window.key.tenant,
            subject=one.window.subject,
            value=one.value,
            user_id="",
            provenance=Provenance.AUTO,
            model_id=model_id,
            confidence=one.confidence,
        )
        for one in found.own
    ]
