"""What a model may label by itself: what random audits vouch for, and otherwise nothing."""

import numpy as np
import pytest

from training.labelling.auto_labels import AutoSettings, calibrate, interval, lower_bound


def test_the_bound_is_clopper_and_pearsons() -> None:
    """Without a mistake it has a closed form; with some it agrees with tables."""
    assert lower_bound(230, 0, 0.9) == pytest.approx(0.1 ** (1 / 230))
    assert lower_bound(100, 5, 0.95) == pytest.approx(0.8977, abs=1e-3)
    assert (lower_bound(0, 0, 0.9), lower_bound(3, 3, 0.9)) == (0.0, 0.0)
    assert interval(10, 9, 0.9) == pytest.approx((0.6058, 0.9949), abs=1e-3)
    assert interval(0, 0) == (0.0, 1.0)


def test_too_few_audits_label_nothing() -> None:
    """However right the model was."""
    found = calibrate(np.ones(229), np.ones(229, dtype=bool))

    assert found.threshold is None
    assert found.why == "230 audits are needed, there are 229"


def test_the_threshold_lies_above_the_mistakes() -> None:
    """Mistakes are made below 0.8; the threshold excludes them and no more than it must."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 1000)
    is_right = (confidence > 0.8) | (rng.random(1000) < 0.7)

    found = calibrate(confidence, is_right)

    assert found.threshold is not None
    assert 0.78 < found.threshold < 0.9
    assert found.precision_at_least >= 0.99
    assert found.audits == 1000


def test_a_set_where_the_precision_cannot_be_reached_labels_nothing() -> None:
    """The model is as often wrong where it is sure as elsewhere."""
    rng = np.random.default_rng(0)

    found = calibrate(rng.uniform(0.9, 1.0, 600), rng.random(600) < 0.95)

    assert found.threshold is None
    assert "mistakes among the" in found.why


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    """Of many calibrations of a model whose precision above any threshold is 0.985, few promise 0.99."""
    rng = np.random.default_rng(0)
    promises = [calibrate(rng.random(400), rng.random(400) < 0.985).threshold is not None for _ in range(300)]

    assert np.mean(promises) <= 0.1


@pytest.mark.parametrize("wrong", [{"precision": 1.0}, {"precision": 0.4}, {"trust": 1.0}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AutoSettings(**wrong)
