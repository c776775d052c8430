"""Who may use which topic, in the words of mosquitto and of nats-server.

Pure text. A device signs in as ``tenant/device`` and reaches its own branch of the tree only;
the floor's user reads everything and writes commands. Invariants: no user name with a
wildcard or a quote ever gets into a file; passwords are never made here, and only their
hashes are ever read.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.directory import DeviceKey
from ingest.topics import TopicClass, TopicTree, is_level

DEVICE_WRITES = (TopicClass.TELEMETRY, TopicClass.ALERT, TopicClass.STATE, TopicClass.COMMAND_ACK)
DEVICE_READS = (TopicClass.COMMAND,)

_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
NATS_DELIVERY = "$MQTT.sub.>"
"""Where nats-server delivers QoS 1 subscriptions of any user; its names are random."""


@dataclass(frozen=True, slots=True)
class Passwords:
    """The users of a password file and the hashes of their passwords."""

    hashes: Mapping[str, str]

    @classmethod
    def parse(cls, text: str, floor_user: str) -> "Passwords":
        """Read lines of ``user:hash``; empty lines and ``#`` comments are left out.

        Raises:
            ValueError: a user is neither ``floor_user`` nor ``tenant/device``, comes twice, or has no
                hash; the text gives the line's number and never the hash.
        """
        hashes: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            user, _, hashed = line.strip().partition(":")
            if not user or user.startswith("#"):
                continue
            if user != floor_user and device_of(user) is None:
                raise ValueError(f"line {number}: {user[:80]!r} is neither {floor_user!r} nor tenant/device")
            if user in hashes or not hashed:
                raise ValueError(f"line {number}: {user!r} {'comes twice' if user in hashes else 'has no hash'}")
            hashes[user] = hashed
        return cls(hashes)

    def devices(self) -> list[DeviceKey]:
        """Return the devices among the users, by tenant and name."""
        return sorted(key for user in self.hashes if (key := device_of(user)) is not None)


def device_of(user: str) -> DeviceKey | None:
    """Return the tenant and device that a user name stands for; None when it stands for none."""
    tenant, slash, device = user.partition("/")
    return (tenant, device) if slash and is_level(tenant) and is_level(device) else None


def user_of(tenant: str, device: str) -> str:
    """Return the user name of a device."""
    return f"{tenant}/{device}"


def mosquitto_acl(tree: TopicTree, floor_user: str) -> str:
    """Return an ``acl_file``: the same for every device, by its user name, so it never has to grow.

    mosquitto itself refuses a user name with a wildcard wherever a pattern is asked (CVE-2017-7650).
    """
    _check_user(floor_user)
    lines = [
        "# Made by `watchfloor acl --broker mosquitto`.",
        "# The floor: reads what devices send, writes commands to them.",
        f"user {floor_user}",
        f"topic read {tree.everything}",
        f"topic write {tree.root}/+/+/{TopicClass.COMMAND}",
        "",
        "# A device, whose user name is tenant/device: its own branch and nothing else.",
        *(f"pattern write {tree.root}/%u/{kind}" for kind in DEVICE_WRITES),
        *(f"pattern read {tree.root}/%u/{kind}" for kind in DEVICE_READS),
    ]
    return "\n".join(lines) + "\n"


def mosquitto_config(folder: str) -> str:
    """Return a configuration that uses ``acl`` and ``passwords`` of ``folder``; deploy/mosquitto.conf is one."""
    return MOSQUITTO_CONFIG.format(folder=folder.rstrip("/"))


def nats_users(tree: TopicTree, floor_user: str, passwords: Passwords) -> str:
    """Return an ``authorization`` block with a user for each device of the password file.

    Raises:
        ValueError: the floor's user is missing, or a hash is not bcrypt: nats-server would take it
            for the password itself.
    """
    _check_user(floor_user)
    if floor_user not in passwords.hashes:
        raise ValueError(f"the floor's own user {floor_user!r} has no line")
    for user, hashed in passwords.hashes.items():
        if not _BCRYPT.fullmatch(hashed):
            raise ValueError(f"the hash of {user!r} is not bcrypt ($2b$...), which is all that nats-server knows")
    users = [
        _nats_user(floor_user, passwords, [f"{tree.root}.*.*.{TopicClass.COMMAND}"], [tree.root, f"{tree.root}.>"])
    ]
    for tenant, device in passwords.devices():
        own = f"{tree.root}.{tenant}.{device}."
        writes, reads = ([own + _subject(kind) for kind in kinds] for kinds in (DEVICE_WRITES, DEVICE_READS))
        users.append(_nats_user(user_of(tenant, device), passwords, writes, reads))
    # JSON is a subset of the server's configuration language.
    head = "# Made by `watchfloor acl --broker nats`; holds hashes of passwords.\n"
    return head + "authorization: " + json.dumps({"users": users}, indent=2) + "\n"


def nats_config(users_file: str) -> str:
    """Return a configuration that includes ``users_file``, which lies beside it."""
    return NATS_CONFIG.format(users_file=users_file)


def _nats_user(user: str, passwords: Passwords, publish: Sequence[str], subscribe: Sequence[str]) -> dict[str, object]:
    return {
        "user": user,
        "password": passwords.hashes[user],
        "permissions": {"publish": list(publish), "subscribe": [*subscribe, NATS_DELIVERY]},
    }


def _subject(kind: TopicClass) -> str:
    return kind.replace("/", ".")


def _check_user(floor_user: str) -> None:
    if not is_level(floor_user):
        raise ValueError(f"the floor's user must be 1-64 of [A-Za-z0-9_-], got {floor_user[:80]!r}")


MOSQUITTO_CONFIG = """\
# An MQTT 5 broker for a floor: mosquitto 2.0.18 or newer. Made by `watchfloor acl --broker mosquitto`.
# {folder}/passwords is made with `mosquitto_passwd`: a line for the floor's user and one for each tenant/device.
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl

