"""Whether Ray Serve is taking this replica down.

The one place that reads a private attribute of Ray (2.60): Serve gives user code no notice
of its own. Invariant: when the attribute is not where it was, the answer is False, a
warning is logged once, and the announced way out (``Gateway.drain``) still works.
"""

import logging
from functools import cache

logger = logging.getLogger(__name__)


def is_shutting_down() -> bool:
    """Tell whether this replica was told to stop."""
    try:
        from ray._private.worker import global_worker

        # A replica's process holds one actor: the replica.
        (actor,) = global_worker.actors.values()
        return bool(actor._replica_impl._shutting_down)
    except (ImportError, AttributeError, ValueError) as error:
        _warn_once(str(error))
        return False


@cache
def _warn_once(reason: str) -> None:
    logger.warning("a redeploy will not be noticed by itself, call drain() before it: %s", reason)
