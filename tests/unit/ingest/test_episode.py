"""Hysteresis: one alert per episode."""

from ingest.detection_settings import DetectorSettings
from ingest.episode import Change, Episode

SETTINGS = DetectorSettings(quiet_readings=3, clear_ratio=0.5, update_step=1.0)


def run(scores: list[float], threshold: float = 8.0) -> list[tuple[int, Change]]:
    episode = Episode()
    changes = []
    for ts, score in enumerate(scores):
        change = episode.step(float(ts), score, threshold, max(scores[:ts], default=0.0), SETTINGS)
        if change is not None:
            changes.append((ts, change))
    return changes


def test_one_alert_per_episode() -> None:
    """Around the threshold it neither raises again nor clears."""
    assert run([1, 9, 7, 9, 6, 8.5, 5]) == [(1, Change.RAISE)]


def test_only_a_much_higher_score_is_reported_again() -> None:
    """An update needs a whole step more than what was reported last."""
    assert run([8, 8.9, 9.1, 9.5, 10.2]) == [(0, Change.RAISE), (2, Change.UPDATE), (4, Change.UPDATE)]


def test_it_clears_after_a_quiet_stretch() -> None:
    """A single loud reading starts the count again."""
    assert run([9, 1, 1, 5, 1, 1, 1, 1]) == [(0, Change.RAISE), (6, Change.CLEAR)]


def test_a_new_alert_must_exceed_the_recent_past() -> None:
    """What was already as strange a moment ago is no news."""
    assert run([12, 1, 1, 1, 9, 13]) == [(0, Change.RAISE), (3, Change.CLEAR), (5, Change.RAISE)]
