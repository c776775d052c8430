"""Token buckets, one and many."""

from hypothesis import given
from hypothesis import strategies as st

from serve_apps.rate import KeyedBuckets, TokenBucket

STEPS = st.lists(st.floats(0, 5), max_size=200)


@given(per_s=st.floats(0.5, 100), burst=st.integers(1, 50), steps=STEPS)
def test_no_span_lets_through_more_than_its_share(per_s: float, burst: int, steps: list[float]) -> None:
    """The burst, and what has come since."""
    bucket, now_s, taken = TokenBucket(per_s, burst, 0.0), 0.0, 0
    for step in steps:
        now_s += step
        taken += bucket.take(now_s)
        assert taken <= burst + now_s * per_s + 1e-6


@given(per_s=st.floats(0.5, 100), burst=st.integers(1, 20))
def test_who_waits_as_long_as_it_was_told_gets_through(per_s: float, burst: int) -> None:
    """Whole seconds, as Retry-After has them, and at least one."""
    bucket = TokenBucket(per_s, burst, 0.0)
    while bucket.take(0.0):
        pass
    assert bucket.wait_s >= 1
    assert bucket.take(bucket.wait_s + 1e-6)


def test_each_key_has_its_own() -> None:
    """One that is over its share costs the others nothing."""
    buckets = KeyedBuckets(1.0, 2.0, max_keys=10)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0, 0, 1]
    assert buckets.take("b", 0.0) == 0
    assert buckets.take("a", 1.0) == 0


def test_keys_are_bounded() -> None:
    """The one that was used longest ago is forgotten."""
    buckets = KeyedBuckets(0.001, 1.0, max_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert len(buckets) == 2
    assert buckets.take("a", 0.0) > 0  # still known, still empty
    assert buckets.take("b", 0.0) == 0  # forgotten
