"""Which TCP ports given processes listen on, read from /proc.

Sees only what the calling user may see: other users' sockets have no owner here.
Invariant: each listening socket appears once, with the address that it is bound to.
"""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """One listening socket."""

    port: int
    host: str
    program: str

    @property
    def is_loopback(self) -> bool:
        """True when nobody outside this machine can reach it."""
        address = ipaddress.ip_address(self.host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({self.program})"


def listeners_of(pids: Collection[int]) -> list[Listener]:
    """Return the listening sockets of these processes, by port."""
    sockets = _listening()
    found = set()
    for pid in pids:
        program = _program(pid)
        for inode in _socket_inodes(pid) & sockets.keys():
            host, port = sockets[inode]
            found.add(Listener(port, host, program))
    return sorted(found)


def _listening() -> dict[str, tuple[str, int]]:
    """Return inode -> address of every listening socket of this network namespace."""
    found = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                host, _, port = fields[1].partition(":")
                found[fields[9]] = (_address(host), int(port, 16))
    return found


def _address(text: str) -> str:
    # Groups of 32 bits, each in the machine's (little-endian) order.
    raw = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    return str(ipaddress.ip_address(raw))


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError:
        # Ended meanwhile: it listens on nothing any more.
        return inodes
    return inodes


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
