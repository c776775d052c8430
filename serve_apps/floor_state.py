"""Where a floor keeps what it must remember, and the record that others read.

Starts and ends nothing. Invariant: ``floor.json`` is replaced whole and readable by its
owner only (it names passwords), and whoever reads it sees one consistent state.
"""

import dataclasses
import fcntl
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from cluster.embedded import write_private
from cluster.process import ProcessIdentity
from cluster.settings import Settings
from cluster.socket_folder import socket_folder
from serve_apps.errors import FloorFolderError

FloorPhase = Literal["starting", "ready", "failed", "stopping", "stopped"]
ServiceState = Literal["starting", "running", "waiting", "external", "done", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """One part of the floor as its supervisor sees it."""

    state: ServiceState
    detail: str = ""
    pid: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorRecord:
    """What ``floor.json`` holds."""

    floor_id: str
    phase: FloorPhase
    supervisor: ProcessIdentity
    error: str = ""
    url: str = ""
    port_block: int | None = None
    socket_folder: str = ""
    started_at: float = 0.0
    ready_at: float = 0.0
    services: dict[str, ServiceRecord] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    """What ``watchfloor env`` prints."""
    urls: dict[str, str] = field(default_factory=dict)
    """Resolved settings of the floor's processes, for programs that join it from outside."""

    @property
    def is_running(self) -> bool:
        """True while its supervisor lives."""
        return self.supervisor.is_running()


@dataclass(frozen=True, slots=True)
class FloorFolder:
    """The data folder of one floor."""

    path: Path

    @classmethod
    def of(cls, settings: Settings) -> "FloorFolder":
        """Return the floor's folder as an absolute path; nothing is created."""
        return cls(Path(settings.data_dir).expanduser().resolve())

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def ray_token(self) -> Path:
        """Secret shared by Ray's processes and by whoever submits jobs."""
        return self.path / "ray-token"

    def database_url(self, settings: Settings) -> str:
        """Return where the floor's SQL store is: as set, else in this folder."""
        return settings.database_url or f"sqlite:///{self.path / 'floor.db'}"

    def storage_url(self, settings: Settings) -> str:
        """Return where the floor's files are: as set, else in this folder."""
        return settings.storage_url or (self.path / "storage").as_uri()

    @property
    def bootstrap_result(self) -> Path:
        return self.path / "bootstrap.json"

    def prepare(self, secret_path: Path) -> None:
        """Create the folder, its secrets and its sub-folders.

        Raises:
            FloorFolderError: it cannot be created or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for part in (self.logs, self.path / "storage"):
                part.mkdir(exist_ok=True)
            for path in (self.ray_token, secret_path):
                if not path.exists():
                    write_private(path, secrets.token_hex(32))
        except OSError as error:
            raise FloorFolderError(str(self.path), error.strerror or str(error)) from error

    def lock(self) -> IO[str] | None:
        """Take the floor's lock; None when a supervisor holds it. It is held until the file is closed."""
        file = (self.path / "lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file

    def read(self) -> FloorRecord | None:
        """Return the last record; None when there never was a floor, or its file cannot be read."""
        try:
            content = json.loads((self.path / "floor.json").read_text(encoding="utf-8"))
            services = {name: ServiceRecord(**service) for name, service in content.pop("services").items()}
            supervisor = ProcessIdentity(**content.pop("supervisor"))
            return FloorRecord(services=services, supervisor=supervisor, **content)
        except (OSError, ValueError, KeyError, TypeError):
            # Absent, or written by another version: both mean that nothing can be said about it.
            return None

    def write(self, record: FloorRecord) -> None:
        """Replace the record."""
        write_private(self.path / "floor.json", json.dumps(_plain(record), indent=2))

    def socket_folder(self) -> Path:
        """Create and return a short folder of this user and floor, for the sockets of its parts.

        Raises:
            FloorFolderError: the place belongs to somebody else.
        """
        try:
            return socket_folder(self.path)
        except OSError as error:
            raise FloorFolderError(str(self.path), error.strerror or str(error)) from error


def without_password(url: str) -> str:
    """Return ``url`` fit for people's eyes."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=user + host))


def _plain(record: FloorRecord) -> dict[str, Any]:
    return dataclasses.asdict(record)
