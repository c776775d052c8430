"""The asyncio transport under a client's WebSocket, where the server lets it be found.

Ray Serve and uvicorn give an application ``send`` only: through it each frame is checked by
three state machines and framed anew for every connection. A frame that is bytes already is
written to the transport instead. Reaches through two private names, so everything here is
tested for and nothing relied on. Invariant: None unless bytes written to the result arrive
on the client's socket as they are, between two whole frames of the server's own.
"""

import asyncio
from typing import Any, Protocol, runtime_checkable

WRAPPERS = 4
"""Layers around the server's ``receive`` that are looked through; Serve has one."""


@runtime_checkable
class ServerSocket(Protocol):
    """What is used of an asyncio transport; uvloop's does not derive from asyncio's."""

    def write(self, data: bytes, /) -> None:
        """Send bytes, or keep them until the socket takes them."""
        ...

    def is_closing(self) -> bool:
        """Tell whether it is closed or about to be."""
        ...

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the socket has not taken yet."""
        ...


def find_socket(receive: Any) -> ServerSocket | None:
    """Return the transport that the server's ``receive`` reads from; None: use ``send``.

    Args:
        receive: the ASGI callable of an accepted WebSocket.
    """
    for _ in range(WRAPPERS):
        server = getattr(receive, "__self__", None)
        if server is not None:
            return _of_uvicorn(server)
        receive = getattr(receive, "_receive", None)
    return None


def _of_uvicorn(server: Any) -> ServerSocket | None:
    # By name: its module cannot be imported where uvicorn runs another implementation. The others write
    # frames in pieces or from tasks of their own, so bytes of ours could land inside one of theirs.
    is_known = any(kind.__name__ == "WebSocketsSansIOProtocol" for kind in type(server).__mro__)
    # Serve can run the application in a thread beside its server; a transport belongs to one loop.
    is_ours = getattr(server, "loop", None) is asyncio.get_running_loop()
    transport = getattr(server, "transport", None)
    return transport if is_known and is_ours and isinstance(transport, ServerSocket) else None
