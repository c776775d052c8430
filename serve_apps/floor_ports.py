"""The ports of one floor, by name.

Chooses nothing itself: the numbers come from a reserved ``PortBlock``. Invariant: the same
block always gives the same name the same port, so a floor keeps its address over restarts.
"""

from dataclasses import dataclass

from cluster.ports import PortBlock

REPLICA_PORTS = 48
"""HTTP ports for the gateway's replicas, and as many for gRPC, which Serve reserves as well.

Serve keeps the port of an ended replica unused for an hour (as long as an old HAProxy may live).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorPorts:
    """Every port that a floor listens on."""

    http: int
    mqtt: int
    redis: int
    ray_gcs: int
    ray_object_manager: int
    ray_node_manager: int
    ray_dashboard: int
    ray_agent: int
    ray_agent_grpc: int
    ray_runtime_env: int
    ray_metrics: int
    haproxy_stats: int
    haproxy_metrics: int
    fallback_http: int
    fallback_grpc: int
    replica_http: tuple[int, int]
    """First and last."""
    replica_grpc: tuple[int, int]

    @classmethod
    def take(cls, block: PortBlock, http_port: int = 0) -> "FloorPorts":
        """Hand out the block's ports; ``http_port`` replaces the page's, when it is not 0."""
        single = {
            name: block.take()[0] for name in cls.__dataclass_fields__ if name not in ("replica_http", "replica_grpc")
        }
        http, grpc = block.take(REPLICA_PORTS), block.take(REPLICA_PORTS)
        if http_port:
            single["http"] = http_port
        return cls(**single, replica_http=(http[0], http[-1]), replica_grpc=(grpc[0], grpc[-1]))
