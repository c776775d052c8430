"""The one broadcaster of this process, and the calls that go by it.

Made at the first call and flushed at the end of the process; a forked child begins afresh.
Knows nothing of how a broadcast is sent (``broadcaster.py``). Invariant: however many
threads ask first, a process has one.
"""

import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any

from cluster.settings import Settings, load_section
from realtime.book_metrics import BOOKS
from realtime.broadcast_calls import BroadcastCalls, Message
from realtime.broadcaster import Broadcaster
from realtime.publication import Priority
from realtime.settings import BroadcastSettings
from realtime.transport import open_transport


class WebSocketBroadcastMixin(BroadcastCalls):
    """Gives any class the broadcast calls, over the broadcaster of its process."""

    def _broadcast(self, message: Message) -> bool:
        return get_broadcaster()._broadcast(message)

    async def _abroadcast(self, message: Message) -> bool:
        return await get_broadcaster()._abroadcast(message)


def broadcast_to_websocket_group(
    group_name: str, message_type: str, data: Mapping[str, Any], priority: str = Priority.NORMAL
) -> bool:
    """Tell everyone in a group, from code that is no class; False if dropped at once."""
    return get_broadcaster().broadcast_to_group(group_name, message_type, data, priority)


_of_process: Broadcaster | None = None
_of_process_lock = threading.Lock()


def get_broadcaster() -> Broadcaster:
    """Return the one broadcaster of this process; made at the first call, flushed at exit."""
    global _of_process
    if _of_process is None:
        with _of_process_lock:
            if _of_process is None:
                broadcaster = Broadcaster(load_section(BroadcastSettings), lambda: open_transport(Settings.load()))
                atexit.register(broadcaster.close)
                BOOKS.keep("publisher", broadcaster.book)
                os.register_at_fork(after_in_child=_forget_in_child)
                _of_process = broadcaster
    return _of_process


def _forget_in_child() -> None:
    # A forked child has the parent's buffer but not its thread: it begins afresh.
    global _of_process, _of_process_lock
    _of_process, _of_process_lock = None, threading.Lock()
    BOOKS.begin_again()
