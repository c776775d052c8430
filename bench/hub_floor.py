"""A hub for benches: a real Ray and a real Valkey, and nothing else of a floor."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster import names
from cluster.embedded import Credentials, EmbeddedSettings, redis_service
from cluster.ports import free_port
from cluster.settings import Settings
from realtime.hub_actor import get_or_create_hub
from realtime.hub_client import HubClient


@contextmanager
def running_hub(*, journal: bool = True) -> Iterator[HubClient]:
    """Start what a hub needs, and the hub; end it all afterwards."""
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        path = Path(folder)
        service = redis_service(path, free_port(), Credentials.load_or_create(path), EmbeddedSettings())
        child = service.start()
        try:
            service.wait_ready(child, 15)
            ray.init(
                address="local", namespace=names.NAMESPACE, num_cpus=2, include_dashboard=False, log_to_driver=False
            )
            yield get_or_create_hub(Settings(redis_url=service.url if journal else "", data_dir=folder))
        finally:
            ray.shutdown()
            child.stop()
