"""The environment in which a floor's processes run, and the part of it that people get.

Starts nothing. Invariant: every process of a floor sees resolved URLs by
``Settings.load()``, carries the floor's mark, and finds our Python first on PATH.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.process import MARK
from cluster.settings import PREFIX, SERVICE_URLS, Settings

AUTH_MODE = "token"

FILES = (
    "WATCHFLOOR_CONFIG",
    "WATCHFLOOR_RULES_FILE",
    "WATCHFLOOR_WEBHOOK_SECRET_FILE",
    "WATCHFLOOR_ALERTMANAGER_TOKEN_FILE",
)
"""Settings that name a file: the floor's processes work in a folder of their own."""

RUNTIME_ENV_VARIABLE = "WATCHFLOOR_RUNTIME_ENV"
"""Runtime environment for jobs on a Ray that is not ours, as JSON; it names passwords."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrls:
    """Where the floor's services are, embedded or not."""

    mqtt: str
    redis: str
    database: str
    storage: str
    ray: str
    """``host:port`` of the GCS."""
    dashboard: str
    """Address of the Jobs API; empty when the Ray is not ours and none is set."""
    is_foreign_ray: bool = False
    """Somebody else runs the Ray."""


def floor_env(
    base: Mapping[str, str],
    settings: Settings,
    urls: ServiceUrls,
    *,
    floor_id: str,
    data_dir: Path,
    http_port: int,
    ray_token: Path,
    ray: Mapping[str, str],
) -> dict[str, str]:
    """Return the whole environment of the floor's processes."""
    env = dict(base)
    # Of another virtual environment or project; ours says by itself where its packages are.
    for name in ("PYTHONPATH", "PYTHONHOME", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        env.pop(name, None)
    # A dozen processes would each compile the same modules at every start.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env |= {
        MARK: floor_id,
        "PATH": f"{Path(sys.executable).parent}:{base.get('PATH', '/usr/bin:/bin')}",
        "PYTHONUNBUFFERED": "1",
        # Ray renames its workers, which would overwrite the environment that the mark is read from.
        "SPT_NOENV": "1",
    }
    return (
        env
        | settings_env(settings, urls, data_dir=data_dir, http_port=http_port)
        | user_env(urls, ray_token)
        | dict(ray)
    )


def settings_env(settings: Settings, urls: ServiceUrls, *, data_dir: Path, http_port: int) -> dict[str, str]:
    """Return the resolved settings, as ``Settings.load`` reads them."""
    env = {
        "MQTT_URL": urls.mqtt,
        "REDIS_URL": urls.redis,
        "DATABASE_URL": urls.database,
        "STORAGE_URL": urls.storage,
        "WATCHFLOOR_DATA_DIR": str(data_dir),
        "WATCHFLOOR_HTTP_HOST": settings.http_host,
        "WATCHFLOOR_HTTP_PORT": str(http_port),
        "WATCHFLOOR_LOG_LEVEL": settings.log_level,
        "WATCHFLOOR_TOPIC_ROOT": settings.topic_root,
    }
    if settings.secret_file:
        env["WATCHFLOOR_SECRET_FILE"] = str(Path(settings.secret_file).resolve())
    for name in FILES:
        if path := os.environ.get(name):
            env[name] = str(Path(path).resolve())
    return env


def worker_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return what of a floor process's environment must be given to processes of a Ray that is not ours.

    Without the mark: those processes end with their Ray's actors and jobs, not by the supervisor's signals.
    """
    left_out = {MARK, RUNTIME_ENV_VARIABLE, "RAY_ADDRESS"}
    wanted = {*SERVICE_URLS, "RAY_API_SERVER_ADDRESS", *(name for name in env if name.startswith(PREFIX))}
    return {name: env[name] for name in sorted(wanted - left_out) if env.get(name)}


def user_env(urls: ServiceUrls, ray_token: Path) -> dict[str, str]:
    """Return what ``watchfloor env`` prints: enough for ``ray job submit`` and for ``ray.init()``."""
    env = {
        "RAY_ADDRESS": urls.ray,
        "RAY_AUTH_MODE": AUTH_MODE,
        "RAY_AUTH_TOKEN_PATH": str(ray_token),
    }
    if not urls.is_foreign_ray:
        # A driver finds its node by address; see ray_head.py for what this switch does.
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if urls.dashboard:
        env["RAY_API_SERVER_ADDRESS"] = urls.dashboard
    return env
