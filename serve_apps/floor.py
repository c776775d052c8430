"""Brings a started Ray to a working floor: schema, named actors, gateway; then ends.

Run by the supervisor as ``python -m serve_apps.floor``; everything it makes is detached and
outlives it. Decides nothing about restarts. Invariant: it may run again and again on the
same cluster, what exists already is kept; exit status 0 means that the page answers.
"""

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from cluster import names
from cluster.embedded import write_private
from cluster.errors import ClusterError, ServiceUnavailableError
from cluster.ports import local_host
from cluster.settings import Settings
from serve_apps.floor_env import worker_env
from serve_apps.service_checks import check_set

logger = logging.getLogger(__name__)

SERVICE_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 30.0
PART_TIMEOUT_S = 120.0
PAGE_TIMEOUT_S = 60.0
POLL_S = 0.1

ALERTS_FLOW = "alerts"
READY = "ready"
FAILED = "failed"
"""Stages in the result file, for the supervisor."""

EXIT_FAILED = 1
EXIT_SERVICE = 2

FIRST = (
    "cluster.metrics_actor:get_or_create_metrics",
    "realtime.hub_actor:get_or_create_hub",
)
"""What every other part calls from its first moment on."""

FOR_ALERTS = (
    "ingest.detector_actor:get_or_create_detector",
    "ingest.ingest_actor:get_or_create_ingest",
)
"""What the first alert needs, with the gateway; on two CPUs everything else would delay it."""

THEN = (
    "cluster.run_queue_actor:get_or_create_run_queue",
    "ingest.archive_actor:get_or_create_archiver",
    "training.labelling.label_actor:get_or_create_label_queue",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the floor up and write the outcome to ``--result``."""
    parser = argparse.ArgumentParser(prog="python -m serve_apps.floor", description=__doc__)
    parser.add_argument("--result", type=Path, help="file for the outcome, as JSON")
    parser.add_argument("--foreign-ray", action="store_true", help="somebody else runs the Ray at RAY_ADDRESS")
    arguments = parser.parse_args(argv)
    settings = Settings.load()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        bring_up(settings, on_alerts=lambda: _tell(arguments.result, ALERTS_FLOW), is_foreign_ray=arguments.foreign_ray)
    except ClusterError as error:
        return _ended(arguments.result, EXIT_SERVICE, str(error))
    except Exception as error:
        # The top of the process: the supervisor shows the one line, the log keeps the traceback.
        logger.exception("bootstrap failed")
        return _ended(arguments.result, EXIT_FAILED, _one_line(error))
    return _ended(arguments.result, 0, "")


def bring_up(settings: Settings, on_alerts: Callable[[], None], *, is_foreign_ray: bool = False) -> None:
    """Create what is missing on the cluster at ``settings.ray_address``.

    Args:
        settings: with resolved URLs.
        on_alerts: called as soon as readings can become alerts on the page.
        is_foreign_ray: its processes do not have the floor's environment, so they are given the settings.

    Raises:
        ClusterError: a service or a part did not become ready; the text names it.
    """
    begun_s = time.monotonic()

    def done(what: str) -> None:
        logger.info("%-12s %5.1f s", what, time.monotonic() - begun_s)

    # The threads mostly wait for processes of Ray's: two CPUs start two of them at a time anyway.
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="bring-up") as pool:
        schema = pool.submit(_named("cluster.migrate:upgrade"), settings.database_url)
        ray_import = pool.submit(importlib.import_module, "ray.serve")
        check_set(settings, SERVICE_TIMEOUT_S)
        done("services")
        ray_import.result(CONNECT_TIMEOUT_S)
        connect(settings.ray_address, worker_env(os.environ) if is_foreign_ray else {})
        if is_foreign_ray:
            _named("serve_apps.foreign_ray:claim")(settings)
        done("ray")
        serve = pool.submit(_start_serve, settings)
        _wait({name: pool.submit(_named(name), settings) for name in FIRST})
        schema.result(PART_TIMEOUT_S)
        done("hub, schema")
        parts = {name: pool.submit(_named(name), settings) for name in FOR_ALERTS}
        _wait_for_controller(serve)
        _run_gateway(settings)
        done("gateway")
        _wait(parts)
        _wait_for_page(settings)
        done("alerts")
        on_alerts()
        _wait({name: pool.submit(_named(name), settings) for name in THEN})
        done("floor")


def connect(address: str, env_vars: Mapping[str, str] | None = None) -> None:
    """Join a Ray as driver; all that this process makes there gets ``env_vars``.

    Raises:
        ServiceUnavailableError: it takes no drivers.
    """
    import ray

    # None and not an empty one: a runtime environment keeps Ray from sharing its idle workers.
    runtime_env = {"env_vars": dict(env_vars)} if env_vars else None
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            ray.init(address=address, namespace=names.NAMESPACE, log_to_driver=False, runtime_env=runtime_env)
        except (ConnectionError, RuntimeError, ValueError) as error:
            # The GCS answers before the node has registered with it.
            if time.monotonic() > deadline_s:
                raise ServiceUnavailableError("RAY_ADDRESS", address, str(error)) from error
            ray.shutdown()
            time.sleep(POLL_S)
        else:
            return


def _start_serve(settings: Settings) -> None:
    from ray import serve
    from ray.exceptions import RayError

    try:
        serve.start(http_options=serve.HTTPOptions(host=settings.http_host, port=settings.http_port))
    except (RayError, TimeoutError) as error:
        # It waits for its first proxies; the controller replaces one that fails, and the page tells.
        logger.warning("Serve's proxies are late: %s", _one_line(error))


def _wait_for_controller(serve: "Future[None]") -> None:
    """Return when Serve takes applications; its proxies may still be starting."""
    import ray

    deadline_s = time.monotonic() + PART_TIMEOUT_S
    while not serve.done() and time.monotonic() < deadline_s:
        if any(actor["namespace"] == "serve" for actor in ray.util.list_named_actors(all_namespaces=True)):
            return
        time.sleep(POLL_S)


def _run_gateway(settings: Settings) -> None:
    from ray import serve

    application = _named("serve_apps.gateway_deployment:build_gateway")(settings)
    serve.run(application, name=names.SERVE_APPLICATION, route_prefix="/")


def _wait_for_page(settings: Settings) -> None:
    """Return when the gateway answers through the ingress.

    Raises:
        ServiceUnavailableError: it does not.
    """
    url = f"http://{local_host(settings.http_host)}:{settings.http_port}/healthz"
    deadline_s = time.monotonic() + PAGE_TIMEOUT_S
    while True:
        try:
            with urlopen(url, timeout=2.0):
                return
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise ServiceUnavailableError("gateway", url, str(error)) from error
            time.sleep(POLL_S)


def _named(entry: str) -> Callable[..., Any]:
    # By name and only when needed: each part imports what only it uses.
    module, _, attribute = entry.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return loaded


def _wait(parts: dict[str, "Future[Any]"]) -> None:
    for future in parts.values():
        future.result(PART_TIMEOUT_S)


def _one_line(error: Exception) -> str:
    # Ray puts the remote traceback into the text, with the cause last.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no details'}"


def _ended(result: Path | None, status: int, error: str) -> int:
    if error:
        logger.error("%s", error)
    _tell(result, FAILED if error else READY, error)
    return status


def _tell(result: Path | None, stage: str, error: str = "") -> None:
    if result is not None:
        write_private(result, json.dumps({"stage": stage, "error": error}))


if __name__ == "__main__":
    sys.exit(main())
