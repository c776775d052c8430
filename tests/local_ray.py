"""A Ray of a test's own that takes jobs: ``ray start --head`` with ports nobody else has."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cluster.lanes import ray_resources
from cluster.ports import LOOPBACK, PortBlock
from cluster.process import Child
from serve_apps.ray_head import START_HOOK

READY_TIMEOUT_S = 150.0
PORT_OPTIONS = (
    "port",
    "object-manager-port",
    "node-manager-port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


@dataclass(frozen=True, slots=True)
class LocalRay:
    """Where a started Ray is."""

    address: str
    dashboard_url: str


@contextmanager
def local_ray(
    num_cpus: int = 2, env: Mapping[str, str] | None = None, resources: Mapping[str, float] | None = None
) -> Iterator[LocalRay]:
    """Start a head; ``env`` is added to what its workers and jobs see, ``resources`` replaces the lanes' tokens."""
    folder = Path(tempfile.mkdtemp(prefix="wf"))  # short: sockets lie below it
    with closing(PortBlock.reserve()) as block:
        ports = dict(zip(PORT_OPTIONS, block.take(len(PORT_OPTIONS)), strict=True))
        ray = LocalRay(f"{LOOPBACK}:{ports['port']}", f"http://{LOOPBACK}:{ports['dashboard-port']}")
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_API_SERVER_ADDRESS": ray.dashboard_url,
            "RAY_START_HOOK": START_HOOK,
            # Ends at once on SIGTERM instead of draining its only node.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            **(env or {}),
        }
        options = {
            **ports,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": num_cpus,
            "object-store-memory": 200 * 1024 * 1024,
            "temp-dir": folder,
            "resources": json.dumps(ray_resources() if resources is None else dict(resources)),
        }
        program = [sys.executable, "-P", "-m", "serve_apps.ray_head"]
        argv = [*program, "start", "--head", "--block", "--no-monitor", "--disable-usage-stats"]
        argv += [f"--{name}={value}" for name, value in options.items()]
        child = Child.start("ray", argv, log_path=folder / "ray.log", env=environment)
        try:
            _wait_ready(ray, child, folder / "ray.log")
            yield ray
        finally:
            child.stop(20)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(ray: LocalRay, child: Child, log: Path) -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8").strip()
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up_at and child.poll() is None:
        try:
            answer = httpx.get(
                f"{ray.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=2
            )
            if answer.status_code == 200:
                return
        except httpx.HTTPError:
            pass  # not yet
        time.sleep(0.2)
    raise RuntimeError(f"Ray did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
