"""The floor's label queue as a named Ray actor: one writer, so leases need no locks between processes.

Ray shell: it decides nothing. Killed at any moment, Ray starts it again; what it had answered is
committed, and every call may be repeated. Invariant: one per floor.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from cluster import names
from cluster.actors import configure_process, get_or_create
from cluster.clock import SystemClock
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from training.labelling.answering import Answer
from training.labelling.label_desk import LabelDesk
from training.labelling.label_queue import LabelQueue, LabelQueueSettings
from training.labelling.labels import Label, LabelRequest, Question, RequestState
from training.labelling.leasing import Holder

CALLS_AT_ONCE = 1000


class LabelQueueActor:
    """Ray shell of ``LabelDesk``."""

    def __init__(self, settings: Settings) -> None:
        configure_process("label-queue")
        self._labels = LabelQueue(open_engine(settings.database_url), SystemClock(), load_section(LabelQueueSettings))
        self._desk = LabelDesk(self._labels)

    async def ready(self) -> bool:
        """Return once the actor can be called; the SQL store may still be away."""
        return True

    async def ask(self, questions: Sequence[Question]) -> int:
        """See ``LabelQueue.ask``."""
        return await asyncio.wrap_future(self._desk.submit(self._labels.ask(questions)))

    async def lease(self, holder: Holder, count: int) -> tuple[LabelRequest, ...]:
        """See ``LabelQueue.lease``."""
        return await asyncio.wrap_future(self._desk.submit(self._labels.lease(holder, count)))

    async def renew(self, holder: Holder) -> int:
        """See ``LabelQueue.renew``."""
        return await asyncio.wrap_future(self._desk.submit(self._labels.renew(holder)))

    async def release(self, session: str) -> int:
        """See ``LabelQueue.release``."""
        return await asyncio.wrap_future(self._desk.submit(self._labels.release(session)))

    async def answer(self, answer: Answer) -> Label:
        """See ``LabelQueue.answer``."""
        return await asyncio.wrap_future(self._desk.submit(self._labels.answer(answer)))

    async def skip(self, request_id: str, token: int, user_id: str, reason: str) -> None:
        """See ``LabelQueue.skip``."""
        await asyncio.wrap_future(self._desk.submit(self._labels.skip(request_id, token, user_id, reason)))

    async def keep_own(self, given: Sequence[Label]) -> int:
        """See ``LabelQueue.keep_own``."""
        return await asyncio.wrap_future(self._desk.submit(self._labels.keep_own(given)))

    async def counts(self) -> dict[RequestState, int]:
        """See ``LabelQueue.counts``."""
        return await asyncio.to_thread(self._labels.counts)


def get_or_create_label_queue(settings: Settings) -> Any:
    """Return the handle of the floor's label queue, starting it when nobody has."""
    return get_or_create(LabelQueueActor, settings, name=names.LABEL_QUEUE, max_concurrency=CALLS_AT_ONCE)
