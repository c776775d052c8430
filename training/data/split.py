"""Which readings a model may learn from: a split by time and by device, fixed with the data set.

Pure numpy. Each device has two moments of its own clock: before the first lies what trains, between
them what chooses the best epoch, from the second on what judges. Some devices never train at all; of
those only the last part judges. All series of a device are cut at the same moments, so a channel
never tells a model of the hours that another channel is judged on. Invariant: equal times and names
give equal splits, and no reading is in two parts.

Shapes: N readings of a series.
"""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Cut = tuple[float, float]
"""Where the validation and the held-out part begin, device times in seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The parts of every series of one data set."""

    cuts: Mapping[str, Cut]
    """By device, as ``device_of`` names it."""
    held_out: frozenset[str]
    """Devices of which nothing is trained on."""

    def points(self, key: str, ts_N: Floats) -> tuple[int, int]:
        """Return where in a series the validation and the held-out part begin."""
        validation, held_out = np.searchsorted(ts_N, self.cuts[device_of(key)], side="left")
        return int(validation), int(held_out)

    def trains(self, key: str) -> bool:
        """Say whether a series' earlier part may be learned from."""
        return device_of(key) not in self.held_out

    def to_json(self) -> dict[str, Any]:
        """Return the split as it stands in a data set's manifest."""
        cuts = {device: list(cut) for device, cut in sorted(self.cuts.items())}
        return {"cuts": cuts, "held_out": sorted(self.held_out)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Split":
        """Return what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is not such a document.
        """
        cuts = {str(device): (float(first), float(second)) for device, (first, second) in document["cuts"].items()}
        if not all(math.isfinite(first) and first <= second < math.inf for first, second in cuts.values()):
            raise ValueError("a device's held-out part begins before its validation part")
        return cls(cuts=cuts, held_out=frozenset(map(str, document["held_out"])))


def device_of(key: str) -> str:
    """Return the ``tenant/device`` of a series' key."""
    return "/".join(key.split("/", 2)[:2])


def split_by(
    times: Mapping[str, Floats],
    *,
    validation_fraction: float,
    holdout_fraction: float,
    device_fraction: float = 0.0,
    held_out: Collection[str] | None = None,
) -> Split:
    """Return the split of a set of series.

    Args:
        times: the times of every series by its key, in order.
        validation_fraction: share of each device's readings, before the held-out ones, that chooses the best epoch.
        holdout_fraction: share of each device's readings, the last ones, that judges.
        device_fraction: share of the devices, rounded down, that never train: those whose names' hashes are
            lowest, so that the same devices are held out of the next data set too.
        held_out: exactly these devices never train, whatever ``device_fraction`` says.

    Raises:
        ValueError: a device of ``held_out`` is not there, or none would be left to train on.
    """
    by_device: dict[str, list[Floats]] = {}
    for key, ts_N in times.items():
        by_device.setdefault(device_of(key), []).append(ts_N)
    chosen = _lowest(by_device, int(device_fraction * len(by_device))) if held_out is None else frozenset(held_out)
    if unknown := chosen - by_device.keys():
        raise ValueError(f"no device {min(unknown)!r} to hold out; there are {', '.join(sorted(by_device)) or 'none'}")
    if by_device and chosen == by_device.keys():
        raise ValueError(f"all {len(chosen)} devices would be held out, and nothing be left to train on")
    cuts = {
        device: _cut(np.sort(np.concatenate(parts)), validation_fraction, holdout_fraction)
        for device, parts in by_device.items()
    }
    return Split(cuts=cuts, held_out=chosen)


def split_points(count: int, validation_fraction: float, holdout_fraction: float) -> tuple[int, int]:
    """Return where the validation and the held-out part of ``count`` readings begin."""
    held_out = count - int(holdout_fraction * count)
    return held_out - int(validation_fraction * count), held_out


def _cut(ts_N: Floats, validation_fraction: float, holdout_fraction: float) -> Cut:
    # A part without readings begins after the last one; infinity is not JSON.
    after = float(np.nextafter(ts_N[-1], math.inf))
    points = split_points(len(ts_N), validation_fraction, holdout_fraction)
    validation, held_out = (float(ts_N[point]) if point < len(ts_N) else after for point in points)
    return validation, held_out


def _lowest(devices: Collection[str], count: int) -> frozenset[str]:
    ranked = sorted(devices, key=lambda device: hashlib.sha256(device.encode()).digest())
    return frozenset(ranked[:count])
