"""One process's part in commands: takes orders, sends them, ends them, tells of them.

Wiring and two threads: one waits for the broker, the other for the hub and the clock, so that
neither holds the other up. The gateway has a desk, because orders come there, and ingest has
one, because answers come there and because it is still there when a gateway dies.
"""

from sqlalchemy import Engine

from cluster.clock import SystemClock
from ingest.command_relay import CommandRelay
from ingest.command_sender import CommandSender
from ingest.command_store import CommandSettings, CommandStore
from ingest.commands import publish_mqtt
from ingest.topics import TopicTree
from ingest.woken_loop import WokenLoop
from realtime.hub_client import HubClient


class CommandDesk:
    """Commands as one process of a floor handles them."""

    def __init__(self, engine: Engine, hub: HubClient, topic_root: str, settings: CommandSettings) -> None:
        clock = SystemClock()
        self.store = CommandStore(engine, clock, settings)
        self._sender = CommandSender(self.store, TopicTree(topic_root), publish_mqtt, clock)
        self._sending = WokenLoop("command-sender", self._send_and_tell)
        self._telling = WokenLoop("command-relay", CommandRelay(self.store, hub, clock).turn)

    def start(self) -> None:
        """Start the threads: they take up whatever lies in the store."""
        self._sending.start()
        self._telling.start()

    def wake(self) -> None:
        """An order or an answer was just stored. Never blocks."""
        self._sending.wake()
        self._telling.wake()

    def close(self) -> None:
        """Finish what is under way and end the threads."""
        self._sending.close()
        self._telling.close()

    def _send_and_tell(self) -> bool:
        is_sent = self._sender.send_due()
        if is_sent:
            self._telling.wake()
        return is_sent
