"""Typed front of the label queue, for the API and the tasks that ask.

Calls that are made while others are on their way go together: a call of an actor costs half a
millisecond at each end, however much it carries. Invariant: every call may be repeated; asking or
answering twice does it once.
"""

from collections.abc import Sequence
from typing import Any

from cluster import names
from cluster.actor_link import ActorLink
from cluster.errors import ClusterError
from training.labelling.answering import Answer
from training.labelling.call_line import CallLine
from training.labelling.labels import Label, LabelRequest, Question, RequestState
from training.labelling.leasing import Holder

CALL_TIMEOUT_S = 5.0
MOST_KEPT = 1000
"""Labels of one call: people who answer meanwhile wait for it."""
PATIENCE_S = 20.0
"""How long a call is repeated while the actor restarts: some seconds, and more on a busy machine."""
REST_S = 0.005
"""Between the begins of two trips: at a thousand calls a second the actor works little more than half as much as
without, for two milliseconds more at p50, and has its core when other work wants it too."""

Call = tuple[str, tuple[Any, ...]]
"""A method of ``LabelQueue`` that gives a step, by name, and its arguments."""


class LabelQueueClient:
    """Asks the floor's label queue; ``a...`` methods are for event loops."""

    def __init__(self, handle: Any = None) -> None:
        self._link = ActorLink(names.LABEL_QUEUE, handle)
        self._line = CallLine(self._travel, REST_S)

    def ask(self, questions: Sequence[Question]) -> int:
        """Put questions into the queue; return how many are new.

        Raises:
            ServiceUnavailableError: the queue did not answer.
        """
        return int(self._call("ask", list(questions)))

    def keep_own(self, given: Sequence[Label]) -> int:
        """Keep labels that a model gave; return how many are new.

        Raises:
            ServiceUnavailableError: the queue did not answer; the call may be repeated.
        """
        parts = (list(given[start : start + MOST_KEPT]) for start in range(0, len(given), MOST_KEPT))
        return sum(int(self._call("keep_own", part)) for part in parts)

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
        counts: dict[RequestState, int] = await self._link.acall(
            "counts", timeout_s=CALL_TIMEOUT_S, patience_s=PATIENCE_S
        )
        return counts

    def _call(self, method: str, *args: Any) -> Any:
        calls: list[Call] = [(method, args)]
        return _only(self._link.call("together", calls, timeout_s=CALL_TIMEOUT_S, patience_s=PATIENCE_S))

    async def _acall(self, method: str, *args: Any) -> Any:
        return _only(await self._line.carry([(method, args)], CALL_TIMEOUT_S + PATIENCE_S))

    async def _travel(self, calls: Sequence[Call]) -> Sequence[Any]:
        results: Sequence[Any] = await self._link.acall(
            "together", calls, timeout_s=CALL_TIMEOUT_S, patience_s=PATIENCE_S
        )
        return results


def _only(results: Sequence[Any]) -> Any:
    (result,) = results
    if isinstance(result, ClusterError):
        raise result
    return result
