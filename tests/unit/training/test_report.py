"""Scores that know nothing of the future, and the report made of them."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from cluster.store import open_engine
from ingest.baseline import ARBaseline
from ingest.detection_settings import DetectorSettings
from ingest.detector import Detector
from ingest.signal_source import SignalShape, generate_points
from tests.fakes_alerts import readings
from training.data.labels import LabelledSpan, LabelSnapshot
from training.data.snapshots import Dataset, Series
from training.data.versions import freeze, read_manifest
from training.errors import ModelFileError, ModelVersionNotFoundError, NotEnoughDataError, ReportNotFoundError
from training.evaluation import report_files
from training.evaluation.figures import FigureSettings
from training.evaluation.report import ReportContext, make_report, summary
from training.evaluation.report_files import list_reports, read_report, write_report
from training.evaluation.scoring import ChanceScorer, FloorScorer, ar_baseline, p_values
from training.registry.manifest import Manifest
from training.registry.promotion import promote
from training.registry.references import find_version
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.settings import TrainSettings

DETECTION = DetectorSettings(warm_up_readings=128)
FIGURES = FigureSettings(rate=DETECTION.exceedance_rate)
SETTINGS = TrainSettings(holdout_fraction=0.4, device_fraction=0.2)


def generated(device: str, readings: int = 1500, seed: int = 3) -> tuple[Series, list[LabelledSpan]]:
    """A generated series, a reading every five minutes, and the faults that were put into it."""
    shape = SignalShape(mean_gap=300, period=144)
    points = [point for point, _ in zip(generate_points(seed, device, shape), range(readings), strict=False)]
    key = f"acme/{device}/value"
    ts = 300.0 * np.arange(readings)
    labels = [place for place, point in enumerate(points) if point.fault is not None]
    spans = [
        LabelledSpan(key=key, from_ts=ts[place], to_ts=ts[place], value="anomaly", provenance="generated")
        for place in labels
    ]
    return Series(key, ts, np.array([point.value for point in points])), spans


def make_floor(storage: Storage, devices: int = 5, *, are_complete: bool = True) -> Dataset:
    made = [generated(f"d-{number}") for number in range(devices)]
    labels = LabelSnapshot.of([span for _, spans in made for span in spans], are_complete=are_complete)
    data = Dataset.of("made", [series for series, _ in made], labels)
    return freeze(data, data.split_by(SETTINGS), {"kind": "import"}, storage)


@settings(max_examples=15)
@given(cut=st.integers(200, 900), seed=st.integers(0, 100))
@pytest.mark.parametrize("has_model", [False, True])
def test_no_score_knows_the_future(has_model: bool, cut: int, seed: int) -> None:
    """What comes later changes no score, bit for bit; neither does where the held-out part begins."""
    series, _ = generated("d", 900, seed)
    values = series.values[:200].astype(np.float32)
    model = ARBaseline.fit((values - values.mean()) / values.std(), context=16, ridge=0.01) if has_model else None
    scorer = FloorScorer("x", model, DETECTION)
    other = replace(series, values=np.concatenate([series.values[:cut], 1e3 - series.values[cut:]]))

    expected = scorer.scores(series, 600)
    assert len(expected) == 900
    assert np.array_equal(expected[:cut], scorer.scores(other, 100)[:cut])
    assert np.array_equal(expected[:cut], scorer.scores(Series("a/b/c", series.ts[:cut], series.values[:cut]), 9))


def test_scores_are_those_of_the_floors_detector() -> None:
    """An alert's score is the report's score of the same reading."""
    series, _ = generated("d", 1200)
    scores = ar_baseline(DETECTION).scores(series, 700)
    detector = Detector(DETECTION)
    decisions = [
        decision
        for start in range(0, 1200, 97)
        for decision in detector.observe(readings(series.values[start : start + 97].tolist(), first_seq=start))
    ]

    assert decisions
    for decision in decisions:
        place = round(decision.ts - 1_700_000_000.0)
        assert decision.score == pytest.approx(scores[place], abs=1e-3)


@given(seed=st.integers(0, 1000), count=st.integers(100, 2000))
def test_p_values_fall_as_scores_rise(seed: int, count: int) -> None:
    """Within (0, 1], also far beyond what was ever seen."""
    rng = np.random.default_rng(seed)
    history = rng.exponential(1.0, count)
    scores = np.sort(np.concatenate([rng.exponential(1.0, 50), [-5.0, 0.0, 40.0, 1e6]]))
    found = p_values(history, scores)

    assert ((found > 0) & (found <= 1)).all()
    assert (np.diff(found) <= 1e-12).all()


def test_p_values_are_calibrated_on_scores_of_the_same_kind() -> None:
    """Of many scores like the history's the share p lies at p, in the tail too."""
    rng = np.random.default_rng(1)
    found = p_values(rng.exponential(1.0, 20_000), rng.exponential(1.0, 200_000))

    for level in (0.5, 0.1, 0.01, 0.001):
        assert (found <= level).mean() == pytest.approx(level, rel=0.25)


