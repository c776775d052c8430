"""Whether a reader can be given all that it missed."""

import pytest

from realtime.recovery import MAX_LOST_RANGES, LostRange, Mark, can_recover, resumed

AFTER_RESTART = resumed(Mark("e", floor=3, top=7, end=100), block=50)


@pytest.mark.parametrize(
    ("epoch", "offset", "expected"),
    [
        pytest.param("e", 7, True, id="saw-everything-journalled"),
        pytest.param("e", 3, True, id="at-the-floor"),
        pytest.param("", 5, True, id="empty-epoch-stands-for-any"),
        pytest.param("e", 100, True, id="came-after-the-restart"),
        pytest.param("e", 2, False, id="its-next-one-has-left"),
        pytest.param("e", 8, False, id="saw-what-was-lost"),
        pytest.param("e", 99, False, id="saw-the-last-of-what-was-lost"),
        pytest.param("e", 101, False, id="from-the-future"),
        pytest.param("f", 7, False, id="other-epoch"),
    ],
)
def test_a_position_is_judged_against_a_restarted_stream(epoch: str, offset: int, expected: bool) -> None:
    """Only the lost part, what has left and other lives are a no."""
    assert can_recover(AFTER_RESTART, epoch, offset) is expected


def test_a_resumed_stream_begins_above_its_reservation() -> None:
    """The first offset of the new life was never reserved before."""
    assert (AFTER_RESTART.top, AFTER_RESTART.end, AFTER_RESTART.lost) == (100, 150, (LostRange(7, 100),))


def test_restarts_that_lie_far_back_are_forgotten_safely() -> None:
    """Memory of lost parts is bounded; below the oldest remembered one nothing is recovered."""
    mark = Mark("e", floor=0, top=1, end=10)
    for _ in range(MAX_LOST_RANGES + 1):
        mark = resumed(mark, block=10)

    assert (len(mark.lost), mark.floor, can_recover(mark, "e", 1)) == (MAX_LOST_RANGES, 10, False)
