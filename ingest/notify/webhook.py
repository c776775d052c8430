"""The webhook at work: collects changes, signs and sends them through the breaker, settles each.

One asyncio owner. A try that fails waits and comes again; one that a server refuses for good
becomes a dead letter in the end. While the circuit is open nothing is tried and no try is
counted. Invariant: a message is settled as delivered only after an answer of 2xx.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

import httpx
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Engine

from cluster.breaker import Breaker
from cluster.clock import Clock
from cluster.errors import CircuitOpenError
from cluster.metrics import REGISTRY
from ingest.alerts.model import Alert, AlertEvent
from ingest.errors import ReceiverRefusedError, ReceiverUnavailableError
from ingest.notify.outbox import DEAD, DELIVERED, PENDING, Ending, Message, Outbox, OutboxCounts
from ingest.notify.post_client import open_client, post
from ingest.notify.retry import Again, RetryPolicy
from ingest.notify.settings import WebhookSettings
from ingest.notify.signature import parse_key, sign
from ingest.notify.told import is_muted, message_of

logger = logging.getLogger(__name__)

TARGET = "webhook"
"""Also the service's name at the breaker."""
TURN_S = 5.0
"""How long messages are sent before the lease is renewed and the history looked at again."""
ROUNDS = 8
"""Messages of one look at the outbox, for each that is under way at a time."""
GONE = 410
"""A receiver's word for "never again"."""
MAX_ERROR_CHARS = 300

notifications_sent = Counter(
    "watchfloor_notifications",
    "What was told outside the floor, by target and outcome.",
    ["target", "outcome"],
    registry=REGISTRY,
)
notifications_pending = Gauge(
    "watchfloor_notifications_pending", "Messages that wait to be delivered.", ["target"], registry=REGISTRY
)
notifications_dead = Gauge(
    "watchfloor_notifications_dead", "Messages that were given up and can be replayed.", ["target"], registry=REGISTRY
)
notification_seconds = Histogram(
    "watchfloor_notification_seconds",
    "One try of a message.",
    ["target"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)


class Webhook:
    """One address that is told of changes."""

    def __init__(self, settings: WebhookSettings, engine: Engine, clock: Clock, breaker: Breaker) -> None:
        """Begin without touching store or network.

        Raises:
            ValueError: a key cannot be used.
            OSError: the file of keys cannot be read.
        """
        self._settings = settings
        self._keys = [parse_key(text) for text in settings.secrets()]
        if not self._keys:
            raise ValueError("the webhook's secret_file holds no key")
        self._clock = clock
        self._breaker = breaker
        self._policy = RetryPolicy(settings)
        self._actions = frozenset(settings.actions)
        self._outbox = Outbox(engine, clock, TARGET, self._body, settings.max_pending, TURN_S + 2 * settings.timeout_s)
        self._client: httpx.AsyncClient | None = None
        self._paused_until = 0.0
        self.problem: str | None = None
        """Why the last try failed; None after one that did not."""
        self.counts = OutboxCounts(pending=0, dead=0, oldest_at=None)
        """What waited and what was given up at the last look."""

    async def step(self) -> int:
        """Do one turn: collect, then send what is due.

        Returns:
            Messages settled; 0: nothing was due, or another process sends.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the store is away.
        """
        if not await asyncio.to_thread(self._outbox.own):
            return 0
        await asyncio.to_thread(self._outbox.collect)
        await asyncio.to_thread(self._outbox.tidy)
        counts = self.counts = await asyncio.to_thread(self._outbox.counts)
        notifications_pending.labels(TARGET).set(counts.pending)
        notifications_dead.labels(TARGET).set(counts.dead)
        if not counts.pending or self._clock.time_s() < self._paused_until:
            return 0
        return await self._send_due()

    async def close(self) -> None:
        """Close connections and let another process send."""
        if self._client is not None:
            await self._client.aclose()
        await asyncio.to_thread(self._outbox.release)

    def _body(self, event: AlertEvent, alert: Alert) -> bytes | None:
        if event.action.value not in self._actions:
            return None
        if is_muted(alert, event):
            notifications_sent.labels(TARGET, "muted").inc()
            return None
        return message_of(event, alert)

    async def _send_due(self) -> int:
        """Send what is due, some at a time, for as long as all goes well and the lease is fresh."""
        settled, ends_s = 0, time.monotonic() + TURN_S
        while time.monotonic() < ends_s:
            due = await asyncio.to_thread(self._outbox.due, ROUNDS * self._settings.at_once)
            endings = await self._send_all(due, ends_s)
            await asyncio.to_thread(self._outbox.settle, endings)
            settled += len(endings)
            if not due or any(ending.state != DELIVERED for ending in endings) or len(endings) < len(due):
                break
        return settled

    async def _send_all(self, due: Sequence[Message], ends_s: float) -> list[Ending]:
        if self._client is None:
            self._client = open_client()  # here, because it belongs to the running loop
        client, permits = self._client, asyncio.Semaphore(self._settings.at_once)

        async def send(message: Message) -> Ending | None:
            async with permits:
                # Those that no time is left for keep theirs: the lease must outlive the slowest answer.
                return None if time.monotonic() >= ends_s else await self._send(client, message)

        endings = await asyncio.gather(*map(send, due))
        return [ending for ending in endings if ending is not None]

    async def _send(self, client: httpx.AsyncClient, message: Message) -> Ending | None:
        """Try one message; None: nothing was tried, as the circuit is open."""
        started_s = time.perf_counter()
        try:
            async with self._breaker.call(TARGET, timeout_s=self._settings.timeout_s) as deadline:
                headers = sign(self._keys, f"msg_{message.id}", int(self._clock.time_s()), message.body)
                await post(client, self._settings.url, message.body, headers, deadline.remaining_s())
        except CircuitOpenError as error:
            self._paused_until = self._clock.time_s() + max(1.0, error.retry_in_s)
            self._failed(str(error))
            return None
        except ReceiverRefusedError as error:
            asked_s = None if error.status == GONE else error.retry_after_s
            return self._not_delivered(message, str(error), asked_s, is_final=error.status == GONE)
        except (ReceiverUnavailableError, TimeoutError) as error:
            return self._not_delivered(message, str(error))
        finally:
            notification_seconds.labels(TARGET).observe(time.perf_counter() - started_s)
        notifications_sent.labels(TARGET, "delivered").inc()
        self.problem = None
        return Ending(message=message, state=DELIVERED, at=self._clock.time_s(), attempts=message.attempts + 1)

    def _not_delivered(
        self, message: Message, error: str, asked_s: float | None = None, *, is_final: bool = False
    ) -> Ending:
        now, attempts = self._clock.time_s(), message.attempts + 1
        self._failed(error)
        decision = self._policy.decide(attempts, now - message.created_at, asked_s)
        if isinstance(decision, Again) and not is_final:
            notifications_sent.labels(TARGET, "failed").inc()
            return Ending(
                message=message, state=PENDING, at=now + decision.pause_s, attempts=attempts,
                error=error[:MAX_ERROR_CHARS],
            )  # fmt: skip
        notifications_sent.labels(TARGET, "dead").inc()
        logger.error("message %s of alert %s is a dead letter: %s", message.id, message.alert_id, error)
        return Ending(message=message, state=DEAD, at=now, attempts=attempts, error=error[:MAX_ERROR_CHARS])

    def _failed(self, problem: str) -> None:
        if self.problem is None:
            logger.warning("the webhook does not take messages, they wait: %s", problem)
        self.problem = problem
