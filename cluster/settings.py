"""Settings of a floor: defaults, then one YAML file, then the environment.

This is the only place that reads them. Each owner declares its own frozen dataclass
beside its code and asks ``load_section`` for an instance; values are then passed down.
"""

import dataclasses
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cluster.errors import SettingsError

PREFIX = "WATCHFLOOR_"

SERVICE_URLS = ("MQTT_URL", "REDIS_URL", "DATABASE_URL", "STORAGE_URL", "RAY_ADDRESS")
"""Settings without our prefix: other tools know them by these names."""
UNPREFIXED = (*SERVICE_URLS, "CHANNEL_KEYS")

Section = TypeVar("Section")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the floor's services are, and where the floor itself may be found."""

    mqtt_url: str = ""
    """MQTT broker, ``mqtt://[user:password@]host:port`` or ``mqtts://``; empty: the embedded one."""
    redis_url: str = ""
    """Redis or Valkey, ``redis://`` or ``rediss://``; empty: the embedded one."""
    database_url: str = ""
    """SQL store, an SQLAlchemy URL; empty: SQLite in the data folder."""
    storage_url: str = ""
    """Files (telemetry archive, checkpoints, models), a ``pyarrow.fs`` URL; empty: the data folder."""
    ray_address: str = ""
    """Ray cluster to join, ``host:port``; empty: the floor starts its own."""
    data_dir: str = ".watchfloor"
    """Folder of the floor's state; one floor per folder."""
    http_host: str = "127.0.0.1"
    """Address the page and the API listen on."""
    http_port: int = 0
    """Port of the page and the API; 0: a free one is chosen."""
    num_cpus: int = 0
    """CPUs that Ray may use; 0: those of the machine."""
    secret_file: str = ""
    """File with the key that signs tokens, 32 bytes or more; empty: the floor makes one and stays on loopback.
    Several keys, one a line: the first signs, tokens of the others still count."""
    channel_keys: str = dataclasses.field(default="", repr=False)
    """Keys of the hub's journal, ``id:base64key`` with 16, 24 or 32 bytes, comma-separated; the first encrypts,
    all decrypt; empty: payloads are stored as they are."""
    topic_root: str = "wf"
    """First level of every MQTT topic of the floor."""
    url: str = ""
    """Address of the floor for programs outside its Ray cluster, ``http://host:port``."""
    token: str = ""
    """Token that such a program shows to the API."""
    log_level: str = "INFO"
    """Python logging level of the floor's processes."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", self.topic_root):
            raise SettingsError("WATCHFLOOR_TOPIC_ROOT", self.topic_root, "must be 1-32 of [A-Za-z0-9_-]")
        if not 0 <= self.http_port <= 65535:
            raise SettingsError("WATCHFLOOR_HTTP_PORT", str(self.http_port), "must be 0-65535")
        if self.num_cpus < 0:
            raise SettingsError("WATCHFLOOR_NUM_CPUS", str(self.num_cpus), "must not be negative")

    @property
    def secret_path(self) -> Path:
        """File with the key that signs tokens; in the data folder it is created 0600 by ``watchfloor up``."""
        return Path(self.secret_file) if self.secret_file else Path(self.data_dir) / "secret"

    @classmethod
    def load(cls, env: Mapping[str, str] = os.environ, file: Path | None = None) -> "Settings":
        """Return the floor's settings.

        Raises:
            SettingsError: a value cannot be used; the text names the setting and why.
        """
        return load_section(cls, env=env, file=file)


def load_section(section: type[Section], env: Mapping[str, str] = os.environ, file: Path | None = None) -> Section:
    """Build one settings dataclass from defaults, the YAML file and the environment.

    A field ``history_size`` of ``HubSettings`` is ``hub.history_size`` in the file and
    ``WATCHFLOOR_HUB_HISTORY_SIZE`` in the environment; fields of ``Settings`` itself carry
    no section name.

    Raises:
        SettingsError: unknown key in the file, or a value of the wrong type or range.
    """
    name = section_name(section)
    path = file or (Path(env["WATCHFLOOR_CONFIG"]) if env.get("WATCHFLOOR_CONFIG") else None)
    from_file = _read_file(path, name) if path else {}
    hints = typing.get_type_hints(section)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, section))}
    for key in from_file:
        if key not in fields and not (name == "" and isinstance(from_file[key], dict)):
            raise SettingsError(f"{name}.{key}".lstrip("."), str(from_file[key]), "no such setting")
    values: dict[str, Any] = {}
    for field in fields:
        variable = env_name(section, field)
        if env.get(variable, "") != "":
            values[field] = _parse(variable, env[variable], hints[field])
        elif field in from_file:
            values[field] = _parse(f"{name}.{field}".lstrip("."), str(from_file[field]), hints[field])
    try:
        return section(**values)
    except ValueError as error:
        raise SettingsError(name or "settings", "", str(error)) from error


def section_name(section: type) -> str:
    """Return ``hub`` for ``HubSettings`` and the empty string for ``Settings``."""
    stem = section.__name__.removesuffix("Settings")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()


def env_name(section: type, field: str) -> str:
    """Return the environment variable of one field."""
    name = section_name(section)
    if not name and field.upper() in UNPREFIXED:
        return field.upper()
    return PREFIX + (f"{name}_{field}" if name else field).upper()


def _read_file(path: Path, name: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError("WATCHFLOOR_CONFIG", str(path), str(error)) from error
    if not isinstance(content, dict):
        raise SettingsError("WATCHFLOOR_CONFIG", str(path), "must hold a mapping")
    if not name:
        return content
    part = content.get(name, {})
    if not isinstance(part, dict):
        raise SettingsError(name, str(part), "must be a mapping")
    return part


def _parse(name: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise SettingsError(name, text, "must be true or false")
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return kind(text)
    except (TypeError, ValueError) as error:
        raise SettingsError(name, text, f"must be of type {kind.__name__}") from error
