"""Who labels which windows of a data set: people, people who see the model's word, or the model.

Torch, no Ray, no SQL: a data set with its labels in, questions and labels out; whoever calls hands them to
the queue. Invariants: a window that somebody labelled is not asked about again; the model never learns from
its own labels, nor from the audits by which it is judged; an audit is drawn at random and shows no
proposal; the model labels only where ``auto_labels.calibrate`` found a threshold.

Shapes: N windows nobody labelled, L labelled stretches, A audited ones, F features.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.alerts.model import iso
from ingest.windows import SeriesKey
from training.data.labels import LabelledSpan, Meaning
from training.data.snapshots import Dataset, Series
from training.errors import NotEnoughDataError
from training.labelling.active_learning import ANOMALOUS, MAX_CHOSEN, NORMAL, WINDOW_READINGS, window_subject
from training.labelling.auto_labels import AutoSettings, Calibration, calibrate, interval
from training.labelling.classify import classify, embed, train_classifier
from training.labelling.labels import AUDIT, LabellingStrategy, Provenance, Question
from training.labelling.query import DEFAULT, STRATEGIES, Pool, standardised
from training.labelling.savings import Savings, measure_savings
from training.labelling.window_features import MIN_READINGS, window_features
from training.models.classifier import EnsembleClassifier

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MAX_POOL = 20_000
"""Windows looked at: the newest of each series, the same number of each."""
AUDIT_SHARE = 0.1
"""Share of the questions that are drawn at random."""
AUTO_AUDIT_SHARE = 0.5
"""The same while ``auto`` lacks the audits that could prove its precision."""
DROPPED = frozenset({"unsure", "unknown"})
"""Answers that name no class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabellingWindow:
    """One window of a series that nobody has labelled."""

    key: SeriesKey
    ts: Floats
    """Device times of its readings."""
    values: Floats

    @property
    def subject(self) -> str:
        """Name of what is labelled."""
        return window_subject(self.key, float(self.ts[0]), float(self.ts[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLabel:
    """A label that the model gives."""

    window: LabellingWindow
    value: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """What is to be asked and what is labelled already."""

    model: EnsembleClassifier | None
    """Trained on the labels there are; None while they are of fewer than two classes."""
    num_labels: int
    """Labelled stretches that it learned from."""
    calibration: Calibration
    audit_accuracy: tuple[float, float, float]
    """The model's accuracy on the audits: share, lower and upper bound at 90 %."""
    savings: Savings
    """What its labels would have cost at random."""
    chosen: tuple[LabellingWindow, ...]
    """To be asked about, the most telling first."""
    audits: tuple[LabellingWindow, ...]
    """To be asked about because chance chose them."""
    own: tuple[OwnLabel, ...] = ()
    said: dict[str, tuple[str, float]] = field(default_factory=dict)
    """What the model would say of the chosen ones, and how sure it is, by subject."""

    def questions(self, strategy: LabellingStrategy, model_id: str | None) -> list[Question]:
        """Return what people are asked; the audits lie evenly among the others."""
        asked = []
        for place, window in enumerate(self.chosen):
            says, sure = self.said.get(window.subject, (None, None))
            is_shown = strategy is not LabellingStrategy.MANUAL and says is not None
            asked.append(
                Question(
                    subject=window.subject,
                    asked_by=DEFAULT,
                    priority=1.0 - place / len(self.chosen),
                    tenant=window.key.tenant,
                    details=_details(window) | {"shows_proposal": is_shown},
                    proposal=says if is_shown else None,
                    confidence=sure if is_shown else None,
                    model_id=model_id,
                )
            )
        for place, window in enumerate(self.audits):
            asked.append(
                Question(
                    subject=window.subject,
                    asked_by=AUDIT,
                    priority=1.0 - (place + 0.5) / len(self.audits),
                    tenant=window.key.tenant,
                    details=_details(window),
                )
            )
        return asked


def plan_labelling(
    dataset: Dataset,
    audit_ids: Collection[str],
    strategy: LabellingStrategy,
    k: int,
    settings: AutoSettings | None = None,
    seed: int = 0,
) -> Labelling:
    """Decide who labels what.

    Args:
        dataset: readings and the labels that there are.
        audit_ids: of the labels that answered a question drawn at random.
        strategy: see ``LabellingStrategy``.
        k: questions at most, 1 to ``MAX_CHOSEN``.
        settings: what the model must have proved before it labels.
        seed: of every choice.

    Raises:
        NotEnoughDataError: there is no window that nobody has labelled.
        ValueError: ``k`` is out of range.
    """
    if not 1 <= k <= MAX_CHOSEN:
        raise ValueError(f"k must be 1-{MAX_CHOSEN}, got {k}")
    settings = settings or AutoSettings()
    rng = np.random.default_rng(seed)
    windows = _unlabelled(dataset)
    if not windows:
        raise NotEnoughDataError(dataset.name, "labelling", 0, 1, dataset.num_readings, len(dataset.series))
    spans = _newest(dataset)
    learned = _rows(dataset, [span for span in spans if span.label_id not in audit_ids])
    audited = _rows(dataset, [span for span in spans if span.label_id in audit_ids])
    rows_NF = window_features(np.stack([window.values for window in windows]))
    classes = tuple(sorted(set(learned[1])))
    model = None
    proba_NC = np.full((len(windows), 2), 0.5)
    everything = standardised(np.concatenate([rows_NF, learned[0]])) if len(learned[0]) else standardised(rows_NF)
    embedding_NE, labelled_LE = everything[: len(windows)], everything[len(windows) :]
    calibration = calibrate(np.empty(0), np.empty(0, dtype=bool), settings)
    right = 0
    savings = Savings(chosen=len(learned[1]), at_random=None, is_more=False)
    if len(classes) >= 2:
        target_L = np.array([classes.index(value) for value in learned[1]], dtype=np.intp)
        model = train_classifier(learned[0], target_L, classes)
        proba_NC, embedding_NE, labelled_LE = classify(model, rows_NF), embed(model, rows_NF), embed(model, learned[0])
        if audited[1]:
            judged_AC = classify(model, audited[0])
            is_right_A = np.array([classes[place] for place in judged_AC.argmax(axis=1)]) == np.array(audited[1])
            right = int(is_right_A.sum())
            savings = _savings(audited, classes, is_right_A, len(learned[1]))
            calibration = calibrate(judged_AC.max(axis=1), is_right_A, settings)
    sure_N = proba_NC.max(axis=1)
    is_own_N = np.zeros(len(windows), dtype=bool)
    if strategy is LabellingStrategy.AUTO and calibration.threshold is not None:
        is_own_N = sure_N >= calibration.threshold
    chosen, audits = _asked(
        proba_NC, embedding_NE, labelled_LE, is_own_N, _num_audits(strategy, calibration, k), k, rng
    )
    says = [classes[place] for place in proba_NC.argmax(axis=1)] if model is not None else []
    count = len(audited[1])
    return Labelling(
        model=model,
        num_labels=len(learned[1]),
        calibration=calibration,
        savings=savings,
        audit_accuracy=(right / count if count else 0.0, *interval(count, right)),
        chosen=tuple(windows[place] for place in chosen),
        audits=tuple(windows[place] for place in audits),
        own=tuple(
            OwnLabel(window=windows[place], value=says[place], confidence=round(float(sure_N[place]), 4))
            for place in np.flatnonzero(is_own_N)
        ),
        said={windows[place].subject: (says[place], round(float(sure_N[place]), 4)) for place in chosen}
        if says
        else {},
    )


def _savings(
    audited: tuple[Floats, list[str]], classes: tuple[str, ...], is_right_A: NDArray[np.bool_], chosen: int
) -> Savings:
    # A class that only audits have: the model of the chosen labels is wrong there, and the curve need not know it.
    named = tuple(sorted({*classes, *audited[1]}))
    target_A = np.array([named.index(value) for value in audited[1]], dtype=np.intp)
    count, right = len(is_right_A), int(is_right_A.sum())
    return measure_savings(audited[0], target_A, named, (right / count, *interval(count, right)), chosen)


def _num_audits(strategy: LabellingStrategy, calibration: Calibration, k: int) -> int:
    lacks = strategy is LabellingStrategy.AUTO and calibration.threshold is None
    return max(1, round((AUTO_AUDIT_SHARE if lacks else AUDIT_SHARE) * k)) if k > 1 else 0


def _asked(
    proba_NC: Floats,
    embedding_NE: Floats,
    labelled_LE: Floats,
    is_own_N: NDArray[np.bool_],
    num_audits: int,
    k: int,
    rng: np.random.Generator,
) -> tuple[Indices, Indices]:
    """Return the places asked about because they tell most, and those that chance chose, of all windows."""
    # Also of those that the model labels: its labels are what the audits must go on watching.
    audits = rng.permutation(len(proba_NC))[:num_audits]
    free = np.setdiff1d(np.flatnonzero(~is_own_N), audits)
    wanted = min(k - num_audits, len(free))
    if wanted < 1:
        return np.empty(0, dtype=np.intp), audits
    pool = Pool(proba_NC=proba_NC[free], embedding_NE=embedding_NE[free], labelled_LE=labelled_LE)
    return free[STRATEGIES[DEFAULT](pool, wanted, rng)], audits


def _unlabelled(dataset: Dataset) -> list[LabellingWindow]:
    spans = dataset.labels.by_series()
    most = max(1, MAX_POOL // max(1, len(dataset.series)))
    found = []
    for series in dataset.series:
        key = SeriesKey(*series.key.split("/", 2))
        # Counted from the first reading, so that a window is the same one however much came after it.
        edges = range(0, len(series.ts) + 1, WINDOW_READINGS)
        own = spans.get(series.key, [])
        for first, last in list(pairwise(edges))[-most:]:
            ts = series.ts[first:last]
            if not any(span.from_ts <= ts[-1] and ts[0] <= span.to_ts for span in own):
                found.append(LabellingWindow(key=key, ts=ts, values=series.values[first:last]))
    return found


def _newest(dataset: Dataset) -> list[LabelledSpan]:
    """Return the newest label of each stretch that a person gave and that names a class."""
    newest = {
        (span.key, span.from_ts, span.to_ts): span
        for span in sorted(dataset.labels.spans, key=lambda span: (span.at, span.label_id))
        if span.provenance != Provenance.AUTO
    }
    return [span for span in newest.values() if span.value not in DROPPED]


def _rows(dataset: Dataset, spans: list[LabelledSpan]) -> tuple[Floats, list[str]]:
    """Return features and class of each stretch that is long enough to have a shape."""
    by_key: dict[str, Series] = {series.key: series for series in dataset.series}
    rows, values = [], []
    for span in spans:
        series = by_key.get(span.key)
        if series is None:
            continue
        first, last = np.searchsorted(series.ts, span.from_ts), np.searchsorted(series.ts, span.to_ts, side="right")
        if last - first >= MIN_READINGS:
            rows.append(window_features(series.values[None, first:last])[0])
            values.append(_class(span))
    return np.array(rows), values


def _class(span: LabelledSpan) -> str:
    if span.meaning is Meaning.ANOMALY:
        return ANOMALOUS
    return NORMAL if span.meaning is Meaning.NORMAL else span.value


def _details(window: LabellingWindow) -> dict[str, object]:
    points = zip(window.ts.tolist(), window.values.tolist(), strict=True)
    return {
        **window.key._asdict(),
        "from": iso(float(window.ts[0])),
        "to": iso(float(window.ts[-1])),
        "points": [[iso(ts), value] for ts, value in points],
    }
