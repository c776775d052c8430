"""A gateway under Ray Serve, as a process that a test starts and talks to over its pipes.

A process of its own, because Serve reads its mode at import: ``haproxy`` or ``proxy``. Not
a floor: hub, metrics and gateway only, on a Ray of its own. Reads one word a line from
stdin and answers with one JSON line each; the first line out is
``{"url": ..., "replica_ports": [...]}``.

    python -m tests.integration.gateway_program MODE FOLDER REDIS_URL
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from cluster.lanes import ray_resources
from cluster.ports import PortBlock, free_port
from serve_apps.floor_ports import FloorPorts
from serve_apps.haproxy import write_program
from serve_apps.ray_head import HAPROXY_FOLDER, ray_head_env


def main(mode: str, folder: Path, redis_url: str) -> None:
    """Serve until stdin ends."""
    block = PortBlock.reserve()
    ports = FloorPorts.take(block, free_port())
    write_program(folder / HAPROXY_FOLDER)
    if mode == "haproxy":
        os.environ.update(ray_head_env(ports, folder, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    else:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    secret = folder / "secret"
    secret.write_text("s" * 64, encoding="utf-8")
    os.environ |= {
        "WATCHFLOOR_DATA_DIR": str(folder),
        "WATCHFLOOR_HTTP_PORT": str(ports.http),
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{folder}/floor.db",
        "STORAGE_URL": f"file://{folder}/storage",
    }
    import ray
    from ray import serve

    from cluster import names
    from cluster.metrics_actor import get_or_create_metrics
    from cluster.migrate import upgrade
    from cluster.settings import Settings
    from realtime.hub_actor import get_or_create_hub
    from serve_apps.gateway_deployment import build_gateway

    settings = Settings.load()
    upgrade(settings.database_url)
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        include_dashboard=False,
        num_cpus=2,
        resources=ray_resources(),
        log_to_driver=False,
    )
    serve.start(http_options=serve.HTTPOptions(host=settings.http_host, port=settings.http_port))
    get_or_create_metrics(settings)
    get_or_create_hub(settings)
    serve.run(build_gateway(settings), name=names.SERVE_APPLICATION, route_prefix="/")
    first, last = ports.replica_http
    answer({"url": f"http://127.0.0.1:{settings.http_port}", "replica_ports": [*range(first, last + 1)]})
    for line in sys.stdin:
        answer(command(line.strip(), settings))
    ray.shutdown()  # with all of Serve: its own end would wait for the sockets


def command(word: str, settings: Any) -> dict[str, Any]:
    """Do what the test asks for."""
    import ray
    from ray import serve

    from cluster import names
    from cluster.task import task
    from serve_apps.gateway_deployment import build_gateway

    match word:
        case "drain":
            handle = serve.get_app_handle(names.SERVE_APPLICATION)
            return {"drained": handle.drain.remote(0.5).result(timeout_s=30)}
        case "kill-replica":
            actors = ray.util.list_named_actors(all_namespaces=True)
            (replica,) = [actor for actor in actors if "#Gateway#" in actor["name"]]
            ray.kill(ray.get_actor(**replica), no_restart=True)
            return {"killed": replica["name"]}
        case "replica-pid":
            actors = ray.util.list_named_actors(all_namespaces=True)
            (replica,) = [actor for actor in actors if "#Gateway#" in actor["name"]]
            call = ray.get_actor(**replica).__ray_call__.remote(lambda _replica: os.getpid())
            return {"pid": ray.get(call, timeout=20)}
        case "flood":
            return {"published": flood(seconds=60.0, bytes_s=5_000_000)}
        case "restart-hub":
            ray.kill(ray.get_actor(names.HUB, namespace=names.NAMESPACE), no_restart=False)
            return {"restarted": names.HUB}
        case "redeploy":
            serve.run(build_gateway(settings), name=names.SERVE_APPLICATION, route_prefix="/")
            return {"redeployed": True}
        case "broadcast":
            return {"confirmed": task(lane="general")(tell_ann).submit().result(60)}
        case _:
            return {"error": f"unknown command {word!r}"}


def flood(seconds: float, bytes_s: float) -> int:
    """Publish so much on the NOC's channel, paced; each message says when it was published."""
    from realtime.hub_client import HubClient
    from realtime.publication import Draft

    hub, size, published = HubClient.connect(), 5_000, 0
    began_s = time.monotonic()
    while (now_s := time.monotonic()) < began_s + seconds:
        if published * size > (now_s - began_s) * bytes_s:
            time.sleep(0.002)
            continue
        drafts = [Draft("noc:all", (b'{"t":%.6f,"x":"' % time.time()).ljust(size - 2, b"x") + b'"}') for _ in range(8)]
        hub.publish_sync(drafts, timeout_s=30)
        published += len(drafts)
    return published


def tell_ann() -> bool:
    """Task: broadcast once to a user and once to a channel that cannot be; tell whether the first was confirmed."""
    from realtime import get_broadcaster

    broadcaster = get_broadcaster()
    broadcaster.broadcast_to_user("ann", "task_complete", {"answer": 42})
    broadcaster.publish("no such channel", "task_complete", {})
    return broadcaster.flush(20)


def answer(value: dict[str, Any]) -> None:
    """Write one line."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
