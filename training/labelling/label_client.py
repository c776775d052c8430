"""Typed front of the label queue, for the API and the tasks that ask.

Invariant: every call may be repeated; asking or answering twice does it once.
"""

from collections.abc import Sequence
from typing import Any

from cluster import names
from cluster.actor_link import ActorLink
from training.labelling.answering import Answer
from training.labelling.labels import Label, LabelRequest, Question, RequestState
from training.labelling.leasing import Holder

CALL_TIMEOUT_S = 5.0
MOST_KEPT = 1000
"""Labels of one call: people who answer meanwhile wait for it."""
PATIENCE_S = 20.0
"""How long a call is repeated while the actor restarts: some seconds, and more on a busy machine."""


class LabelQueueClient:
    """Asks the floor's label queue; ``a...`` methods are for event loops."""

    def __init__(self, handle: Any = None) -> None:
        self._link = ActorLink(names.LABEL_QUEUE, handle)

    def ask(self, questions: Sequence[Question]) -> int:
        """Put questions into the queue; return how many are new.

        Raises:
            ServiceUnavailableError: the queue did not answer.
        """
        return int(self._link.call("ask", list(questions), timeout_s=CALL_TIMEOUT_S, patience_s=PATIENCE_S))

    def keep_own(self, given: Sequence[Label]) -> int:
        """Keep labels that a model gave; return how many are new.

        Raises:
            ServiceUnavailableError: the queue did not answer; the call may be repeated.
        """
        return sum(
            int(
                self._link.call(
                    "keep_own", list(given[start : start + MOST_KEPT]), timeout_s=CALL_TIMEOUT_S, patience_s=PATIENCE_S
                )
            )
            for start in range(0, len(given), MOST_KEPT)
        )

    async def alease(self, holder: Holder, count: int) -> tuple[LabelRequest, ...]:
        """Lease questions; what the holder has comes first.

        Raises:
            ServiceUnavailableError: the queue did not answer.
        """
        leased: tuple[LabelRequest, ...] = await self._acall("lease", holder, count)
        return leased

    async def arenew(self, holder: Holder) -> int:
        """Keep what the holder has; return how many."""
        return int(await self._acall("renew", holder))

    async def arelease(self, session: str) -> int:
        """Give back what was leased by a session; return how many."""
        return int(await self._acall("release", session))

    async def aanswer(self, answer: Answer) -> Label:
        """Keep a label.

        Raises:
            StaleLeaseError: somebody else holds or answered the question.
            ServiceUnavailableError: the queue did not answer; the call may be repeated.
        """
        label: Label = await self._acall("answer", answer)
        return label

    async def askip(self, request_id: str, token: int, user_id: str, reason: str) -> None:
        """Give a question back for good.

        Raises:
            StaleLeaseError: they do not hold it.
            ServiceUnavailableError: the queue did not answer; the call may be repeated.
        """
        await self._acall("skip", request_id, token, user_id, reason)

    async def acount_states(self) -> dict[RequestState, int]:
        """Return how many questions are in each state."""
        counts: dict[RequestState, int] = await self._acall("counts")
        return counts

    async def _acall(self, method: str, *args: Any) -> Any:
        return await self._link.acall(method, *args, timeout_s=CALL_TIMEOUT_S, patience_s=PATIENCE_S)
