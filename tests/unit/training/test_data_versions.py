"""Versions of data sets: one id for one content, nothing that changes, and names that count."""

import hashlib
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from cluster.ids import new_id
from cluster.store import write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.episode import Change
from tests.fakes_alerts import START_S, FakeClock, decision
from tests.unit.training.conftest import make_dataset
from training.data import catalogue
from training.data.labels import LabelledSpan, LabelSnapshot, Meaning, anomalous, parse_labels
from training.data.snapshots import Dataset, split_windows
from training.data.tabular import Readings
from training.data.versions import freeze, labels_path, load, manifest_path, read_manifest
from training.datasets import DatasetShelf
from training.errors import NotEnoughDataError, UnknownDatasetError
from training.labelling.answering import keep_all
from training.labelling.label_snapshot import parse_window
from training.labelling.labels import Label, Provenance
from training.registry.storage import Storage
from training.settings import TrainSettings

SETTINGS = TrainSettings(context=16, channels=4, num_layers=2, min_windows=16)
SOURCE = {"kind": "telemetry", "name": "telemetry"}
KEY = "demo/device-0/temperature"
NOW = 1_700_100_000.0


@pytest.fixture
def shelf(sql: Engine, storage: Storage) -> DatasetShelf:
    return DatasetShelf(storage, sql, "ada")


def span(value: str = "anomaly", **more: object) -> LabelledSpan:
    fields = {"key": KEY, "from_ts": 10.0, "to_ts": 20.0, "value": value, "provenance": "manual"}
    return LabelledSpan(**fields | more)  # type: ignore[arg-type]


def say(engine: Engine, subject: str, value: str, user: str = "nora", **more: object) -> None:
    label = Label(id=new_id(), at=NOW, subject=subject, value=value, user_id=user, provenance=Provenance.MANUAL)
    with write_transaction(engine) as connection:
        keep_all(connection, {f"{subject}{value}"[-96:]: replace(label, **more)})  # type: ignore[arg-type]


def test_a_version_is_its_content(storage: Storage) -> None:
    """Frozen twice it is one; another label, split or source makes another one; loaded it is the very same."""
    data = replace(make_dataset(300), labels=LabelSnapshot.of([span()], are_complete=False))
    split = data.split_by(SETTINGS)
    one, again = freeze(data, split, SOURCE, storage), freeze(data, split, SOURCE, storage)
    others = [
        freeze(replace(data, labels=LabelSnapshot.of([], are_complete=False)), split, SOURCE, storage),
        freeze(replace(data, labels=LabelSnapshot.of([span()], are_complete=True)), split, SOURCE, storage),
        freeze(data, replace(split, held_out=frozenset({"demo/device-0"})), SOURCE, storage),
        freeze(data, split, SOURCE | {"name": "telemetry:demo/device-0"}, storage),
    ]
    found = load(one.id, storage, "made")

    assert one.id == again.id
    assert len({one.id, *(other.id for other in others)}) == 5
    assert (found.digest, found.split, found.labels) == (data.digest, split, data.labels)
    assert np.array_equal(split_windows(found, SETTINGS).train, split_windows(data, SETTINGS).train)


def test_a_frozen_split_stands_whatever_a_run_asks_for(storage: Storage) -> None:
    data = make_dataset(300)
    frozen = freeze(data, data.split_by(SETTINGS), SOURCE, storage)
    greedy = replace(SETTINGS, holdout_fraction=0.02, validation_fraction=0.02, min_windows=1)

    assert len(split_windows(frozen, greedy).train) == len(split_windows(data, SETTINGS).train)


@pytest.mark.parametrize("part", ["manifest", "labels", "readings"])
@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_a_version_with_a_harmed_part_is_refused(part: str, harm: str, storage: Storage) -> None:
    """Missing, truncated or replaced by another valid one: the hashes say so."""
    data = replace(make_dataset(300), labels=LabelSnapshot.of([span()], are_complete=False))
    other = replace(make_dataset(300, seed=1), labels=LabelSnapshot.of([span("normal")], are_complete=False))
    one, two = (freeze(item, item.split_by(SETTINGS), SOURCE, storage) for item in (data, other))
    paths = [
        {
            "manifest": manifest_path(item.id),
            "labels": labels_path(item.labels.digest),
            "readings": f"datasets/{item.digest}.parquet",
        }[part]
        for item in (one, two)
    ]
    if harm == "gone":
        storage.delete(paths[0])
    else:
        storage.write(paths[0], storage.read(paths[1]) if harm == "changed" else storage.read(paths[0])[:-30])

    with pytest.raises(UnknownDatasetError, match=r"no readable|cannot be read|digest|SHA-256"):
        load(one.id, storage)
    assert load(two.id, storage).id == two.id


def test_a_manifest_of_a_newer_program_and_a_name_that_is_no_id_are_refused(storage: Storage) -> None:
    content = json.dumps({"format": 2}).encode()
    newer = hashlib.sha256(content).hexdigest()
    storage.write(manifest_path(newer), content)

    with pytest.raises(UnknownDatasetError, match="has format 2, this program reads 1"):
        read_manifest(newer, storage)
    with pytest.raises(UnknownDatasetError, match="64 hexadecimal digits"):
        read_manifest("../../etc/passwd", storage)


