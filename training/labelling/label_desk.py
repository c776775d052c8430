"""Calls of many people, carried out together: whoever comes while one transaction is on its way shares the next.

Invariants: a call is answered only after its transaction was committed; a call that fails
hinders no other; one transaction at a time.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError

from cluster.errors import ServiceUnavailableError
from training.labelling.call_line import CallLine
from training.labelling.label_queue import LabelQueue, Step

logger = logging.getLogger(__name__)


class LabelDesk:
    """Hands calls to a label queue, those of several processes in one transaction."""

    def __init__(self, labels: LabelQueue) -> None:
        self.labels = labels
        self._line = CallLine(self._carry_out)

    async def together(self, steps: Sequence[Step], timeout_s: float) -> Sequence[Any]:
        """Return for each call of ``LabelQueue`` its result, or the error of ours that it raised.

        Raises:
            ServiceUnavailableError: the transaction failed or did not end in time, or too many wait.
        """
        return await self._line.carry(steps, timeout_s)

    async def _carry_out(self, steps: Sequence[Step]) -> Sequence[Any]:
        try:
            return await asyncio.to_thread(self.labels.together, steps)
        except (OperationalError, InterfaceError) as error:
            logger.warning("label queue: %s", type(error).__name__)
            raise ServiceUnavailableError("sql", "the label queue's store", type(error).__name__) from error
        except Exception as error:
            if len(steps) > 1:
                # One of them cannot be carried out, and nothing was: each for itself, so that the others are.
                return [result for step in steps for result in await self._carry_out([step])]
            logger.exception("a call of the label queue failed, the queue goes on")
            # Its result and not raised: repeated, it would fail again, with all that travel with it.
            return [ServiceUnavailableError("label queue", "its desk", type(error).__name__)]
