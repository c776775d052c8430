"""When labelling may stop: models that follow each other say the same."""

import numpy as np
import pytest

from training.labelling.stopping import KappaStopping, StoppingSettings, kappa


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param([0, 1, 2, 1], [0, 1, 2, 1], 1.0, id="equal"),
        pytest.param([0, 0, 1, 1], [0, 1, 0, 1], 0.0, id="by-chance"),
        pytest.param([0, 1], [1, 0], -1.0, id="opposite"),
        pytest.param([3, 3, 3], [3, 3, 3], 0.0, id="always-the-same-says-nothing"),
    ],
)
def test_kappa_by_its_definition(one: list[int], other: list[int], expected: float) -> None:
    assert kappa(np.array(one), np.array(other)) == pytest.approx(expected)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        kappa(np.zeros(3, dtype=int), np.zeros(2, dtype=int))


def test_labelling_stops_after_three_comparisons_in_agreement() -> None:
    """A change starts the count anew."""
    calm, other = np.arange(200) % 3, np.arange(200) % 2
    stopping = KappaStopping()

    said = [stopping.watch(classes) for classes in (other, calm, calm, calm, calm, calm)]

    assert said == [False, False, False, False, True, True]
    assert stopping.agreement == 1.0


@pytest.mark.parametrize("wrong", [{"agreement": 0.0}, {"agreement": 1.1}, {"window": 0}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StoppingSettings(**wrong)  # type: ignore[arg-type]
