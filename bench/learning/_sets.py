"""The sets that active learning and auto-labels are measured on, as rows and classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.learning._environment import Environment
from training.labelling.window_features import window_features

Floats = NDArray[np.float64]
Classes = NDArray[np.intp]

FAULTS = ("normal", "spike", "level_shift", "drift", "stuck", "noise", "oscillation")
SHARES = (0.52, 0.08, 0.08, 0.08, 0.08, 0.08, 0.08)
READINGS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """Rows with their true classes."""

    name: str
    features_NF: Floats
    target_N: Classes
    batch: int
    """Labels of a round."""
    budget: int
    """Labels in all."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(str(number) for number in range(int(self.target_N.max()) + 1))


def tables(environment: Environment) -> list[LabelledSet]:
    """Return the three tables that come with scikit-learn, read in its environment."""
    sizes = {"digits": (20, 260), "breast_cancer": (6, 90), "wine": (4, 44)}
    found = []
    for name, (batch, budget) in sizes.items():
        features, target = environment.ask(load=name)
        found.append(
            LabelledSet(
                name=name,
                features_NF=features.astype(np.float64),
                target_N=target.ravel().astype(np.intp),
                batch=batch,
                budget=budget,
            )
        )
    return found


def telemetry(windows: int = 1200, seed: int = 2026, overlap: float = 1.0) -> LabelledSet:
    """Return windows of generated readings, about half of them normal, with six kinds of faults.

    Args:
        windows: how many.
        seed: of the generator.
        overlap: smaller faults than 1 are harder to tell from noise; at 0 they cannot be.
    """
    rng = np.random.default_rng(seed)
    target = rng.choice(len(FAULTS), windows, p=SHARES)
    values = np.stack([_window(FAULTS[kind], overlap, rng) for kind in target])
    return LabelledSet(
        name="telemetry" if overlap == 1.0 else "telemetry_overlapping",
        features_NF=window_features(values),
        target_N=target.astype(np.intp),
        batch=20,
        budget=300,
    )


def _window(kind: str, size: float, rng: np.random.Generator) -> Floats:
    time = np.arange(READINGS)
    scale = float(np.exp(rng.normal(0, 1)))
    values = rng.normal(0, 1, READINGS) * rng.uniform(0.3, 1.0)
    values += rng.uniform(0, 2.0) * np.sin(2 * np.pi * (time / rng.uniform(16, 64) + rng.random()))
    at = int(rng.integers(8, READINGS - 12))
    sign = float(rng.choice((-1, 1)))
    if kind == "spike":
        values[at : at + int(rng.integers(1, 4))] += sign * size * rng.uniform(4, 9)
    elif kind == "level_shift":
        values[at:] += sign * size * rng.uniform(3, 6)
    elif kind == "drift":
        values += sign * size * rng.uniform(3, 7) * time / READINGS
    elif kind == "stuck":
        length = int(size * rng.integers(8, 24))
        values[at : at + length] = values[at]
    elif kind == "noise":
        values += size * rng.normal(0, rng.uniform(1.5, 3.0), READINGS)
    elif kind == "oscillation":
        values += size * rng.uniform(1.5, 3.0) * np.sin(2 * np.pi * time / rng.uniform(3, 6))
    return scale * values + rng.normal(0, 20)
