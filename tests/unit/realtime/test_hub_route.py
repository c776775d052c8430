"""When a client tries the hub's socket."""

from realtime.hub_frames import SocketAddress
from realtime.hub_route import RETRY_CAP_S, RETRY_FIRST_S, Route

ADDRESS = SocketAddress("/run/hub.sock", b"secret")


def test_the_socket_is_tried_first() -> None:
    """And again at once after it was lost."""
    route = Route()
    assert route.may_try(0.0)
    route.reached(ADDRESS)
    route.lost(ADDRESS)

    assert (route.may_try(0.0), route.address) == (True, None)


def test_an_older_connections_end_says_nothing_of_the_newer_address() -> None:
    """Several connections notice a restart one after the other."""
    route = Route()
    route.reached(ADDRESS)
    route.lost(SocketAddress("/run/older.sock", b"secret"))

    assert route.address == ADDRESS


def test_a_socket_out_of_reach_is_tried_ever_more_seldom() -> None:
    """A process on another node asks for the address once a minute at most."""
    route, now_s = Route(), 0.0
    pauses = []
    for _ in range(20):
        route.unreachable(now_s)
        began_s = now_s
        while not route.may_try(now_s):
            now_s += 0.05
        pauses.append(now_s - began_s)

    assert pauses[0] <= RETRY_FIRST_S + 0.05
    assert max(pauses) > RETRY_FIRST_S * 4
    assert max(pauses) <= RETRY_CAP_S + 0.05
