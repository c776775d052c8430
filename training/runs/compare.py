"""Two runs side by side: what they were given, and what came out.

Pure: rows in, lines out. Invariant: every line names a field that differs or a figure, so an empty
part means that the two agree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.runs import Run


@dataclass(frozen=True, slots=True)
class Line:
    """One field of both runs."""

    part: str
    """``run``, ``given`` or ``figures``."""
    name: str
    first: Any
    """None: the run has no such field."""
    second: Any

    @property
    def difference(self) -> float | None:
        """Second minus first; None unless both are numbers."""
        if isinstance(self.first, int | float) and isinstance(self.second, int | float):
            return float(self.second) - float(self.first)
        return None


def compare(first: Run, second: Run) -> list[Line]:
    """Return the fields that differ and all figures of both."""
    return [
        *_differing("run", _about(first), _about(second)),
        *_differing("given", _given(first), _given(second)),
        *_side_by_side("figures", _figures(first), _figures(second)),
    ]


def _about(run: Run) -> dict[str, Any]:
    lasted = None if run.started_at is None or run.ended_at is None else round(run.ended_at - run.started_at, 1)
    return {
        "state": run.state.value,
        "reason": run.reason,
        "user_id": run.user_id,
        "lasted_s": lasted,
        "model_id": run.result.get("model_id"),
        "dataset_digest": run.result.get("dataset_digest"),
    }


def _given(run: Run) -> dict[str, Any]:
    return _flat({"model_type": run.model_type, "dataset_id": run.dataset_id} | run.arguments)


def _figures(run: Run) -> dict[str, Any]:
    own: dict[str, Any] = {name: run.result[name] for name in ("best_epoch", "epochs", "fit_s") if name in run.result}
    return own | dict(run.result.get("metrics") or {})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _differing(part: str, first: dict[str, Any], second: dict[str, Any]) -> Iterator[Line]:
    return (line for line in _side_by_side(part, first, second) if line.first != line.second)


def _side_by_side(part: str, first: dict[str, Any], second: dict[str, Any]) -> Iterator[Line]:
    for name in dict.fromkeys([*first, *second]):
        yield Line(part, name, first.get(name), second.get(name))
