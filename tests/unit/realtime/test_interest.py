"""What each gateway is sent: never less than it follows, whatever order calls arrive in."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.clock import SystemClock
from realtime.hub import Hub
from realtime.interest import Asker, Interests, Wish
from realtime.publication import Draft
from realtime.settings import HubSettings

CHANNELS = ("noc:all", "tenant:acme", "user:1", "user:2")
TTL_S = 60.0


def make(max_gateways: int = 10, max_channels: int = 10) -> Interests:
    return Interests(TTL_S, max_gateways, max_channels)


def say_all(interests: Interests, number: int, *follows: str) -> None:
    interests.hear(Wish("a", number), 0.0)
    interests.hear(Wish("a", number, follows=follows, lease=interests.wants_all("a")), 0.0)


def channels(interests: Interests, gateway: str) -> set[str]:
    wanted = interests.wanted(gateway)
    assert wanted is not None
    return {channel for channel in CHANNELS if channel in wanted}


def test_a_gateway_gets_everything_until_it_has_said_all() -> None:
    """A question alone is a part of what it follows; the list makes it the whole."""
    interests = make()
    assert (interests.wanted("a"), interests.wants_all("a")) == (None, "")

    interests.follow(Asker("a", 2), ["user:1"], 0.0)
    lease = interests.wants_all("a")
    assert interests.wanted("a") is None
    assert lease

    interests.hear(Wish("a", 1, follows=("noc:all",), lease=lease), 0.0)
    assert channels(interests, "a") == {"noc:all", "user:1"}  # the question is younger than the list
    assert (interests.wants_all("a"), len(interests)) == ("", 1)


def test_a_list_that_another_life_has_asked_for_is_not_all() -> None:
    """What the gateway began to follow since it was written, only that other life was told."""
    interests, successor = make(), make()
    interests.hear(Wish("a", 1), 0.0)
    late = Wish("a", 2, follows=("noc:all",), lease=interests.wants_all("a"))
    interests.follow(Asker("a", 3), ["user:1"], 0.0)

    successor.hear(late, 0.0)

    assert successor.wanted("a") is None
    assert successor.wants_all("a") not in {"", late.lease}


def test_what_overtakes_does_no_harm() -> None:
    """A leave that arrives after the channel was asked for anew is not heeded."""
    interests = make()
    say_all(interests, 1, "user:1")
    interests.follow(Asker("a", 3), ["user:1"], 0.0)
    interests.hear(Wish("a", 2, leaves=("user:1",)), 0.0)
    assert channels(interests, "a") == {"user:1"}

    interests.hear(Wish("a", 4, leaves=("user:1", "user:2")), 0.0)
    assert channels(interests, "a") == set()


def test_bounds_end_in_everything() -> None:
    """One gateway too many, one channel too many, or a lease that is over: nothing is held back."""
    interests = make(max_gateways=1, max_channels=1)
    say_all(interests, 1, "user:1")
    interests.hear(Wish("b", 1), 0.0)
    assert (interests.wanted("b"), interests.wants_all("b")) == (None, "")

    interests.follow(Asker("a", 2), ["user:2"], 0.0)
    assert interests.wanted("a") is None

    interests.hear(Wish("a", 3, leaves=("user:2",)), 1.0)
    assert channels(interests, "a") == {"user:1"}
    interests.expire(TTL_S)
    assert interests.wanted("a") is not None
    interests.expire(1.0 + TTL_S)
    assert interests.wanted("a") is None


def test_readers_pass_over_what_is_for_others() -> None:
    """The cursor moves on, and coalesced publications of others are not counted."""
    hub = Hub(HubSettings(), SystemClock())
    cursor = hub.since(None, hub.top).cursor
    hub.publish([Draft(channel, b"1") for channel in CHANNELS])
    hub.publish([Draft("user:1", b"2", coalesce_key="bar"), Draft("user:1", b"3", coalesce_key="bar")])

    reply = hub.since(cursor, hub.top, {"tenant:acme"})
    assert ([item.channel for item in reply.publications], reply.coalesced) == (["tenant:acme"], 0)
    assert reply.cursor.seq == hub.top
    assert hub.since(cursor, hub.top, {"user:1"}).coalesced == 1
    assert hub.since(cursor, hub.top, set()).publications == ()


class InterestMachine(RuleBasedStateMachine):
    """A gateway whose calls arrive late, twice or out of order; the hub forgets it now and then."""

    @initialize()
    def begin(self) -> None:
        self.hub = make()
        self.numbers = iter(range(1, 1_000_000))
        self.followed: set[str] = set()
        self.left: set[str] = set()
        self.under_way: list[Asker | Wish] = []
        self.asked: dict[int, str] = {}
        self.lease = ""

    @rule(channel=st.sampled_from(CHANNELS))
    def follow(self, channel: str) -> None:
        """As the feed does: followed from here on, and the hub's answer is waited for before that matters."""
        if channel not in self.followed:
            self.followed.add(channel)
            self.left.discard(channel)
            asker = Asker("g", next(self.numbers))
            self.asked[asker.number] = channel
            self.hub.follow(asker, [channel], 0.0)
            self.under_way.append(asker)  # it may come a second time

    @rule(channel=st.sampled_from(CHANNELS))
    def leave(self, channel: str) -> None:
        if channel in self.followed:
            self.followed.discard(channel)
            self.left.add(channel)

    @rule()
    def poll(self) -> None:
        leaves, self.left = tuple(sorted(self.left)), set()
        follows = tuple(sorted(self.followed)) if self.lease else None
        self.under_way.append(Wish("g", next(self.numbers), leaves, follows, self.lease))

    @rule(data=st.data(), keeps=st.booleans())
    def arrive(self, data: st.DataObject, keeps: bool) -> None:
        if not self.under_way:
            return
        at = data.draw(st.integers(0, len(self.under_way) - 1))
        call = self.under_way[at] if keeps else self.under_way.pop(at)
        if isinstance(call, Asker):
            self.hub.follow(call, [self.asked[call.number]], 0.0)
        else:
            self.hub.hear(call, 0.0)
            self.lease = self.hub.wants_all("g")

    @rule()
    def forget(self) -> None:
        """A new hub, or a lease that was over."""
        self.hub = make()

    @invariant()
    def nothing_followed_is_held_back(self) -> None:
        if hasattr(self, "hub"):
            wanted = self.hub.wanted("g")
            assert wanted is None or all(channel in wanted for channel in self.followed)


InterestMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestInterestMachine = InterestMachine.TestCase
