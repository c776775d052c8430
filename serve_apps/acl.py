"""``watchfloor acl``: files that let each device use its own topics of a broker and no others.

Reads the directory and a file of password hashes; writes files, and never a password.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.embedded import write_private
from cluster.settings import Settings
from cluster.store import open_engine
from ingest.broker_acl import (
    Passwords,
    mosquitto_acl,
    mosquitto_config,
    nats_config,
    nats_users,
    user_of,
)
from ingest.choices import BrokerKind
from ingest.directory import DeviceDirectory
from ingest.sql_errors import translated
from ingest.topics import TopicTree
from serve_apps.floor_state import FloorFolder

MAX_DEVICES = 1_000_000
NATS_USERS = "users.conf"
SHOWN = 10
"""Devices named in a list for people."""


@dataclass(frozen=True, slots=True)
class AclSummary:
    """What was written, and for whom."""

    broker: str
    files: tuple[str, ...]
    users: int
    """Devices that can sign in."""
    without_password: tuple[str, ...]
    """Devices of the directory that cannot."""
    unregistered: tuple[str, ...]
    """Devices that can and that the directory does not know; they are accepted and marked."""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def write(
    settings: Settings, broker: BrokerKind, out: Path, passwords_file: Path | None, floor_user: str
) -> AclSummary:
    """Write the broker's files into ``out``.

    Raises:
        ValueError: the password file cannot be used, or nats-server is given none.
        OSError: a file cannot be read or written.
    """
    tree = TopicTree(settings.topic_root)
    passwords = None
    if passwords_file is not None:
        try:
            passwords = Passwords.parse(passwords_file.read_text(encoding="utf-8"), floor_user)
        except ValueError as error:
            raise ValueError(f"{passwords_file}: {error}") from error
    if broker is BrokerKind.MOSQUITTO:
        folder = str(out.resolve())
        texts = {"acl": mosquitto_acl(tree, floor_user), "mosquitto.conf": mosquitto_config(folder)}
    elif passwords is None:
        raise ValueError("nats-server keeps users and permissions in one place: give --passwords, lines of user:bcrypt")
    else:
        texts = {NATS_USERS: nats_users(tree, floor_user, passwords), "nats-server.conf": nats_config(NATS_USERS)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_private(out / name, text)
    registered = _registered(settings)
    able = {user_of(*key) for key in passwords.devices()} if passwords is not None else set()
    return AclSummary(
        broker=broker.value,
        files=tuple(str(out / name) for name in texts),
        users=len(able),
        without_password=tuple(sorted(registered - able)) if passwords is not None else (),
        unregistered=tuple(sorted(able - registered)),
    )


def _registered(settings: Settings) -> set[str]:
    folder = FloorFolder.of(settings)
    if not settings.database_url and not (folder.path / "floor.db").exists():
        return set()  # no floor was ever started here
    engine = open_engine(folder.database_url(settings))
    try:
        with translated("sql"):
            found = DeviceDirectory(engine).list(limit=MAX_DEVICES)
        return {user_of(device.tenant, device.device) for device in found if device.known}
    finally:
        engine.dispose()


def render(summary: AclSummary) -> str:
    """Return the summary for a terminal."""
    lines = [f"wrote {path}" for path in summary.files]
    if summary.users:
        lines.append(f"{summary.users} devices can sign in")
    for title, users in (
        ("of the directory and without a password", summary.without_password),
        ("with a password and not in the directory (accepted, and marked)", summary.unregistered),
    ):
        if users:
            more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
            lines.append(f"{len(users)} {title}: {', '.join(users[:SHOWN])}{more}")
    return "\n".join(lines)
