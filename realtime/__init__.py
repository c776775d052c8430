"""The broadcast path: channels, hub, journal and broadcaster."""

from realtime.broadcaster import Broadcaster, BroadcastHealth
from realtime.messages import MessageType
from realtime.process_broadcaster import WebSocketBroadcastMixin, broadcast_to_websocket_group, get_broadcaster
from realtime.publication import Draft, Priority, Publication, StreamPosition

__all__ = [
    "BroadcastHealth",
    "Broadcaster",
    "Draft",
    "MessageType",
    "Priority",
    "Publication",
    "StreamPosition",
    "WebSocketBroadcastMixin",
    "broadcast_to_websocket_group",
    "get_broadcaster",
]
