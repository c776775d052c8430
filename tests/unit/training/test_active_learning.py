"""The windows that a person should look at next: least sure first, bounded, none twice."""

import itertools

import numpy as np
import pytest

from ingest.detection_settings import DetectorSettings
from ingest.scorer import Residuals, Windows
from tests.unit.training.conftest import make_dataset
from training.errors import NotEnoughDataError
from training.labelling.active_learning import MAX_CHOSEN, Candidate, choose, confidence, least_confident

SETTINGS = DetectorSettings(history_size=512)


def spans(chosen: list[Candidate]) -> list[tuple[str, float, float]]:
    return [(candidate.key.device, candidate.from_ts, candidate.to_ts) for candidate in chosen]


def test_confidence_is_a_half_on_the_threshold_and_grows_with_the_margin_on_both_sides() -> None:
    """A decade of rarity is odds of ten to one, whether above or below."""
    sure = confidence(np.array([7.0, 8.0, 6.0, 0.0]), np.array([7.0, 7.0, 7.0, 6.0]))

    assert sure == pytest.approx([0.5, 10 / 11, 10 / 11, 1.0], abs=1e-6)


def test_the_least_sure_come_first_and_the_earlier_among_equals() -> None:
    sure = np.array([0.9, 0.6, 0.99, 0.6, 0.5])

    assert least_confident(sure, 3).tolist() == [4, 1, 3]
    assert least_confident(sure, 10).tolist() == [4, 1, 3, 0, 2]


def test_what_is_surer_than_the_threshold_is_not_chosen() -> None:
    """Fewer come back than were asked for; none is no error."""
    sure = np.array([0.9, 0.85, 0.99])

    assert least_confident(sure, 3, 0.85).tolist() == [1]
    assert least_confident(sure, 3, 0.6).tolist() == []


@pytest.mark.parametrize(
    ("k", "threshold", "what"),
    [
        pytest.param(0, 0.85, "k must be 1-200, got 0", id="nothing-wanted"),
        pytest.param(MAX_CHOSEN + 1, 0.85, "got 201", id="too-much-wanted"),
        pytest.param(1, 0.5, "threshold must be above 0.5", id="nothing-unsure"),
        pytest.param(1, 85, "at most 1, got 85", id="percent"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(k: int, threshold: float, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        least_confident(np.array([0.5]), k, threshold)


def test_windows_of_a_choice_do_not_overlap_and_are_the_nearest_to_the_threshold() -> None:
    dataset = make_dataset(readings=600)
    everything = choose(dataset, None, SETTINGS, MAX_CHOSEN, 1.0)
    first = choose(dataset, None, SETTINGS, 3, 1.0)

    assert first == everything[:3]
    margins = [abs(one.score - one.threshold) for one in everything]
    assert margins == sorted(margins)
    assert len(everything) == 2 * (512 // 64)
    for device in ("device-0", "device-1"):
        own = sorted(span for span in spans(everything) if span[0] == device)
        assert all(before[2] < after[1] for before, after in itertools.pairwise(own))
        # The newest readings of the history, and nothing older.
        assert own[0][1] == dataset.series[0].ts[-512]
        assert own[-1][2] == dataset.series[0].ts[-1]


def test_a_floor_without_alerts_is_asked_about_too() -> None:
    """Windows below the threshold raise nothing; the least sure of them are asked about all the same."""
    everything = choose(make_dataset(readings=600), None, SETTINGS, MAX_CHOSEN, 1.0)
    quiet = [one for one in everything if one.score < one.threshold]

    assert quiet
    assert {one.to_question("m@1", "s").proposal for one in quiet} == {"normal"}


class Startled:
    """A model that finds only these strange, of the readings that have a past."""

    name, version, context = "startled", "1", 4

    def __init__(self, strange: slice) -> None:
        self.strange = strange

    def residuals(self, windows_BW: Windows) -> Residuals:
        answer: Residuals = np.zeros(len(windows_BW), dtype=np.float32)
        answer[self.strange] = 9.0
        return answer


def test_the_scores_are_those_of_the_model_asked_about() -> None:
    """What startles the model raises the score of that window, and of no other."""
    dataset = make_dataset(readings=512)
    calm, startled = (
        {span: one.score for one in choose(dataset, Startled(at), SETTINGS, 99, 1.0) for span in spans([one])}
        for at in (slice(0), slice(64 - Startled.context, 128 - Startled.context))
    )
    ts = dataset.series[0].ts
    second = {(device, ts[64], ts[127]) for device in ("device-0", "device-1")}

    assert {span for span, score in startled.items() if score != calm[span]} == second
    assert all(startled[span] > calm[span] for span in second)


def test_a_data_set_without_a_judgeable_series_is_refused() -> None:
    """Too short and empty alike: the text says how much there is."""
    with pytest.raises(NotEnoughDataError, match=r"0 windows for active learning, 4 needed \(400 readings of 2 series"):
        choose(make_dataset(readings=200), None, SETTINGS, 5, 1.0)
    with pytest.raises(NotEnoughDataError, match=r"0 readings of 0 series"):
        choose(make_dataset(readings=0), None, SETTINGS, 5, 1.0)
