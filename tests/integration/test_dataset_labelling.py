"""Who labels which windows: people, people with the model's word, or the model where audits allow it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ingest.windows import SeriesKey
from training.data.labels import LabelledSpan, LabelSnapshot
from training.data.snapshots import Dataset, Series
from training.errors import NotEnoughDataError
from training.labelling.active_learning import WINDOW_READINGS, window_subject
from training.labelling.classifier_version import own_labels, register
from training.labelling.dataset_labelling import plan_labelling
from training.labelling.labels import AUDIT, LabellingStrategy, Provenance
from training.models.classifier import ClassifierConfig, EnsembleClassifier
from training.models.weights import load_weights
from training.registry.manifest import WEIGHTS
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry

KEY = "acme/pump-1/bar"
MANUAL, ASSISTED, AUTO = LabellingStrategy


def dataset(windows: int, labelled: dict[int, str] | None = None, provenance: str = "manual", seed: int = 0) -> Dataset:
    """Return a series in which every third window holds a spike, and labels of some of its windows."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(windows * WINDOW_READINGS) / 7) + rng.normal(0, 0.2, windows * WINDOW_READINGS)
    for window in range(0, windows, 3):
        values[window * WINDOW_READINGS + int(rng.integers(5, 50)) :][:3] += 12.0
    ts = 1.7e9 + 60.0 * np.arange(len(values))
    spans = [
        LabelledSpan(
            key=KEY,
            from_ts=float(ts[window * WINDOW_READINGS]),
            to_ts=float(ts[(window + 1) * WINDOW_READINGS - 1]),
            label_id=str(window),
            value=value,
            user_id="ann",
            provenance=provenance,
        )
        for window, value in (labelled or {}).items()
    ]
    return Dataset.of("made", [Series(KEY, ts, values)], LabelSnapshot.of(spans, are_complete=False))


def truth(windows: range) -> dict[int, str]:
    return {window: "normal" if window % 3 else "anomalous" for window in windows}


def test_without_labels_typical_windows_and_a_few_by_chance_are_asked_about() -> None:
    found = plan_labelling(dataset(40), (), ASSISTED, 20)
    questions = found.questions(ASSISTED, None)

    assert found.model is None
    assert len({question.subject for question in questions}) == 20
    assert sum(question.asked_by == AUDIT for question in questions) == 2
    assert {question.proposal for question in questions} == {None}


def test_people_see_the_models_word_when_assisted_and_never_of_an_audit() -> None:
    known = dataset(60, truth(range(12)))
    found = plan_labelling(known, (), ASSISTED, 10)
    assisted, manual = (found.questions(strategy, "classifier@1") for strategy in (ASSISTED, MANUAL))
    labelled = {
        window_subject(SeriesKey("acme", "pump-1", "bar"), one.from_ts, one.to_ts) for one in known.labels.spans
    }

    assert {question.proposal for question in assisted if question.asked_by != AUDIT} <= {"normal", "anomalous"}
    assert {question.proposal for question in assisted if question.asked_by == AUDIT} == {None}
    assert {question.proposal for question in manual} == {None}
    assert not {question.subject for question in assisted} & labelled


def test_the_model_labels_where_audits_prove_its_precision() -> None:
    """240 answers to random questions without a mistake; it never learned from them."""
    known = dataset(400, truth(range(280)))
    audits = {str(window) for window in range(40, 280)}

    found = plan_labelling(known, audits, AUTO, 10)

    assert (found.num_labels, found.calibration.audits) == (40, 240)
    assert found.audit_accuracy[0] > 0.99
    assert found.savings.saved is not None
    assert len(found.own) > 60
    assert found.calibration.precision_at_least >= 0.99
    assert not {one.window.subject for one in found.own} & {window.subject for window in found.chosen}
    assert plan_labelling(known, audits, ASSISTED, 10).own == ()


@pytest.mark.parametrize(
    ("audits", "reason"),
    [
        pytest.param(range(40, 100), "230 audits are needed", id="too-few"),
        pytest.param(range(40, 280), "mistakes among", id="too-many-mistakes"),
    ],
)
def test_without_a_proof_nothing_is_labelled_and_half_of_the_questions_are_audits(audits: range, reason: str) -> None:
    known = truth(range(40)) | (truth(audits) if len(audits) < 100 else dict.fromkeys(audits, "normal"))

    found = plan_labelling(dataset(400, known), {str(window) for window in audits}, AUTO, 10)

    assert found.own == ()
    assert reason in found.calibration.why
    assert len(found.audits) == 5


def test_the_model_does_not_learn_from_its_own_labels() -> None:
    found = plan_labelling(dataset(60, truth(range(12)), provenance="auto"), (), MANUAL, 10)

    assert (found.model, found.num_labels) == (None, 0)


def test_a_version_leads_from_a_label_to_its_threshold(tmp_path: Path) -> None:
    """And its weights can be loaded."""
    storage = Storage(tmp_path.as_uri())
    known = dataset(400, truth(range(280)))
    found = plan_labelling(known, {str(window) for window in range(40, 280)}, AUTO, 10)

    model_id = register(storage, found, known, "ann", 1.7e9)
    assert model_id is not None
    label = own_labels(found, model_id, 1.7e9)[0]
    manifest = ModelRegistry(storage).manifest(*model_id.split("@"))

    assert (label.provenance, label.model_id, label.user_id) == (Provenance.AUTO, manifest.model_id, "")
    assert label.confidence is not None
    assert label.confidence >= manifest.metrics["auto_threshold"] - 1e-4
    config = ClassifierConfig(**manifest.config | {"classes": tuple(manifest.config["classes"])})
    again = EnsembleClassifier(config)
    load_weights(again, storage.read(f"models/{model_id.replace('@', '/')}/{WEIGHTS}"))
    assert found.model is not None
    assert torch.equal(again.temperature, found.model.temperature)


def test_a_set_of_no_whole_window_is_refused() -> None:
    with pytest.raises(NotEnoughDataError, match="labelling"):
        plan_labelling(Dataset.of("small", []), (), MANUAL, 5)
    with pytest.raises(ValueError, match="k must be 1-200"):
        plan_labelling(dataset(3), (), MANUAL, 0)
