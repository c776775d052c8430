"""One ingest actor among several: what it subscribes to, what it leaves to others, whose session it empties.

Between the plan (``shares.py``), the memory of sessions (``session_store.py``) and the broker.
Invariants: a session is written down before it exists; the first actor stores a tenant's
messages until the actor that has the tenant to itself is subscribed, and from a marker on
that the broker took after that.
"""

import logging
from collections.abc import Callable

from sqlalchemy import Engine

from ingest.broker_calls_mqtt import has_shared_subscriptions, marker_topic, publish_marker
from ingest.delivery import Delivery
from ingest.drain import Drain
from ingest.errors import StoreUnavailableError
from ingest.inbox import Filters
from ingest.mqtt_address import MqttAddress
from ingest.session_store import Session, SessionStore
from ingest.shares import SHARED, Share, client_id, index_of, share_of
from ingest.sql_errors import translated
from ingest.topics import TopicTree

logger = logging.getLogger(__name__)

SQL = "sql"


class Sharing:
    """This actor's part of the work; ``filters`` runs on the network thread, ``step`` on the tick's."""

    def __init__(
        self,
        *,
        address: MqttAddress,
        tree: TopicTree,
        engine: Engine,
        name: str,
        index: int,
        actors: int,
        tenants: tuple[str, ...],
        new_drain: Callable[[Session], Drain],
    ) -> None:
        """Prepare.

        Args:
            name: what the client ids of all actors begin with.
            new_drain: makes what empties a session.
        """
        self.client_id = client_id(name, index)
        self.drain: Drain | None = None
        self._address = address
        self._tree = tree
        self._sessions = SessionStore(engine)
        self._name = name
        self._index = index
        self._actors = actors
        self._tenants = tenants
        self._new_drain = new_drain
        self._share: Share | None = None
        self._noted: tuple[str, ...] | None = None
        self._elsewhere: frozenset[str] = frozenset()
        self._coming: frozenset[str] = frozenset()
        self._marker = ""

    def filters(self) -> Filters:
        """Return what to subscribe to and what to take off, for a connection about to be made.

        Raises:
            OSError: the broker or the SQL store is away, or an old session has to be emptied first.
        """
        share = self._share or self._plan()
        try:
            with translated(SQL):
                known = self._sessions.get(self.client_id)
                old = tuple(one for one in known.filters if one not in share.filters) if known else ()
                if old and not self._may_replace(old, share):
                    # Taking a filter off at nats-server throws away what is queued for it.
                    raise ConnectionError(f"{client_id(self._name, 0)} empties the session {self.client_id} first")
                self._sessions.remember(self.client_id, (*share.filters, *old), is_settled=False)
        except StoreUnavailableError as error:
            raise ConnectionError(str(error)) from error
        self._share, self._noted = share, None
        return Filters(share.filters, old)

    def is_ours(self, delivery: Delivery) -> bool:
        """Say whether this actor stores a delivery of its own connection; the network thread only."""
        if self._marker and delivery.topic == self._marker:
            self._marker = ""
            self._elsewhere, self._coming = self._elsewhere | self._coming, frozenset()
            return False
        if not self._elsewhere or delivery.is_dup:
            # A redelivery may be of the time before the other one listened; its key tells whether it is known.
            return True
        topic = self._tree.parse(delivery.topic)
        return topic is None or topic.tenant not in self._elsewhere

    def step(self, *, is_settled: bool) -> None:
        """Write down where this actor stands; the first one also looks after the others.

        Args:
            is_settled: the broker has confirmed this actor's filters.

        Raises:
            OSError, StoreUnavailableError: something is away; the next call goes on.
        """
        if self._share is None or not is_settled:
            return
        with translated(SQL):
            if self._noted != self._share.filters:
                self._sessions.remember(self.client_id, self._share.filters, is_settled=True)
                self._noted = self._share.filters
            sessions = self._sessions.all() if self._index == 0 else ()
        if self._index == 0:
            self._hand_over(sessions)
            self._empty_old(sessions)

    def stop(self) -> None:
        """Disconnect; what is not emptied is emptied another time."""
        if self.drain is not None:
            self.drain.inbox.stop()

    def _plan(self) -> Share:
        # Asked only where the answer matters: it takes a connection, or two seconds of a broker without.
        has_shared = self._actors > 1 and not self._tenants and has_shared_subscriptions(self._address, self._tree)
        share = share_of(self._tree, self._index, self._actors, self._tenants, has_shared=has_shared)
        if self._actors > 1 and not has_shared and not self._tenants:
            logger.warning(
                "the broker has no shared subscriptions: ingest-0 does all the work; "
                "name the tenants of the others in WATCHFLOOR_INGEST_TENANTS, or set WATCHFLOOR_INGEST_ACTORS to 1"
            )
        return share

    def _may_replace(self, old: tuple[str, ...], share: Share) -> bool:
        """Say whether filters may be exchanged within the session: a broker that shares keeps the queue."""
        return any(one.startswith(SHARED) for one in (*old, *share.filters))

    def _hand_over(self, sessions: tuple[Session, ...]) -> None:
        """Leave a tenant to its own actor once that one is subscribed; take it back when its session is gone."""
        assert self._share is not None
        settled = {index_of(self._name, one.client_id) for one in sessions if one.is_settled and not self._is_old(one)}
        ready = {tenant for tenant, owner in self._share.elsewhere.items() if owner in settled}
        self._elsewhere &= ready
        coming = frozenset(ready - self._elsewhere)
        if coming and coming != self._coming:
            self._coming = coming
            self._marker = marker_topic(self._tree, "-")
            publish_marker(self._address, self._marker)

    def _empty_old(self, sessions: tuple[Session, ...]) -> None:
        if self.drain is None:
            session = next((one for one in sessions if self._is_old(one)), None)
            if session is None:
                return
            self.drain = self._new_drain(session)
            self.drain.start()
        elif self.drain.step():
            with translated(SQL):
                self._sessions.forget(self.drain.session.client_id)
            self.drain = None

    def _is_old(self, session: Session) -> bool:
        index = index_of(self._name, session.client_id)
        if not index:  # the first actor's own, or a session of another floor on this database
            return False
        if index >= self._actors:
            return True
        if any(one.startswith(SHARED) for one in session.filters):
            return False
        # Its actor waits for this (see ``filters``). Where the broker shares it exchanges them by itself.
        assert self._share is not None
        if any(one.startswith(SHARED) for one in self._share.filters):
            return False
        wanted = share_of(self._tree, index, self._actors, self._tenants, has_shared=False).filters
        return bool(set(session.filters) - set(wanted))
