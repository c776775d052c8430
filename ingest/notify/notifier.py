"""One process' notifier: a thread that keeps webhook and Alertmanager going.

Shell: it decides nothing. Several of them do what one would: of the webhook only one sends at
a time, and an Alertmanager may be told twice. Invariant: neither target waits for the other.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import Engine

from cluster.breaker import Breaker
from cluster.clock import Clock, SystemClock
from ingest.notify.alertmanager import Alertmanager
from ingest.notify.settings import AlertmanagerSettings, WebhookSettings
from ingest.notify.webhook import Webhook
from realtime.backoff import Backoff

logger = logging.getLogger(__name__)

T = TypeVar("T")

PACE_S = 1.0
"""How often the store is looked at while nothing is under way, in seconds."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Notifier:
    """Tells the outside; without a target it does nothing at all."""

    def __init__(
        self,
        engine: Engine,
        breaker: Breaker,
        webhook: WebhookSettings,
        alertmanager: AlertmanagerSettings,
        clock: Clock | None = None,
        pace_s: float = PACE_S,
    ) -> None:
        """Begin without touching store or network; a target whose keys cannot be read is left out, and says so."""
        clock = clock or SystemClock()
        self._pace_s = pace_s
        self._problems: dict[str, str] = {}
        self._webhook = self._made("webhook", webhook.url, lambda: Webhook(webhook, engine, clock, breaker))
        self._alertmanager = self._made(
            "alertmanager", alertmanager.url, lambda: Alertmanager(alertmanager, engine, clock, breaker)
        )
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Start the thread, if there is anybody to tell."""
        if self._thread is None and (self._webhook or self._alertmanager):
            self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = 15.0) -> None:
        """End after the turn in progress; what is not delivered is sent by whoever comes next."""
        self._closed.set()
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def status(self) -> dict[str, Any]:
        """Return, per target, what keeps it from being told; for any thread. Empty: nobody is told."""
        found: dict[str, Any] = {name: {"problem": problem} for name, problem in self._problems.items()}
        if self._webhook is not None:
            counts = self._webhook.counts
            found["webhook"] = {"problem": self._webhook.problem, "pending": counts.pending, "dead": counts.dead}
        if self._alertmanager is not None:
            found["alertmanager"] = {"problem": self._alertmanager.problem, "firing": self._alertmanager.firing}
        return found

    def _made(self, name: str, url: str, make: Callable[[], T]) -> T | None:
        if not url:
            return None
        try:
            return make()
        except (OSError, ValueError) as error:
            # The floor goes on without it: alerts reach the page, and the status says what is missing.
            logger.error("nobody is told by the %s: %s", name, error)  # noqa: TRY400
            self._problems[name] = str(error)
            return None

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for target in (self._webhook, self._alertmanager):
                if target is not None:
                    group.create_task(self._keep_going(target.step, target.close), name=type(target).__name__)

    async def _keep_going(self, step: Callable[[], Awaitable[int]], close: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        is_failing = False
        while not self._closed.is_set():
            pause_s = self._pace_s
            try:
                if await step():
                    pause_s = 0.0
                backoff, is_failing = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S), False
            except Exception as error:
                # The thread must outlive any outage of the store: what is to be told waits there.
                if not is_failing:
                    logger.warning("nobody outside is told for now: %s", error, exc_info=True)
                is_failing, pause_s = True, backoff.next_pause_s()
            await self._rest(pause_s, self._ended)
        with contextlib.suppress(Exception):  # a store that is away lets the lease run out instead
            await close()

    @staticmethod
    async def _rest(seconds: float, ended: asyncio.Event | None) -> None:
        """Wait, but notice the end."""
        assert ended is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.wait()
