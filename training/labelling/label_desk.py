"""Calls of many people, carried out together: whoever comes while one transaction is on its way shares the next.

One thread and a bounded line. Invariants: a call is answered only after its transaction was
committed; a call that fails, or is taken back, hinders no other; a full line refuses at once
instead of growing.
"""

import logging
import queue
import threading
from concurrent.futures import Future
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cluster.errors import ClusterError, ServiceUnavailableError
from training.labelling.label_queue import LabelQueue, Step

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
MOST_TOGETHER = 128
"""Calls of one transaction: beyond it the first ones would wait for the last without gaining from the shared fsync."""

_Waiting = tuple[Step, "Future[Any]"]


class LabelDesk:
    """Hands calls to a label queue, several in one transaction."""

    def __init__(self, labels: LabelQueue) -> None:
        self.labels = labels
        self._line: queue.Queue[_Waiting | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="label-desk", daemon=True)
        self._thread.start()

    def submit(self, step: Step) -> "Future[Any]":
        """Put a call of ``LabelQueue`` into the line.

        Raises:
            ServiceUnavailableError: the line is full.
        """
        answer: Future[Any] = Future()
        try:
            self._line.put_nowait((step, answer))
        except queue.Full:
            raise ServiceUnavailableError("label queue", "its line", f"{MOST_WAITING} calls wait already") from None
        return answer

    def close(self, timeout_s: float = 10.0) -> None:
        """Carry out what waits, and end."""
        self._line.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (first := self._line.get()) is not None:
            together = [first]
            is_last = False
            while len(together) < MOST_TOGETHER:
                try:
                    waiting = self._line.get_nowait()
                except queue.Empty:
                    break
                if waiting is None:
                    is_last = True
                    break
                together.append(waiting)
            self._carry_out(together)
            if is_last:
                return

    def _carry_out(self, waiting: list[_Waiting]) -> None:
        # From here on nobody can take a call back; those that did have nothing done.
        together = [(step, answer) for step, answer in waiting if answer.set_running_or_notify_cancel()]
        answers = [answer for _, answer in together]
        try:
            results = self.labels.together([step for step, _ in together])
        except SQLAlchemyError as error:
            logger.warning("label queue: %s", type(error).__name__)
            failure = ServiceUnavailableError("sql", "the label queue's store", type(error).__name__)
            results = [failure] * len(answers)
        except Exception as error:  # a thread that ends silently would leave everybody waiting
            logger.exception("label queue failed, it goes on")
            results = [ServiceUnavailableError("label queue", "its desk", type(error).__name__)] * len(answers)
        for answer, result in zip(answers, results, strict=True):
            if isinstance(result, ClusterError):
                answer.set_exception(result)
            else:
                answer.set_result(result)