def test_a_report_sets_the_baselines_beside_the_model(storage: Storage) -> None:
    """The same figures of all of them, of the same readings; what knows nothing is worth nothing."""
    data = make_floor(storage)
    told: list[float] = []
    report = make_report(
        data,
        [ar_baseline(DETECTION), ChanceScorer()],
        FIGURES,
        ReportContext(sites={"acme/d-0": "Hall 3"}, trained_on=read_manifest(data.id, storage)),
        lambda percent, _text: told.append(percent),
    )
    ar, chance = report["scorers"]

    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert [scorer["kind"] for scorer in report["scorers"]] == ["model", "baseline"]
    assert ar["figures"].keys() == chance["figures"].keys()
    assert [row["key"] for row in ar["series"]] == [row["key"] for row in chance["series"]]
    assert report["dataset"]["id"] == data.id
    assert report["held_out"]["series"] == 5
    assert report["held_out"]["unseen_devices"] == 1
    assert report["held_out"]["readings"] == 5 * 600
    assert report["held_out"]["events"] == sum(row["events"] for row in ar["series"]) > 5
    assert ar["figures"]["vus_pr"]["value"] > 2 * chance["figures"]["vus_pr"]["value"]
    assert ar["figures"]["event_recall_at_price"]["value"] > chance["figures"]["event_recall_at_price"]["value"]
    assert report["comparisons"][0]["vus_pr"]["low"] > 0
    assert {one["name"]: one["series"] for one in ar["slices"]["site"]} == {"(none)": 4, "Hall 3": 1}
    assert {one["name"]: one["series"] for one in ar["slices"]["known"]} == {
        "never trained on": 1,
        "trained on": 4,
    }
    assert {row["was_trained_on"] for row in ar["series"]} == {False}
    assert told == sorted(told)
    assert summary(report)["chance"]["vus_pr"] == chance["figures"]["vus_pr"]["value"]
    assert not any("trained" in note for note in report["notes"])


def test_a_report_says_what_the_version_had_seen(storage: Storage) -> None:
    """A data set with a later split than the training's shares no held-out reading with it; an earlier one does."""
    data = make_floor(storage)
    early = replace(SETTINGS, holdout_fraction=0.1, validation_fraction=0.1)
    trained_on = freeze(replace(data, split=None), replace(data, split=None).split_by(early), {"kind": "x"}, storage)
    seen = ReportContext(trained_on=read_manifest(trained_on.id, storage))
    report = make_report(data, [ar_baseline(DETECTION)], FIGURES, seen)
    unknown = make_report(data, [ar_baseline(DETECTION)], FIGURES)

    assert any(
        "was trained on readings that it is judged on here, in 4 of 5 series" in note for note in report["notes"]
    )
    assert any("nobody knows what the version was trained on" in note for note in unknown["notes"])


def test_what_nobody_could_say_counts_neither_way(storage: Storage) -> None:
    """A false alarm where a person was unsure is no false alarm, and the readings are not judged."""
    data = make_floor(storage, 2)
    plain = make_report(data, [ar_baseline(DETECTION)], FIGURES)
    ts = data.series[0].ts
    unsure = LabelledSpan(
        key=data.series[0].key, from_ts=ts[900], to_ts=ts[-1], at=9.0, value="unsure", provenance="manual"
    )
    labels = LabelSnapshot.of([*data.labels.spans, unsure], are_complete=True)
    assert data.split is not None
    report = make_report(
        freeze(replace(data, labels=labels), data.split, {"kind": "import"}, storage), [ar_baseline(DETECTION)], FIGURES
    )
    before, after = ([row["readings"] for row in one["scorers"][0]["series"]] for one in (plain, report))
    faults = sum(span.from_ts >= ts[900] for span in data.labels.spans if span.key == unsure.key)

    assert before == [600, 600]
    assert after == [faults, 600], "what somebody named a fault stays one"


