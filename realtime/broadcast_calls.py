"""The five broadcast calls and their async twins, whoever carries the messages out.

Turns an audience into channels and a call into messages; sends nothing itself.
Invariant: no call raises, whatever it is given; it answers whether the message was taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from realtime import channels
from realtime.messages import MessageType
from realtime.publication import Priority

MIN_PERCENT, MAX_PERCENT = 0.0, 100.0
MAX_BAR_NAME = 200


@dataclass(frozen=True, slots=True)
class Message:
    """One call: a message for one or several channels.

    The channels are named by a function, because a bad user or group id must count as a
    failed broadcast instead of raising into the caller's task.
    """

    name_channels: Callable[[], Sequence[str]]
    message_type: str
    data: Mapping[str, Any]
    priority: str = Priority.NORMAL
    key: str | None = None
    coalesce_key: str | None = None
    run_id: str | None = field(default=None, compare=False)


class BroadcastCalls:
    """The calls; a subclass says how a message goes out."""

    def _broadcast(self, message: Message) -> bool:
        raise NotImplementedError

    async def _abroadcast(self, message: Message) -> bool:
        raise NotImplementedError

    def broadcast_to_group(
        self, group_name: str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
    ) -> bool:
        """Tell everyone in a group; False if the message was dropped at once."""
        return self._broadcast(_to_group(group_name, message_type, data, priority))

    def broadcast_to_user(
        self, user_id: int | str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
    ) -> bool:
        """Tell a user, on all of their connections; False if the message was dropped at once."""
        return self._broadcast(_to_user(user_id, message_type, data, priority))

    def broadcast_to_tenant(
        self, tenant_id: int | str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
    ) -> bool:
        """Tell all users of a tenant; False if the message was dropped at once."""
        return self._broadcast(_to_tenant(tenant_id, message_type, data, priority))

    def broadcast_to_noc_dashboard(
        self,
        message_type: str,
        data: Mapping[str, Any],
        client_id: int | str | None = None,
        priority: str = Priority.NORMAL,
    ) -> bool:
        """Tell the NOC, and the dashboards of one client if named; False if dropped at once."""
        return self._broadcast(_to_noc(message_type, data, client_id, priority))

    def broadcast_task_progress(
        self,
        user_id: int | str | None,
        task_name: str,
        progress: float,
        message: str | None = None,
        run_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> bool:
        """Move a task's bar for its user, and inside a run for all who watch the run.

        Values that follow faster than they can be sent replace each other; the last one
        is always sent.

        Args:
            user_id: whose bar; None: only those who watch the run.
            task_name: names the bar; bars of one run and name are one bar.
            progress: percent done; outside 0..100 it is clamped.
            message: text beside the bar.
            run_id: the run that the task belongs to.
            data: further figures, such as an epoch and a loss.
        """
        return self._broadcast(_progress(user_id, task_name, progress, message, run_id, data))

    async def abroadcast_to_group(
        self, group_name: str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
    ) -> bool:
        """``broadcast_to_group`` for event loops."""
        return await self._abroadcast(_to_group(group_name, message_type, data, priority))

    async def abroadcast_to_user(
        self, user_id: int | str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
    ) -> bool:
        """``broadcast_to_user`` for event loops."""
        return await self._abroadcast(_to_user(user_id, message_type, data, priority))

    async def abroadcast_to_tenant(
        self, tenant_id: int | str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
    ) -> bool:
        """``broadcast_to_tenant`` for event loops."""
        return await self._abroadcast(_to_tenant(tenant_id, message_type, data, priority))

    async def abroadcast_to_noc_dashboard(
        self,
        message_type: str,
        data: Mapping[str, Any],
        client_id: int | str | None = None,
        priority: str = Priority.NORMAL,
    ) -> bool:
        """``broadcast_to_noc_dashboard`` for event loops."""
        return await self._abroadcast(_to_noc(message_type, data, client_id, priority))

    async def abroadcast_task_progress(
        self,
        user_id: int | str | None,
        task_name: str,
        progress: float,
        message: str | None = None,
        run_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> bool:
        """``broadcast_task_progress`` for event loops."""
        return await self._abroadcast(_progress(user_id, task_name, progress, message, run_id, data))


def _to_group(group_name: str, message_type: str, data: Mapping[str, Any], priority: str) -> Message:
    return Message(lambda: [channels.group(group_name)], message_type, data, priority)


def _to_user(user_id: int | str, message_type: str, data: Mapping[str, Any], priority: str) -> Message:
    return Message(lambda: [channels.user(user_id)], message_type, data, priority)


def _to_tenant(tenant_id: int | str, message_type: str, data: Mapping[str, Any], priority: str) -> Message:
    return Message(lambda: [channels.tenant(tenant_id)], message_type, data, priority)


def _to_noc(message_type: str, data: Mapping[str, Any], client_id: int | str | None, priority: str) -> Message:
    def audience() -> list[str]:
        of_client = [] if client_id is None else [channels.noc_client(client_id)]
        return [channels.NOC_ALL, *of_client]

    return Message(audience, message_type, data, priority)


def _progress(
    user_id: int | str | None,
    task_name: str,
    progress: float,
    message: str | None,
    run_id: str | None,
    data: Mapping[str, Any] | None,
) -> Message:
    def audience() -> list[str]:
        of_user = [] if user_id is None else [channels.user(user_id)]
        return [*of_user, *([] if run_id is None else [channels.run(run_id)])]

    return Message(
        audience,
        MessageType.TASK_PROGRESS,
        {
            "task_name": task_name,
            "progress": _clamped(progress),
            "message": message,
            "run_id": run_id,
            **(data or {}),
        },
        Priority.PROGRESS,
        coalesce_key=f"{run_id or ''}/{task_name}"[:MAX_BAR_NAME],
        run_id=run_id,
    )


def _clamped(progress: float) -> float | None:
    # NaN, or not a number at all: the bar stays where it is (null) rather than jump to an end.
    try:
        value = float(progress)
    except (TypeError, ValueError):
        return None
    return min(MAX_PERCENT, max(MIN_PERCENT, value)) if value == value else None
