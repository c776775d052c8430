"""What the run queue's changes look like on the channels of a floor.

Loaded by the run queue's actor by its name, because ``cluster`` may not import this
folder. Invariant: a run that ends without success also ends its progress bar, with the
state and the reason, so that no bar hangs.
"""

from collections.abc import Mapping
from typing import Any

from realtime import channels
from realtime.broadcaster import Broadcaster
from realtime.messages import MessageType
from realtime.process_broadcaster import get_broadcaster
from realtime.publication import Priority

FAILED_STATES = frozenset({"failed", "cancelled", "timed_out"})


class RunListener:
    """Broadcasts each change of a run."""

    def __init__(self, broadcaster: Broadcaster | None = None) -> None:
        self._broadcaster = broadcaster

    def on_change(self, run: Mapping[str, Any]) -> None:
        """Tell the NOC, the run's watchers and its user; never raises.

        Args:
            run: the run's row, at least ``id``, ``state`` and ``task``.
        """
        broadcaster = self._broadcaster or get_broadcaster()
        run_id, user_id, state = str(run["id"]), run.get("user_id") or None, run.get("state")
        priority = Priority.HIGH if state in FAILED_STATES else Priority.NORMAL
        audience = [channels.NOC_ALL, f"run:{run_id}"]
        if user_id is not None:
            audience.append(f"user:{user_id}")
        for channel in audience:
            # The version makes each change one message, however often the queue reports it.
            key = f"{run_id}:{run['version']}" if "version" in run else None
            broadcaster.publish(channel, MessageType.RUN_UPDATE, run, priority, key)
        if state in FAILED_STATES:
            broadcaster.broadcast_task_progress(
                user_id,
                progress_name(run),
                run.get("progress") or 0.0,
                message=run.get("reason") or state,
                run_id=run_id,
                data={"state": state, "reason": run.get("reason")},
            )


def progress_name(run: Mapping[str, Any]) -> str:
    """Return the name of the bar that the run's driver moves."""
    model_type = run.get("model_type")
    return f"train {model_type}" if model_type else str(run["task"])
