"""That a full disk has room again is told once."""

from collections.abc import Iterator

from serve_apps.full_disk import FullDisk


def test_room_is_told_once_after_each_time_without() -> None:
    """Nearly full is not full, and a little room is not enough."""
    free: Iterator[int] = iter([500, 11, 100, 9, 0, 30, 50, 500, 5, 60])
    disk = FullDisk(lambda: next(free), full_bytes=10, room_bytes=50)

    assert [disk.has_ended() for _ in range(10)] == [
        False, False, False, False, False, False, True, False, False, True
    ]  # fmt: skip