# The floor: MQTT_URL=mqtt://ingest:PASSWORD@127.0.0.1:1883?version=5
listener 1883 127.0.0.1

# The devices. On loopback until it has certificates, as they send their passwords. A device's client id
# is its user name, so none can take over another's connection.
listener 8883 127.0.0.1
use_username_as_clientid true
#certfile {folder}/server.crt
#keyfile {folder}/server.key
# Certificates instead of passwords; their common name is tenant/device:
#cafile {folder}/ca.crt
#require_certificate true
#use_identity_as_username true

# Nothing that was acknowledged to a device may be lost with the broker: every change is written.
persistence true
persistence_location /var/lib/mosquitto/
autosave_on_changes true
autosave_interval 1

# The floor may be away for a while; the defaults would drop after 1000 messages.
max_queued_messages 1000000
max_queued_bytes 1073741824
max_inflight_messages 1000
# Larger packets are cut off here; from 256 KiB on they become dead letters.
max_packet_size 8388608
"""

NATS_CONFIG = """\
# An MQTT 3.1.1 broker for a floor: nats-server 2.10 or newer. Made by `watchfloor acl --broker nats`.
# MQTT_URL=mqtt://ingest:PASSWORD@127.0.0.1:1883
server_name: watchfloor
listen: "127.0.0.1:4222"
max_payload: 8MB
include ./{users_file}

mqtt {{
  # On loopback until it has certificates, as devices send their passwords.
  listen: "127.0.0.1:1883"
  # tls {{ cert_file: "/etc/nats/server.crt", key_file: "/etc/nats/server.key" }}
  ack_wait: "5s"
  max_ack_pending: 1024
}}

# Nothing that was acknowledged to a device may be lost with the broker.
jetstream {{
  store_dir: "/var/lib/nats"
  sync_interval: always
}}
"""
