"""Named actors of a floor, and how each process of it begins.

One of the two core files that know Ray (with ``serve_apps/app.py``); calling an actor is
``actor_link.py``. Invariant: an actor is made once per floor, whoever asks first.
"""

import gc
import logging
import sys
import threading
from typing import Any

import ray
from ray.exceptions import RayError

from cluster import names
from cluster.actor_link import ray_reason
from cluster.errors import ServiceUnavailableError
from cluster.metrics_client import start_metrics_pusher
from cluster.settings import Settings

READY_TIMEOUT_S = 60.0
COLLECT_AFTER = 10_000
"""New objects between two looks of the garbage collector; looking every 700 took an eighth of the time of an alert."""
SWITCH_S = 0.0005
"""After so long a thread lets another have its turn. With Python's own 5 ms, a message that comes while the metrics
are taken waits so long at each system call on its way."""
LOG_FORMAT = "%(asctime)s %(levelname)s %(process_name)s %(name)s: %(message)s"


def get_or_create(cls: type, *args: Any, name: str, timeout_s: float = READY_TIMEOUT_S, **options: Any) -> Any:
    """Return the handle of the floor's one actor ``name``, made from ``cls(*args)`` when nobody has.

    The actor is detached, restarts for ever and takes no CPU; ``options`` add to or
    replace these. Its class has a method ``ready()`` that returns once it can serve.

    Raises:
        ServiceUnavailableError: it did not become ready within ``timeout_s``.
    """
    chosen: dict[str, Any] = {
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 0,  # a mutating call may have run although its caller saw an error
    } | options
    try:
        handle: Any = ray.remote(cls).options(name=name, namespace=names.NAMESPACE, **chosen).remote(*args)
        ray.get(handle.ready.remote(), timeout=timeout_s)
    except (RayError, ValueError) as error:
        raise ServiceUnavailableError(name, "its actor", ray_reason(error)) from error
    return handle


def configure_process(name: str) -> None:
    """Set up logging and the metrics pusher of a process; ``name`` is its kind, such as ``hub`` or ``task``.

    Called at the start of every actor, replica and driver; a second call changes nothing.
    """
    global _configured
    with _configure_lock:
        if _configured:
            return
        _configured = True
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT, defaults={"process_name": name}))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(Settings.load().log_level.upper())
    start_metrics_pusher(name)


def prepare_to_serve() -> None:
    """Keep what else runs in a process out of the way of what it serves; called once, when it begins to.

    What is loaded by now is taken from the collector: a full collection would look at some 200,000
    objects that stay for good, and stop the process for 25-120 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_S)


_configured = False
_configure_lock = threading.Lock()
