"""How the floor's own Ray is started: arguments and environment of ``ray start --head --block``.

What is switched off here, and what that saves, is docs/adr/0010. Run as
``python -m serve_apps.ray_head`` it is Ray's own command line without the parts that a head
does not need. Invariant: every port and folder that Ray, Serve and HAProxy use is named, so
that no default of theirs is shared with a second floor.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.ports import LOOPBACK
from serve_apps.floor_ports import FloorPorts
from serve_apps.haproxy import BINARY_VARIABLE, PROGRAM

OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Messages and model weights are small; the default takes 30 % of the machine's memory."""

HAPROXY_FOLDER = "h"
"""HAProxy's own, in the folder of sockets; short, because the path of a socket may have 107 characters."""
HAPROXY_MAX_CONNECTIONS = 20_000
HAPROXY_FILES_PER_CONNECTION = 2.5
HAPROXY_OTHER_FILES = 100
"""HAProxy refuses to start when its connections would need more files than the process may open."""
HAPROXY_HARD_STOP_S = 3600
"""Life of an old HAProxy after a reload; sockets renew themselves before (30-50 min)."""

UNUSED_COMMANDS = ("ray.serve.scripts", "ray.dashboard.modules.job.cli", "ray.util.state.state_cli")
"""Sub-commands of ``ray`` that ``ray start`` imports and can do without: 2.5 s of CPU and 130 MB."""

START_HOOK = "serve_apps.ray_head.without_client_server"


def ray_head_argv(
    ports: FloorPorts, folder: Path, *, num_cpus: int, resources: Mapping[str, float], log_to_driver: bool = False
) -> list[str]:
    """Return the command line of the head.

    Args:
        ports: the floor's.
        folder: short private folder for Ray's sessions.
        num_cpus: CPUs that work may use; 0: Ray counts them, a container's quota included.
        resources: custom resources, the lanes' tokens.
        log_to_driver: start the process that copies workers' output to drivers.
    """
    options: dict[str, object] = {
        "port": ports.ray_gcs,
        "object-manager-port": ports.ray_object_manager,
        "node-manager-port": ports.ray_node_manager,
        "dashboard-host": LOOPBACK,
        "dashboard-port": ports.ray_dashboard,
        "dashboard-agent-listen-port": ports.ray_agent,
        "dashboard-agent-grpc-port": ports.ray_agent_grpc,
        "runtime-env-agent-port": ports.ray_runtime_env,
        "metrics-export-port": ports.ray_metrics,
        # 0 to 0 lets every worker take a free port; the default range is the same for all floors.
        "min-worker-port": 0,
        "max-worker-port": 0,
        "object-store-memory": OBJECT_STORE_BYTES,
        "temp-dir": folder / "r",
        "resources": json.dumps(dict(resources)),
        "include-log-monitor": str(log_to_driver).lower(),
    }
    if num_cpus > 0:
        options["num-cpus"] = num_cpus
    # By our Python, not from PATH: another Ray there would speak another protocol.
    program = [sys.executable, "-P", "-m", "serve_apps.ray_head"]
    flags = ["start", "--head", "--block", "--no-monitor", "--disable-usage-stats"]
    return [*program, *flags, *(f"--{name}={value}" for name, value in options.items())]


def ray_head_env(ports: FloorPorts, folder: Path, max_files: int) -> dict[str, str]:
    """Return the variables that Ray's and Serve's processes read at import, so the head must have them.

    Args:
        ports: the floor's.
        folder: short private folder for HAProxy's sockets; ``haproxy.write_program`` has been called for ``folder/h``.
        max_files: files that a process of the floor may open (``ulimit -Hn``).
    """
    haproxy = folder / HAPROXY_FOLDER
    return {
        # The one switch that makes Ray's own servers listen on 127.0.0.1: it is meant for laptops
        # with macOS, where it avoids firewall questions, and works on Linux as well.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_START_HOOK": START_HOOK,
        "RAY_USAGE_STATS_ENABLED": "0",
        # No idle worker per CPU: actors are started when they are asked for.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        # Ray runs its workers at nice 15; here they are the gateway, ingest and detection, which any
        # compiler on the machine would then starve. Training makes itself nice.
        "RAY_worker_niceness": "0",
        # Ends at once on SIGTERM instead of draining the only node for 30 s.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Who wants an HAProxy of their own gets it, and TCP to the replicas with it.
        BINARY_VARIABLE: os.environ.get(BINARY_VARIABLE, str(haproxy / PROGRAM)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections(max_files)),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(os.cpu_count() or 1, 4)),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(HAPROXY_HARD_STOP_S),
        # The controller kills a proxy that is not ready in time, and a busy machine needs longer than 5 s.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
        # A dead HAProxy is replaced after three failed checks: 30 s without a page by default.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "60",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replica_http[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replica_http[1]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.replica_grpc[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.replica_grpc[1]),
    }


def max_connections(max_files: int) -> int:
    """Return how many connections HAProxy may take with this limit of open files."""
    return min(HAPROXY_MAX_CONNECTIONS, int((max_files - HAPROXY_OTHER_FILES) / HAPROXY_FILES_PER_CONNECTION))


def without_client_server(ray_params: Any, _head: bool) -> None:
    """Drop the Ray Client server (90 MB and an open port); called by ``ray start`` as RAY_START_HOOK.

    The command line has no way to say so: it puts port 10001 where none is given.
    """
    ray_params.ray_client_server_port = None


def main() -> None:
    """Run Ray's command line without the sub-commands that are not ``start``."""
    for name in UNUSED_COMMANDS:
        # None makes the import fail, which Ray expects of an installation without these parts.
        sys.modules[name] = None  # type: ignore[assignment]
    from ray.scripts.scripts import main as ray_main

    ray_main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
