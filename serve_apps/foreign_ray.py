"""A floor on a Ray that somebody else runs: who has it, what it must offer, and how the floor leaves it.

Run by the supervisor as ``python -m serve_apps.foreign_ray``, and by hand after a floor whose
data folder is lost, it takes the floor off the Ray at ``RAY_ADDRESS``. Starts nothing.
Invariant: only what a floor made is touched: its application, its runs' jobs, the actors of
its namespace; Serve itself ends only with its last application.
"""

import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.experimental import internal_kv
from ray.serve.exceptions import RayServeException

from cluster import names
from cluster.errors import ClusterError
from cluster.lanes import ray_resources
from cluster.process import MARK
from cluster.ray_jobs import RayJobs, dashboard_url
from cluster.settings import Settings
from serve_apps.errors import FloorStartError
from serve_apps.floor import connect
from serve_apps.service_checks import check_ray

logger = logging.getLogger(__name__)

OWNER_KEY = b"floor"
SERVE_NAMESPACE = "serve"
REACH_TIMEOUT_S = 2.0
ACTORS_END_TIMEOUT_S = 10.0
POLL_S = 0.1


def claim(settings: Settings) -> None:
    """Make the connected Ray this floor's, or find that it is already.

    What an earlier floor of the same data folder left, because it was killed, is taken off first:
    its actors know services that may be gone.

    Raises:
        FloorStartError: it lacks a lane's resource, or belongs to another floor or to another Serve.
    """
    lacking = missing_lanes(ray.cluster_resources())  # type: ignore[no-untyped-call]
    if lacking:
        raise FloorStartError("RAY_ADDRESS", _advice(settings.ray_address, lacking))
    me = {"folder": f"{socket.gethostname()}:{settings.data_dir}", "floor_id": os.environ.get(MARK, "")}
    owner = _owner()
    if owner == me:
        return
    if owner and owner["folder"] != me["folder"]:
        reason = (
            f"the Ray at {settings.ray_address} has the floor of {owner['folder']}; end that with watchfloor down, "
            "or, if it is lost, with python -m serve_apps.foreign_ray"
        )
        raise FloorStartError("RAY_ADDRESS", reason)
    if owner:
        logger.warning("taking off what a killed floor of this folder had left")
        take_off()
    if _named_actors(SERVE_NAMESPACE):
        reason = f"Ray Serve runs already on the Ray at {settings.ray_address}, on an address of its own"
        raise FloorStartError("RAY_ADDRESS", reason)
    internal_kv._internal_kv_put(OWNER_KEY, json.dumps(me).encode(), namespace=names.NAMESPACE.encode())


def take_off() -> None:
    """Take the floor off the connected Ray; nothing happens where there is none."""
    try:
        RayJobs(dashboard_url()).stop_launched()
    except ClusterError as error:
        # They end by themselves when their queue is gone.
        logger.warning("the runs' jobs were not stopped: %s", error)
    if _named_actors(SERVE_NAMESPACE):
        _leave_serve()
    for name in _named_actors(names.NAMESPACE):
        # One that has ended by itself is unknown.
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name, namespace=names.NAMESPACE))
    deadline_s = time.monotonic() + ACTORS_END_TIMEOUT_S
    while (left := _named_actors(names.NAMESPACE)) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    if left:
        logger.warning("actors that have not ended: %s", ", ".join(left))
    internal_kv._internal_kv_del(OWNER_KEY, namespace=names.NAMESPACE.encode())


def missing_lanes(total: Mapping[str, float]) -> dict[str, float]:
    """Return the lanes' resources of which a cluster with ``total`` has too little, and how much they need."""
    return {name: amount for name, amount in ray_resources().items() if total.get(name, 0.0) < amount}


def main() -> int:
    """Take the floor off the Ray of the settings, and return the exit status.

    Called by a supervisor, which the mark in the environment tells, it leaves another floor alone.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.load()
    try:
        check_ray(settings.ray_address, REACH_TIMEOUT_S)
        connect(settings.ray_address)
    except ClusterError as error:
        print(f"foreign_ray: {error}", file=sys.stderr)
        return 1
    if MARK not in os.environ or _owner().get("floor_id") == os.environ[MARK]:
        take_off()
    return 0


def _leave_serve() -> None:
    try:
        serve.delete(names.SERVE_APPLICATION)
        # The next floor chooses a port, which a Serve that runs would not follow.
        if not serve.status().applications:
            serve.shutdown()  # type: ignore[no-untyped-call]
    except RayServeException as error:
        logger.warning("Serve: %s", error)


def _named_actors(namespace: str) -> list[str]:
    found = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in found if actor["namespace"] == namespace]


def _owner() -> dict[str, Any]:
    kept = internal_kv._internal_kv_get(OWNER_KEY, namespace=names.NAMESPACE.encode())
    owner: dict[str, Any] = json.loads(kept) if kept else {}
    return owner


def _advice(address: str, lacking: Mapping[str, float]) -> str:
    return (
        f"the Ray at {address} has too little of the lanes' resources {', '.join(lacking)}: start one of its nodes "
        f"with ray start --resources='{json.dumps(dict(lacking))}'"
    )


if __name__ == "__main__":
    sys.exit(main())