def test_names_count_and_lead_to_versions(shelf: DatasetShelf) -> None:
    """By name, by number, by id; the same content has one number under a name."""
    shelf.keep("taxi", "recorded:nyc_taxi", SETTINGS, NOW)
    one = catalogue.resolve(shelf.engine, "taxi")
    shelf.keep("taxi", "recorded:nyc_taxi", SETTINGS, NOW + 1)
    two = shelf.keep("taxi", "recorded:nyc_taxi", replace(SETTINGS, holdout_fraction=0.3), NOW + 2)
    other = shelf.keep("cab", "taxi:1", SETTINGS, NOW + 3)

    assert (one.version, one.created_by, one.num_readings, one.num_labels) == (1, "ada", 10_320, 5)
    assert (two.version, two.parent) == (2, one.id)
    assert (other.version, other.id, other.parent) == (1, one.id, one.id)
    assert catalogue.resolve(shelf.engine, "taxi") == two
    for reference in ("taxi:1", one.id, one.id[:12]):
        assert catalogue.resolve(shelf.engine, reference).id == one.id
    assert [row.reference for row in catalogue.list_versions(shelf.engine, 10)] == ["cab:1", "taxi:2", "taxi:1"]
    assert [row.reference for row in catalogue.list_versions(shelf.engine, 10, name="taxi")] == ["taxi:2", "taxi:1"]
    for unknown in ("taxi:3", "bus", "f" * 64, "taxi:x", "", "a b"):
        with pytest.raises(UnknownDatasetError):
            catalogue.resolve(shelf.engine, unknown)
    with pytest.raises(UnknownDatasetError, match="there are cab, taxi"):
        catalogue.resolve(shelf.engine, "bus")


@pytest.mark.parametrize("name", ["telemetry", "recorded:x", "a/b", "", "x" * 65, "a" * 64, "-x", "a:1"])
def test_a_name_that_could_mean_something_else_is_refused(name: str, shelf: DatasetShelf) -> None:
    with pytest.raises(UnknownDatasetError, match="a name is"):
        shelf.keep(name, "recorded:nyc_taxi", SETTINGS, NOW)


def test_work_on_a_source_freezes_it_once(shelf: DatasetShelf) -> None:
    """What a run trained on is in the list under the source's name, and can be had again by its number."""
    first = shelf.open("recorded:rogue_agent_key_hold", SETTINGS, NOW)
    again = shelf.open("recorded:rogue_agent_key_hold", SETTINGS, NOW + 60)
    (row,) = catalogue.list_versions(shelf.engine, 10)
    loaded = shelf.open(row.reference, SETTINGS, NOW)

    assert first.id == again.id == loaded.id == row.id
    assert (row.reference, row.is_kept, row.source_kind) == ("recorded:rogue_agent_key_hold:1", False, "recorded")
    assert first.to_json()["id"] == row.id
    assert first.to_json()["num_labels"] == 2
    assert not shelf.read("recorded:rogue_agent_key_hold", SETTINGS, NOW).id, "to look at it is not to freeze it"


def test_a_person_may_keep_what_a_run_froze(shelf: DatasetShelf) -> None:
    """Its readings stay when those of other runs leave."""
    made = shelf.open("recorded:rogue_agent_key_hold", SETTINGS, NOW)
    assert catalogue.kept_contents(shelf.engine) == frozenset()
    shelf.keep("mine", made.id, SETTINGS, NOW)

    assert catalogue.kept_contents(shelf.engine) == {made.digest}


def test_labels_of_the_floor_come_with_who_gave_them(shelf: DatasetShelf) -> None:
    """Of windows and of alerts, of this data set's series only; the newest word counts, all of them stay."""
    data = make_dataset(300)
    start = float(data.series[0].ts[0])
    shelf.take_in("made", Readings(series=data.series, labels=data.labels), {"format": "csv"}, SETTINGS, NOW)
    say(shelf.engine, f"window:{KEY}:{start}:{start + 600}", "anomaly")
    say(shelf.engine, f"window:{KEY}:{start}:{start + 600}", "normal", user="omar", at=NOW + 5)
    say(shelf.engine, f"window:demo/other/temperature:{start}:{start + 600}", "anomaly")
    say(shelf.engine, "digits:17", "7")
    version = shelf.keep("labelled", "made", SETTINGS, NOW + 10)
    frozen = shelf.open("labelled", SETTINGS, NOW + 10)
    described = shelf.describe(version)

    assert version.num_labels == 2
    assert not anomalous(frozen.labels.by_series()[KEY], frozen.series[0].ts).any()
    assert described["people"] == {"nora": 1, "omar": 1}
    assert described["labels_by_value"] == {"anomaly": 1, "normal": 1}
    assert described["parent"] == catalogue.resolve(shelf.engine, "made").id
    assert described["source"] == {"kind": "import", "format": "csv"}
    assert described["has_readings"]
    assert frozen.split == shelf.open("made", SETTINGS, NOW).split, "another version keeps its split"


