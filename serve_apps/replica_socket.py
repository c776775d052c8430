"""A Unix socket beside the TCP port of a gateway replica, for HAProxy on the same machine.

Serve starts a replica's server itself and gives it one TCP socket; the server would take
several. So its start is the one thing that is changed, by name. What does not succeed here
leaves the replica with its port alone, and HAProxy uses that (``haproxy.py``).
"""

import logging
import os
import socket
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import uvicorn

from serve_apps.haproxy import SOCKET_VARIABLE, replica_socket

logger = logging.getLogger(__name__)

Startup = Callable[..., Coroutine[Any, Any, None]]


def listen_beside_tcp() -> None:
    """Let the servers that this process starts from now on listen on a Unix socket, too, where there is an HAProxy.

    A second call changes nothing.
    """
    admin_socket = os.environ.get(SOCKET_VARIABLE, "")
    startup: Startup = uvicorn.Server.startup
    if admin_socket and not hasattr(startup, "__wrapped__"):
        uvicorn.Server.startup = _also_at(Path(admin_socket).parent, startup)  # type: ignore[method-assign]


def _also_at(folder: Path, startup: Startup) -> Startup:
    @wraps(startup)
    async def start(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        beside = _opened(folder, sockets[0]) if sockets else None
        await startup(server, sockets if beside is None else [*(sockets or ()), beside])

    return start


def _opened(folder: Path, tcp: socket.socket) -> socket.socket | None:
    path = replica_socket(folder, tcp.getsockname()[1])
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of a dead replica that had the port
        own.bind(str(path))
    except OSError as error:
        logger.warning("HAProxy reaches this replica by TCP: %s: %s", path, error)
        own.close()
        return None
    return own
