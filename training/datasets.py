"""Data sets as tasks, trainings and commands ask for them: by a name, a name and a number, or an id.

Puts together what the folders below know: readings, labels, split, files, list. A source
(``telemetry``, ``recorded``) is frozen when somebody works on it, so that what came out can be traced
and made again; what is frozen already is loaded. Invariant: whoever trains or judges holds a
version that is in the list, with the labels that the floor had at that moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from cluster.store import read_transaction
from training.data import catalogue
from training.data.catalogue import DatasetVersion
from training.data.labels import LabelSnapshot
from training.data.snapshots import Dataset, is_source, read_dataset, snapshot_path
from training.data.split import Split, device_of, split_by
from training.data.tabular import Readings
from training.data.versions import freeze, load, read_manifest, read_parts
from training.errors import NotEnoughDataError, UnknownDatasetError
from training.labelling.label_snapshot import read_labels
from training.registry.storage import Storage
from training.settings import TrainSettings

IMPORT = "import"


@dataclass(frozen=True, slots=True)
class DatasetShelf:
    """The data sets of one floor: its storage, its SQL store, and whose doing all of this is."""

    storage: Storage
    engine: Engine
    user_id: str = ""

    def read(self, reference: str, settings: TrainSettings, now_s: float) -> Dataset:
        """Return what a reference means, for looking at: a source is not frozen.

        Args:
            reference: a source, ``NAME``, ``NAME:VERSION`` or an id; see ``read_dataset`` and ``catalogue.resolve``.
            settings: how far back telemetry is read.
            now_s: seconds since the Unix epoch.

        Raises:
            UnknownDatasetError: there is none; the text says which there are.
        """
        if not is_source(reference) or catalogue.names_version(reference):
            version = catalogue.resolve(self.engine, reference)
            return load(version.id, self.storage, version.name)
        found = read_dataset(reference, self.storage.url, settings.history_s, now_s)
        return replace(found, labels=self._labels(found))

    def open(self, reference: str, settings: TrainSettings, now_s: float) -> Dataset:
        """Return the version that a reference means, for work on it: a source is frozen now, split by the settings.

        Raises:
            UnknownDatasetError: there is none; the text says which there are.
        """
        return self.freeze(self.read(reference, settings, now_s), settings, now_s)

    def freeze(self, dataset: Dataset, settings: TrainSettings, now_s: float) -> Dataset:
        """Return what ``read`` gave as a version: a source as it was read, split by the settings."""
        if dataset.id:
            return dataset
        source = {"kind": dataset.name.partition(":")[0], "name": dataset.name}
        return self._add(dataset, dataset.split_by(settings), source, dataset.name, now_s)[0]

    def keep(
        self,
        name: str,
        reference: str,
        settings: TrainSettings,
        now_s: float,
        held_out: Sequence[str] | None = None,
    ) -> DatasetVersion:
        """Freeze a source, or another version with the labels of today, under a name of one's own.

        Args:
            name: what it is called.
            reference: see ``read``; another version keeps its split.
            settings: the split of a source, and how far back telemetry is read.
            now_s: seconds since the Unix epoch.
            held_out: devices that never train; None: chosen by ``settings.device_fraction``.

        Raises:
            UnknownDatasetError: no such data set or device, or nobody may call one so.
            NotEnoughDataError: there is not one reading.
        """
        catalogue.check_name(name)
        found = self.read(reference, settings, now_s)
        if not found.series:
            raise NotEnoughDataError(reference, "anything", 0, 1, 0, 0)
        source: Mapping[str, Any] = {"kind": reference.partition(":")[0], "name": reference}
        split, parent = found.split, found.id or None
        if parent is not None:
            source = read_manifest(parent, self.storage).source
            found = replace(found, labels=self._labels(found))
        if split is None or held_out is not None:
            split = split_of(found, settings, held_out)
        return self._add(found, split, source, name, now_s, is_kept=True, parent=parent)[1]

    def take_in(
        self,
        name: str,
        readings: Readings,
        source: Mapping[str, Any],
        settings: TrainSettings,
        now_s: float,
        held_out: Sequence[str] | None = None,
    ) -> DatasetVersion:
        """Freeze what a file held under a name.

        Raises:
            UnknownDatasetError: nobody may call a data set so, or a device to hold out is not there.
        """
        catalogue.check_name(name)
        dataset = Dataset.of(name, readings.series, readings.labels)
        dataset = replace(dataset, labels=self._labels(dataset))
        split = split_of(dataset, settings, held_out)
        return self._add(dataset, split, {"kind": IMPORT, **source}, name, now_s, is_kept=True)[1]

    def describe(self, version: DatasetVersion) -> dict[str, Any]:
        """Return all that is known of a version, as one JSON object; times are seconds since the Unix epoch.

        Raises:
            UnknownDatasetError: its manifest or its labels cannot be read.
        """
        manifest = read_manifest(version.id, self.storage)
        labels, split = read_parts(manifest, self.storage)
        series = []
        for one in manifest.series:
            validation, held_out = split.cuts[device_of(one["key"])]
            parts = {"validation_from": validation, "held_out_from": held_out, "trains": split.trains(one["key"])}
            series.append(dict(one) | parts)
        return dict(catalogue.to_json(version)) | {
            "source": dict(manifest.source),
            "has_readings": self.storage.exists(snapshot_path(manifest.content)),
            "held_out_devices": sorted(split.held_out),
            "labels_are_complete": labels.are_complete,
            "labels_by_value": labels.by_value(),
            "labels_by_provenance": labels.by_provenance(),
            "people": labels.people(),
            "series": series,
        }

    def _add(
        self,
        dataset: Dataset,
        split: Split,
        source: Mapping[str, Any],
        name: str,
        now_s: float,
        *,
        is_kept: bool = False,
        parent: str | None = None,
    ) -> tuple[Dataset, DatasetVersion]:
        frozen = freeze(replace(dataset, name=name), split, source, self.storage)
        manifest = read_manifest(frozen.id, self.storage)
        version = catalogue.add(
            self.engine,
            frozen,
            manifest,
            name=name,
            created_at=now_s,
            created_by=self.user_id,
            is_kept=is_kept,
            parent=parent,
        )
        return frozen, version

    def _labels(self, dataset: Dataset) -> LabelSnapshot:
        """Return the data set's own labels with those that people gave on this floor."""
        with read_transaction(self.engine) as connection:
            given = read_labels(connection, [one.key for one in dataset.series])
        known = {span.label_id for span in given}
        own = [span for span in dataset.labels.spans if not span.label_id or span.label_id not in known]
        return LabelSnapshot.of([*own, *given], are_complete=dataset.labels.are_complete)


def split_of(dataset: Dataset, settings: TrainSettings, held_out: Sequence[str] | None) -> Split:
    """Return the split of a data set by a run's settings, with devices of one's own choice held out.

    Raises:
        UnknownDatasetError: such a device is not there, or none would be left.
    """
    try:
        return split_by(
            {one.key: one.ts for one in dataset.series},
            validation_fraction=settings.validation_fraction,
            holdout_fraction=settings.holdout_fraction,
            device_fraction=settings.device_fraction,
            held_out=held_out,
        )
    except ValueError as error:
        raise UnknownDatasetError(dataset.name, str(error)) from error