def test_labels_of_people_alone_are_said_to_be_incomplete(storage: Storage) -> None:
    data = make_floor(storage, 2, are_complete=False)
    report = make_report(data, [ar_baseline(DETECTION)], FIGURES)

    assert any("nobody judged count as normal" in note for note in report["notes"])


def test_without_labels_there_are_false_alarms_and_calibration_alone(storage: Storage) -> None:
    series, _ = generated("d-0")
    data = Dataset.of("made", [series])
    report = make_report(
        freeze(data, data.split_by(SETTINGS), {"kind": "import"}, storage), [ar_baseline(DETECTION)], FIGURES
    )
    (scorer,) = report["scorers"]

    assert scorer["figures"]["vus_pr"]["value"] is None
    assert scorer["figures"]["false_per_device_day"]["value"] is not None
    assert len(scorer["calibration"]) == 8
    assert any("nothing can be said of precision" in note for note in report["notes"])


def test_series_that_are_too_short_are_left_out_and_none_is_an_error(storage: Storage) -> None:
    long, spans = generated("d-0")
    short = Series("acme/short/value", np.arange(90.0), np.arange(90.0))
    data = Dataset.of("made", [long, short], LabelSnapshot.of(spans, are_complete=True))
    report = make_report(
        freeze(data, data.split_by(SETTINGS), {"kind": "import"}, storage), [ar_baseline(DETECTION)], FIGURES
    )
    nothing = Dataset.of("made", [short])

    assert report["held_out"]["left_out"] == 1
    with pytest.raises(NotEnoughDataError, match="for a report"):
        make_report(
            freeze(nothing, nothing.split_by(SETTINGS), {"kind": "import"}, storage), [ar_baseline(DETECTION)], FIGURES
        )


def add_version(storage: Storage, number: int) -> Manifest:
    return ModelRegistry(storage).add(
        model_type="anomaly_detector",
        weights=bytes([number]),
        created_at_s=1_700_000_000.0 + number,
        config={},
        dataset={"name": "x"},
        metrics={},
        settings={},
        seed=0,
        run_id="",
        user_id="ada",
        libraries={},
    )


def test_reports_lie_beside_their_version(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest first, a bounded number; a foreign file is refused, a strange name finds nothing."""
    one = add_version(storage, 1)
    monkeypatch.setattr(report_files, "KEPT", 3)
    ids = [f"{number:064x}" for number in range(5)]
    for number, dataset_id in enumerate(ids):
        path = write_report(storage, one.model_type, one.version, {"format": 1, "dataset": {"id": dataset_id}})
        os.utime(Path(storage.url.removeprefix("file://"), path), (1e9 + number, 1e9 + number))

    assert list_reports(storage, one.model_type, one.version) == [ids[4], ids[3], ids[2]]
    assert read_report(storage, one.model_type, one.version)["dataset"]["id"] == ids[4]
    assert read_report(storage, one.model_type, one.version, ids[2])["dataset"]["id"] == ids[2]
    for version, dataset_id in ((one.version, ids[0]), ("none", ""), ("../x", ""), (one.version, "../manifest")):
        with pytest.raises(ReportNotFoundError, match="has no report"):
            read_report(storage, one.model_type, version, dataset_id)
    storage.write(f"models/{one.model_type}/{one.version}/reports/{ids[4]}.json", b"[]")
    with pytest.raises(ModelFileError, match="no report of format 1"):
        read_report(storage, one.model_type, one.version, ids[4])
    assert ModelRegistry(storage).versions(one.model_type) == [one.version]


@pytest.fixture
def engine(tmp_path: Path, migrated_file: Path) -> Engine:
    (tmp_path / "floor.db").write_bytes(migrated_file.read_bytes())
    return open_engine(f"sqlite:///{tmp_path}/floor.db")


def test_versions_are_found_by_type_version_and_alias(storage: Storage, engine: Engine) -> None:
    registry = ModelRegistry(storage)
    one, two = add_version(storage, 1), add_version(storage, 2)
    promote(engine, one, registry.uri(one), reason="first", at=0.0, expected_revision=0)
    kind = one.model_type

    assert find_version(registry, engine, kind) == two
    assert find_version(registry, engine, f"{kind}:{one.version}") == one
    assert find_version(registry, engine, f"{kind}@{two.version}") == two
    assert find_version(registry, engine, f"{kind}:champion") == one
    for unknown in ("none", f"{kind}:x", f"{kind}:previous", "x:champion", "", "../models", f"{kind}:../x"):
        with pytest.raises(ModelVersionNotFoundError):
            find_version(registry, engine, unknown)
