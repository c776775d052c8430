"""Memory of keys."""

from realtime.idempotency import IdempotencyWindow
from realtime.publication import StreamPosition


def at(offset: int) -> StreamPosition:
    return StreamPosition("e", offset)


def test_a_key_yields_the_position_of_its_first_use() -> None:
    """Within its time."""
    window = IdempotencyWindow(size=10, ttl_s=5.0)
    window.put("a", at(1), now_s=0.0)

    assert (window.get("a", 4.9), window.get("a", 5.0), window.get("b", 0.0)) == (at(1), None, None)


def test_the_oldest_keys_leave_when_there_are_too_many() -> None:
    """Memory is bounded."""
    window = IdempotencyWindow(size=2, ttl_s=5.0)
    for offset, key in enumerate("abc"):
        window.put(key, at(offset), now_s=0.0)

    assert [window.get(key, 1.0) for key in "abc"] == [None, at(1), at(2)]


def test_expired_keys_leave_with_the_next_one() -> None:
    """A quiet hub does not keep them for ever."""
    window = IdempotencyWindow(size=10, ttl_s=5.0)
    window.put("a", at(1), now_s=0.0)
    window.put("b", at(2), now_s=6.0)

    assert len(window) == 1
