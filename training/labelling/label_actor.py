"""The floor's label queue as a named Ray actor: one writer, so leases need no locks between processes.

Ray shell: it decides nothing. Killed at any moment, Ray starts it again; what it had answered is
committed, and every call may be repeated. Invariant: one per floor.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from cluster import names
from cluster.actors import configure_process, get_or_create, prepare_to_serve
from cluster.clock import SystemClock
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from training.labelling.label_client import CALL_TIMEOUT_S, Call
from training.labelling.label_desk import LabelDesk
from training.labelling.label_queue import LabelQueue, LabelQueueSettings
from training.labelling.labels import RequestState

CALLS_AT_ONCE = 1000


class LabelQueueActor:
    """Ray shell of ``LabelDesk``."""

    def __init__(self, settings: Settings) -> None:
        configure_process("label-queue")
        self._labels = LabelQueue(open_engine(settings.database_url), SystemClock(), load_section(LabelQueueSettings))
        self._desk = LabelDesk(self._labels)
        prepare_to_serve()

    async def ready(self) -> bool:
        """Return once the actor can be called; the SQL store may still be away."""
        return True

    async def together(self, calls: Sequence[Call]) -> Sequence[Any]:
        """Carry out calls of ``LabelQueue``, each a method's name with its arguments; see ``LabelDesk.together``."""
        steps = [getattr(self._labels, method)(*args) for method, args in calls]
        return await self._desk.together(steps, CALL_TIMEOUT_S)

    async def counts(self) -> dict[RequestState, int]:
        """See ``LabelQueue.counts``."""
        return await asyncio.to_thread(self._labels.counts)


def get_or_create_label_queue(settings: Settings) -> Any:
    """Return the handle of the floor's label queue, starting it when nobody has."""
    return get_or_create(LabelQueueActor, settings, name=names.LABEL_QUEUE, max_concurrency=CALLS_AT_ONCE)
