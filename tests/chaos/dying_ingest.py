"""An ingest that dies by SIGKILL after each commit of an alert and before anybody is told.

A program for ``test_ingest_dies_before_publish.py``: imports once, then forks one ingest per
line on stdin and answers with the signal that ended it. The fork happens without threads.
"""

import os
import signal
import sys
import time

from cluster.settings import Settings
from cluster.store import open_engine
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.telemetry_redis import TelemetryStream

ROUND_TIMEOUT_S = 20.0


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def ingest_until_killed(settings: Settings) -> None:
    """Run a whole ingest whose relay is never woken, because the process dies instead."""
    service = IngestService(
        address=MqttAddress.parse(settings.mqtt_url),
        topic_root=settings.topic_root,
        engine=open_engine(settings.database_url),
        stream=TelemetryStream.open(settings.redis_url),
        settings=IngestSettings(),
        mqtt=MqttSettings(client_id=f"ingest-{settings.topic_root}", keepalive_s=2),
        on_alerts=die,
        on_tick=lambda _status: None,
    )
    service.start()
    time.sleep(ROUND_TIMEOUT_S)
    os._exit(1)


def main() -> None:
    """Fork one dying ingest per line."""
    settings = Settings.load()
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            ingest_until_killed(settings)
        _, status = os.waitpid(pid, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}", flush=True)


if __name__ == "__main__":
    main()
