"""A floor's side of commands as one process that a test kills: desk and ingest, with a hub in memory.

A program for ``test_commands_killed.py``; says "ready" once the broker keeps answers for it. With a
number as argument it dies by itself after so many PUBACKs, before any of it is written down.
"""

import itertools
import os
import signal
import sys
import time
from typing import Any

from cluster.settings import Settings
from cluster.store import open_engine
from ingest import command_desk
from ingest.command_desk import CommandDesk
from ingest.command_store import CommandSettings
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.telemetry_redis import TelemetryStream
from tests.fakes_alerts import FakeHub

READY_S = 30.0


def dying_after(number: int) -> Any:
    """Return a ``publish_mqtt`` that kills this process after its ``number``-th PUBACK."""
    publish, calls = command_desk.publish_mqtt, itertools.count(1)

    def publish_and_die(*arguments: Any) -> None:
        publish(*arguments)
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return publish_and_die


def main() -> int:
    """Run until killed."""
    if len(sys.argv) > 1:
        command_desk.publish_mqtt = dying_after(int(sys.argv[1]))
    settings = Settings.load()
    engine = open_engine(settings.database_url)
    desk = CommandDesk(engine, FakeHub(), settings.topic_root, CommandSettings())
    ingest = IngestService(
        address=MqttAddress.parse(settings.mqtt_url),
        topic_root=settings.topic_root,
        engine=engine,
        stream=TelemetryStream.open(settings.redis_url),
        settings=IngestSettings(),
        mqtt=MqttSettings(client_id=f"ingest-{settings.topic_root}", keepalive_s=2),
        on_alerts=lambda: None,
        on_tick=lambda _status: None,
        on_answers=desk.wake,
    )
    ingest.start()
    if not ingest.wait_subscribed(READY_S):
        return 1
    desk.start()
    print("ready", flush=True)
    while True:
        time.sleep(60.0)


if __name__ == "__main__":
    sys.exit(main())
