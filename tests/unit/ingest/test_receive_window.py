"""The window of open deliveries: order, repeats, and packet ids that come back."""

from fakes_ingest import make_delivery
from hypothesis import given
from hypothesis import strategies as st

from ingest.receive_window import REMEMBERED_S, ReceiveWindow


def test_acknowledgements_keep_the_order_of_arrival() -> None:
    """What was settled early waits for what arrived before it."""
    window = ReceiveWindow()
    first, second, third = (make_delivery(mid=mid, payload=b"%d" % mid) for mid in (7, 3, 9))
    for delivery in (first, second, third):
        assert window.admit(delivery, 0.0)

    window.settle(third)
    window.settle(second)
    assert window.release(0.0) == []
    window.settle(first)
    assert window.release(0.0) == [7, 3, 9]
    assert window.release(0.0) == []
    assert len(window) == 0


def test_a_repeat_of_an_open_delivery_is_ignored() -> None:
    """A broker that sends again on the live connection gets one acknowledgement, not two."""
    window = ReceiveWindow()
    original = make_delivery(mid=5)
    assert window.admit(original, 0.0)

    assert not window.admit(make_delivery(mid=5, is_dup=True), 5.0)
    window.settle(original)
    assert window.release(6.0) == [5]


def test_a_repeat_that_crossed_its_acknowledgement_is_not_acknowledged_again() -> None:
    """By then the packet id may name another message; acknowledging it would lose that one."""
    window = ReceiveWindow()
    original = make_delivery(mid=5)
    window.admit(original, 0.0)
    window.settle(original)
    window.release(5.0)

    assert not window.admit(make_delivery(mid=5, is_dup=True), 5.1)
    assert window.release(5.2) == []


def test_a_packet_id_that_names_another_message_is_a_new_delivery() -> None:
    """The old delivery under this id is forgotten, and settling it acknowledges nothing."""
    window = ReceiveWindow()
    old = make_delivery(mid=5, payload=b"old")
    new = make_delivery(mid=5, payload=b"new")
    window.admit(old, 0.0)

    assert window.admit(new, 1.0)
    window.settle(old)
    assert window.release(1.0) == []
    window.settle(new)
    assert window.release(1.0) == [5]


def test_a_repeat_long_after_is_taken_again() -> None:
    """An acknowledgement that never reached the broker must not leave the id open for ever."""
    window = ReceiveWindow()
    original = make_delivery(mid=5)
    window.admit(original, 0.0)
    window.settle(original)
    window.release(0.0)

    assert window.admit(make_delivery(mid=5, is_dup=True), REMEMBERED_S + 1)


def test_the_oldest_delivery_is_the_one_that_waits_longest() -> None:
    """The lag in the status is taken from it."""
    window = ReceiveWindow()
    assert window.oldest is None
    first, second = make_delivery(mid=1), make_delivery(mid=2)
    window.admit(first, 0.0)
    window.admit(second, 0.0)

    assert window.oldest is first


@given(st.permutations(range(1, 13)), st.lists(st.integers(0, 12), max_size=12))
def test_every_delivery_is_released_once_and_in_order(settle_order: list[int], release_after: list[int]) -> None:
    """Whatever the order of settling, acknowledgements come once each and in arrival order."""
    window = ReceiveWindow()
    deliveries = {mid: make_delivery(mid=mid, payload=b"%d" % mid) for mid in range(1, 13)}
    for delivery in deliveries.values():
        window.admit(delivery, 0.0)

    released: list[int] = []
    for step, mid in enumerate(settle_order):
        window.settle(deliveries[mid])
        if step in release_after:
            released += window.release(0.0)
    released += window.release(0.0)

    assert released == list(range(1, 13))
