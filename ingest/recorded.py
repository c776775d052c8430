"""The recorded series that ship with the floor: seven from the Numenta Anomaly Benchmark.

Reads files, decides nothing. Times in the files carry no zone; they are taken as UTC.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "nab"


@dataclass(frozen=True, slots=True)
class RecordedSeries:
    """One series, oldest point first."""

    name: str
    """Stem of the file."""
    points: tuple[tuple[str, float], ...]
    """(ISO 8601 time with Z, value)."""

    @property
    def device(self) -> str:
        """Name of the device that replays it."""
        return self.name.replace("_", "-")


def load_series(name: str) -> RecordedSeries:
    """Return one series by the stem of its file.

    Raises:
        ValueError: there is none of this name.
    """
    path = FOLDER / f"{name}.csv"
    if path.parent != FOLDER or not path.is_file():
        raise ValueError(f"no recorded series {name!r}; there are {', '.join(series_names())}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        points = tuple((row["timestamp"].replace(" ", "T") + "Z", float(row["value"])) for row in rows)
    return RecordedSeries(name, points)


def series_names() -> list[str]:
    """Return the names of the shipped series."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))
