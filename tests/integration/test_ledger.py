"""Every delivery that a replica owes is somewhere, after every step."""

import json
from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from realtime.publication import Priority, Publication, StreamPosition
from serve_apps import frames
from serve_apps.credit import Budget, CreditWindow
from serve_apps.errors import OutboxError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.ledger import LABELS, LOST, UNSUBSCRIBED, Ledger, counts, tally, unit
from serve_apps.outbox import Outbox
from serve_apps.ring import ChannelRing

# So small that credit runs out, rings overflow and frames are cut within a few steps.
LIMITS = GatewaySettings(
    ring_items=6, frame_lines=3, frame_bytes=600, credit_bytes=500, credit_ping_bytes=200, control_bytes=900
)
CHANNELS = ("noc:all", "user:ann", "run:r")
KINDS = {channel: channel.partition(":")[0] for channel in CHANNELS}


def test_a_tally_counts_each_class_by_itself() -> None:
    """Whatever is added to its neighbours."""
    number = 5 * unit("noc", Priority.CRITICAL) + (2**40) * unit("noc", Priority.HIGH) + unit("device", Priority.NORMAL)

    assert counts(number) == {("noc", "critical"): 5, ("noc", "high"): 2**40, ("device", "normal"): 1}
    assert len(LABELS) == len({unit(kind, Priority(priority)) for kind, priority in LABELS})


class Client:
    """A connection's outbox, and what a client at its other end has counted."""

    def __init__(self, ledger: Ledger, *, unidirectional: bool) -> None:
        self.credit = Budget(LIMITS) if unidirectional else CreditWindow(LIMITS)
        self.outbox = Outbox(LIMITS, self.credit, ledger, unidirectional=unidirectional)
        self.unidirectional = unidirectional
        self.followed: set[str] = set()
        self.read = 0
        self.acked = 0
        self.pings: deque[int] = deque()

    def take(self, text: str) -> None:
        for line in map(json.loads, text.split("\n")):
            if line == {}:
                if not self.unidirectional:
                    self.pings.append(self.read)
            elif "recovered" in line:
                self.read += line["recovered"]
            else:
                self.read += 1


class Accounts(RuleBasedStateMachine):
    """Rings, outboxes and credit under kills, slow clients, unsubscribes, floods and lost places."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.rings: dict[str, ChannelRing[Client]] = {
            channel: ChannelRing(channel, KINDS[channel], LIMITS, self.ledger) for channel in CHANNELS
        }
        self.offsets = dict.fromkeys(CHANNELS, 0)
        for channel, ring in self.rings.items():
            ring.start(StreamPosition("e", self.offsets[channel]))
        # Two to begin with: most steps need somebody who follows something.
        self.clients = [Client(self.ledger, unidirectional=False), Client(self.ledger, unidirectional=True)]
        for client in self.clients:
            for channel in CHANNELS[:2]:
                self._follow(client, channel, 0)
        self.acked_of_ended = 0

    @rule(
        channel=st.sampled_from(CHANNELS),
        priority=st.sampled_from(Priority),
        skip=st.integers(1, 3),
        count=st.integers(1, 4),
        key=st.sampled_from([None, "a", "a", "b"]),
    )
    def publish(self, channel: str, priority: Priority, skip: int, count: int, key: str | None) -> None:
        ring = self.rings[channel]
        for _ in range(count):
            self.offsets[channel] += skip
            ring.append(Publication(channel, self.offsets[channel], b'"x"', priority, 1, "e", b"", key), 0.0)
        for client in ring.followers:
            client.outbox.mark(channel, list(Priority).index(priority))

    @precondition(lambda self: len(self.clients) < 4)
    @rule(unidirectional=st.booleans())
    def connect(self, unidirectional: bool) -> None:
        self.clients.append(Client(self.ledger, unidirectional=unidirectional))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), channel=st.sampled_from(CHANNELS), back=st.integers(0, 5), is_recovered=st.booleans())
    def follow(self, data: Any, channel: str, back: int, is_recovered: bool) -> None:
        """From where the ring ends, or from before that, or with what was missed in the reply."""
        client, ring = data.draw(st.sampled_from(self.clients)), self.rings[channel]
        if channel in client.followed or ring.top is None:
            return
        after = max(ring.floor, ring.top - back)
        if is_recovered:
            missed = ring.after(after)
            line = json.dumps({"id": 1, "recovered": len(missed)}).encode()
            try:
                client.outbox.add(line, tally(KINDS[channel], missed))
            except OutboxError:
                self._end(client, "slow")
                return
            after = ring.top
        self._follow(client, channel, after)

    def _follow(self, client: Client, channel: str, after: int) -> None:
        self.rings[channel].followers.add(client)
        client.followed.add(channel)
        client.outbox.follow(self.rings[channel], after)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), frames_wanted=st.integers(1, 5))
    def write(self, data: Any, frames_wanted: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        for _ in range(frames_wanted):
            try:
                frame = client.outbox.next_frame(0.0)
            except OutboxError:
                self._end(client, "slow")
                return
            if frame is not None:
                client.take(frame.text)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def ping(self, data: Any) -> None:
        client = data.draw(st.sampled_from(self.clients))
        try:
            client.outbox.add(frames.PING)
        except OutboxError:
            self._end(client, "slow")

    @precondition(lambda self: any(client.pings for client in self.clients))
    @rule(data=st.data())
    def pong(self, data: Any) -> None:
        client = data.draw(st.sampled_from([client for client in self.clients if client.pings]))
        client.acked = client.pings.popleft()
        assert client.credit.on_pong(0.0) is not None
        client.outbox.on_pong()

    @precondition(lambda self: any(client.followed for client in self.clients))
    @rule(data=st.data())
    def unsubscribe(self, data: Any) -> None:
        client = data.draw(st.sampled_from([client for client in self.clients if client.followed]))
        channel = data.draw(st.sampled_from(sorted(client.followed)))
        client.followed.discard(channel)
        self.rings[channel].followers.discard(client)
        client.outbox.leave(channel, UNSUBSCRIBED)

    @rule(channel=st.sampled_from(CHANNELS))
    def lose_the_place(self, channel: str) -> None:
        ring = self.rings[channel]
        followers = list(ring.followers)
        ring.followers.clear()
        self.offsets[channel] += 5
        ring.reset(StreamPosition("e", self.offsets[channel]))
        for client in followers:
            client.followed.discard(channel)
            client.outbox.leave(channel, LOST)

    @rule(channel=st.sampled_from(CHANNELS))
    def grow_old(self, channel: str) -> None:
        self.rings[channel].shrink(self.rings[channel].num_bytes // 2)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), reason=st.sampled_from(["client", "shutdown", "no_pong"]))
    def kill(self, data: Any, reason: str) -> None:
        self._end(data.draw(st.sampled_from(self.clients)), reason)

    def _end(self, client: Client, reason: str) -> None:
        for channel in client.followed:
            self.rings[channel].followers.discard(client)
        client.outbox.end(reason)
        self.clients.remove(client)
        self.acked_of_ended += client.acked

    @invariant()
    def the_book_balances(self) -> None:
        book = self.ledger.book(client.outbox for client in self.clients)

        assert book.imbalance() == {}
        assert all(count > 0 for side in (book.taken, book.settled, book.open) for count in side.values())

    @invariant()
    def it_says_what_the_clients_counted(self) -> None:
        book = self.ledger.book(client.outbox for client in self.clients)

        assert book.num_settled("delivered") == self.acked_of_ended + sum(client.acked for client in self.clients)
        assert book.num_open("in flight") == sum(client.read - client.acked for client in self.clients)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