def test_a_verdict_speaks_of_its_alerts_stretch(shelf: DatasetShelf, sql: Engine) -> None:
    """From the alert's first reading to its last."""
    (ref,) = AlertEngine(sql, FakeClock()).raise_detector_alerts([decision(Change.RAISE, 1)])
    key = "/".join(decision(Change.RAISE, 1).key)
    series = replace(make_dataset(100).series[0], key=key, ts=START_S - 50 + np.arange(100.0))
    say(sql, f"alert:{ref.alert_id}", "true_positive", alert_id=ref.alert_id, provenance=Provenance.VERDICT)
    shelf.take_in("x", Readings(series=(series,), labels=LabelSnapshot.of([], are_complete=False)), {}, SETTINGS, NOW)
    frozen = shelf.open("x", SETTINGS, NOW)

    (label,) = frozen.labels.spans
    assert (label.from_ts, label.meaning, label.provenance) == (START_S, Meaning.ANOMALY, "verdict")
    assert np.flatnonzero(anomalous([label], frozen.series[0].ts)).tolist() == [50]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("window:a/b/c:1.5:2", ("a/b/c", 1.5, 2.0)),
        ("window:a/b/c:d:e/f:1:2", ("a/b/c:d:e/f", 1.0, 2.0)),
        ("window:a/b/c:2:1", None),
        ("window:a/b:1:2", None),
        ("window:a/b/c:x:2", None),
        ("window:", None),
        ("digits:3", None),
    ],
)
def test_subjects_of_windows(subject: str, expected: object) -> None:
    assert parse_window(subject) == expected


def test_what_people_could_not_say_counts_neither_way() -> None:
    ts = np.arange(30.0)

    assert anomalous([span(), span("unsure", at=5.0)], ts)[15]
    assert not anomalous([span(), span("expected", at=5.0)], ts).any()
    assert anomalous([span("bearing wear")], ts).sum() == 0
    with pytest.raises(ValueError, match="ends before it begins"):
        span(from_ts=3.0, to_ts=1.0)
    with pytest.raises(ValueError, match="not a snapshot of labels"):
        parse_labels(b'{"spans": [{}]}')


def test_tenants_see_their_own_and_the_recordings(shelf: DatasetShelf) -> None:
    """A data set of several tenants is nobody's but the floor's."""
    data = make_dataset(200)
    both = Dataset.of("x", [data.series[0], replace(data.series[1], key="other/d/c")])
    for name, series in (("mine", data.series), ("both", both.series), ("theirs", both.series[1:])):
        shelf.take_in(name, Readings(series=series, labels=data.labels), {}, SETTINGS, NOW)
    shelf.open("recorded:nyc_taxi", SETTINGS, NOW)
    seen = {row.name for row in catalogue.list_versions(shelf.engine, 10, tenant="demo")}

    assert seen == {"mine", "recorded:nyc_taxi"}
    for row in catalogue.list_versions(shelf.engine, 10):
        assert catalogue.is_visible(row, "demo") is (row.name in seen)
        assert catalogue.is_visible(row, None)


def test_the_list_of_what_runs_froze_is_bounded(shelf: DatasetShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest leave; what people keep stays."""
    monkeypatch.setattr(catalogue, "KEPT_ROWS", 3)
    shelf.keep("mine", "recorded:nyc_taxi", SETTINGS, NOW)
    for number in range(5):
        shelf.open("recorded:nyc_taxi", replace(SETTINGS, holdout_fraction=0.1 + number / 100), NOW + 1 + number)
    names = [row.reference for row in catalogue.list_versions(shelf.engine, 10)]

    assert names == [*(f"recorded:nyc_taxi:{number}" for number in (5, 4, 3)), "mine:1"]


def test_two_that_freeze_at_once_get_different_numbers(sql: Engine, storage: Storage) -> None:
    problems: list[BaseException] = []

    def make(seed: int) -> None:
        data = make_dataset(100, seed=seed)
        shelf = DatasetShelf(storage, sql, "ada")
        try:
            shelf.take_in("x", Readings(series=data.series, labels=data.labels), {}, SETTINGS, NOW)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=make, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert sorted(row.version for row in catalogue.list_versions(sql, 10)) == [1, 2, 3, 4, 5, 6]


def test_nothing_cannot_be_kept_and_devices_must_be_there(shelf: DatasetShelf) -> None:
    with pytest.raises(NotEnoughDataError):
        shelf.keep("x", "telemetry", SETTINGS, NOW)
    with pytest.raises(UnknownDatasetError, match="no device 'demo/none' to hold out"):
        shelf.keep("x", "recorded", SETTINGS, NOW, held_out=["demo/none"])
    assert shelf.keep("x", "recorded", SETTINGS, NOW, held_out=["recorded/nyc_taxi"]).num_held_out_devices == 1
