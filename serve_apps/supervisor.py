"""The floor's supervisor: starts its parts, keeps them running, ends them all.

Knows nothing of alerts or models, and never imports Ray: the parts that need it are children.
All children are forked by the thread that runs ``run``, so the kernel ends them when this
process is killed. Invariant: after ``run`` returned, no process that carries the floor's
mark is left; after a kill -9, the next ``start`` ends what is left before anything begins.
"""

import dataclasses
import ipaddress
import json
import logging
import os
import resource
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cluster.clock import SystemClock
from cluster.embedded import MQTT, Credentials, EmbeddedService, EmbeddedSettings, mqtt_service, redis_service
from cluster.lanes import ray_resources
from cluster.ports import ALL_INTERFACES, LOOPBACK, PortBlock, is_port_free, local_host
from cluster.process import Child, ProcessIdentity, end_marked
from cluster.settings import Settings
from ingest.replay import Replay
from serve_apps.errors import BindRefusedError, FloorRunningError, FloorStartError
from serve_apps.floor_env import RUNTIME_ENV_VARIABLE, ServiceUrls, floor_env, settings_env, user_env, worker_env
from serve_apps.floor_ports import FloorPorts
from serve_apps.floor_state import FloorFolder, FloorPhase, FloorRecord, ServiceRecord, without_password
from serve_apps.full_disk import FullDisk
from serve_apps.haproxy import write_program
from serve_apps.log_bounds import bound_logs
from serve_apps.mqtt_log import refused_clients
from serve_apps.ray_head import HAPROXY_FOLDER, ray_head_argv, ray_head_env
from serve_apps.service_checks import check_set
from serve_apps.supervised import Supervised

logger = logging.getLogger(__name__)

STEP_S = 0.2
RECORD_EVERY_S = 5.0
RAY_GRACE_S = 12.0
EXTERNAL_TIMEOUT_S = 2.0
"""A service that somebody else runs should be there already."""
PORTS_PATIENCE_S = 5.0
"""How long the ports of a floor that was killed may take to become free."""
SERVICE_GRACE_S = 10.0
LEAVE_RAY_TIMEOUT_S = 60.0
"""How long a Ray that is not ours may take to drop the gateway, which drains its sockets, and the actors."""
KEPT_RAY_SESSIONS = 2

RAY = "ray"
BOOTSTRAP = "bootstrap"
DEMO = "demo"

DEMO_STAGES = ("alerts", "ready")
"""Stages of the bootstrap (``floor.py``) from which on readings lead somewhere."""


class Supervisor:
    """One floor of one data folder."""

    def __init__(self, settings: Settings, embedded: EmbeddedSettings, *, demo: bool = True) -> None:
        self.folder = FloorFolder.of(settings)
        self._settings = settings
        self._embedded = embedded
        self._demo = demo
        self._clock = SystemClock()
        self._lock: IO[str] | None = None
        self._block: PortBlock | None = None
        self._parts: dict[str, Supervised] = {}
        self._external: dict[str, ServiceRecord] = {}
        self._record: FloorRecord | None = None
        self._recorded_s = 0.0
        self._env: dict[str, str] = {}
        self._full_disk = FullDisk(self._free_bytes)

    @property
    def record(self) -> FloorRecord:
        """The floor as others read it in ``floor.json``."""
        assert self._record is not None, "start() was not called"
        return self._record

    def start(self) -> None:
        """Start every part and return at once; ``run`` then brings the floor up.

        Raises:
            FloorRunningError: it runs already.
            BindRefusedError: it would listen beyond this machine without credentials.
            FloorFolderError, ServiceUnavailableError, SettingsError, OSError: it cannot start.
        """
        refuse_open_bind(self._settings)
        check_set(self._settings, EXTERNAL_TIMEOUT_S)
        self.folder.prepare(self._settings.secret_path if self._settings.secret_file else self.folder.path / "secret")
        bound_logs(self.folder.logs)
        previous = self.folder.read()
        self._lock = self.folder.lock()
        if self._lock is None:
            raise FloorRunningError(previous.url if previous else "", previous.supervisor.pid if previous else 0)
        clear_leftovers(previous)
        self._block = PortBlock.reserve(previous.port_block if previous else None, patience_s=PORTS_PATIENCE_S)
        ports = FloorPorts.take(self._block, self._settings.http_port)
        if not is_port_free(ports.http, self._settings.http_host):
            raise FloorStartError("page", f"port {ports.http} of {self._settings.http_host} is taken")
        sockets = self.folder.socket_folder()
        forget_old_sessions(sockets / "r")
        shutil.rmtree(sockets / HAPROXY_FOLDER, ignore_errors=True)
        write_program(sockets / HAPROXY_FOLDER)
        services = self._embedded_services(ports)
        urls = self._urls(ports, services)
        floor_id = secrets.token_hex(16)
        max_files = raise_file_limit()
        self._env = floor_env(
            os.environ,
            self._settings,
            urls,
            floor_id=floor_id,
            data_dir=self.folder.path,
            http_port=ports.http,
            ray_token=self._ray_token(),
            ray={} if urls.is_foreign_ray else ray_head_env(ports, sockets, max_files),
        )
        self._record = FloorRecord(
            floor_id=floor_id,
            phase="starting",
            supervisor=_this_process(),
            url=f"http://{_shown_host(self._settings.http_host)}:{ports.http}",
            port_block=self._block.index,
            socket_folder=str(sockets),
            started_at=self._clock.time_s(),
            env=user_env(urls, self._ray_token()) | self._joining_env(),
            urls=settings_env(self._settings, urls, data_dir=self.folder.path, http_port=ports.http),
        )
        # Written before the first child exists: its mark is what finds them after a kill -9.
        self._write()
        self._plan(services, ports, sockets)
        for name, part in self._parts.items():
            if name != DEMO:
                part.launch()
        self._write()

    def run(self, should_stop: Callable[[], bool], on_change: Callable[[FloorRecord], None]) -> None:
        """Keep the floor running until ``should_stop``, then end all of it.

        Args:
            should_stop: asked five times a second.
            on_change: told after each turn; draws or logs, must return quickly.

        Raises:
            FloorStartError: the floor could not come up; all that was started has ended.
        """
        try:
            while not should_stop():
                self.step()
                on_change(self.record)
                time.sleep(STEP_S)
        finally:
            # A floor that failed keeps saying why; every other one says that it was ended.
            failed = self.record.phase == "failed"
            if not failed:
                self._set_phase("stopping")
                on_change(self.record)
            self.stop()
            self._set_phase("failed" if failed else "stopped")
            on_change(self.record)

    def step(self) -> None:
        """Look once at every part."""
        changed = False
        for name, part in self._parts.items():
            before = (part.state, part.restarts)
            if not part.step():
                continue
            changed = True
            if name == RAY and part.restarts != before[1]:
                # Actors and replicas went with the old head.
                self._parts[BOOTSTRAP].stop(2.0)
                self._parts[BOOTSTRAP].launch()
            if name == BOOTSTRAP:
                self._after_bootstrap(part)
        if MQTT in self._parts and self._full_disk.has_ended():
            logger.warning("the disk was full and has room again: the broker is started anew")
            self._parts[MQTT].begin_anew()
        changed |= self._launch_demo_when_alerts_flow()
        if changed or self._clock.monotonic_s() - self._recorded_s > RECORD_EVERY_S:
            self._write()
            bound_logs(self.folder.logs)

    def stop(self, grace_s: float = SERVICE_GRACE_S) -> None:
        """End every part: who produces first, the stores last."""
        for name in (DEMO, BOOTSTRAP, RAY):
            if name in self._parts:
                self._parts[name].terminate()
        for name in (DEMO, BOOTSTRAP):
            if name in self._parts:
                self._parts[name].stop(2.0)
        if RAY in self._parts:
            self._parts[RAY].stop(RAY_GRACE_S)
        elif BOOTSTRAP in self._parts:
            self._leave_ray()
        # Workers lead groups of their own and HAProxy may outlive its actor; only then the stores.
        services = [part for name, part in self._parts.items() if name not in (DEMO, BOOTSTRAP, RAY)]
        if self._record is not None:
            end_marked(self._record.floor_id, 2.0, spare=self._service_groups())
        for part in services:
            part.terminate()
        for part in services:
            part.stop(grace_s)
        if self._record is not None:
            end_marked(self._record.floor_id, 2.0)
        for held in (self._block, self._lock):
            if held is not None:
                held.close()

    def _embedded_services(self, ports: FloorPorts) -> list[EmbeddedService]:
        credentials = Credentials.load_or_create(self.folder.path)
        services = []
        if not self._settings.mqtt_url:
            services.append(mqtt_service(self.folder.path, ports.mqtt, credentials, self._embedded))
        if not self._settings.redis_url:
            services.append(redis_service(self.folder.path, ports.redis, credentials, self._embedded))
        return services

    def _urls(self, ports: FloorPorts, services: list[EmbeddedService]) -> ServiceUrls:
        own = {service.name: service.url for service in services}
        settings = self._settings
        for name, url in (
            ("mqtt", settings.mqtt_url),
            ("redis", settings.redis_url),
            ("database", settings.database_url),
            ("storage", settings.storage_url),
            (RAY, settings.ray_address),
        ):
            if url:
                self._external[name] = ServiceRecord(state="external", detail=without_password(url))
        self._external.setdefault("database", ServiceRecord(state="running", detail="SQLite in the data folder"))
        self._external.setdefault("storage", ServiceRecord(state="running", detail="a folder in the data folder"))
        dashboard = f"http://{LOOPBACK}:{ports.ray_dashboard}"
        return ServiceUrls(
            mqtt=settings.mqtt_url or own["mqtt"],
            redis=settings.redis_url or own["redis"],
            database=self.folder.database_url(settings),
            storage=self.folder.storage_url(settings),
            ray=settings.ray_address or f"{LOOPBACK}:{ports.ray_gcs}",
            dashboard=os.environ.get("RAY_API_SERVER_ADDRESS", "") if settings.ray_address else dashboard,
            is_foreign_ray=bool(settings.ray_address),
        )

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.folder.path).free

    def _joining_env(self) -> dict[str, str]:
        """Return what ``watchfloor env`` prints besides the way to Ray."""
        env = {"WATCHFLOOR_DATA_DIR": str(self.folder.path)}
        if self._settings.ray_address:
            env[RUNTIME_ENV_VARIABLE] = json.dumps({"env_vars": worker_env(self._env)})
        return env

    def _ray_token(self) -> Path:
        given = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
        return Path(given) if self._settings.ray_address and given else self.folder.ray_token

    def _plan(self, services: list[EmbeddedService], ports: FloorPorts, sockets: Path) -> None:
        for service in services:
            self._parts[service.name] = Supervised(
                service.name,
                lambda service=service: service.start(self._env),  # type: ignore[misc]
                is_ready=service.is_ready,
                clock=self._clock,
                detail=lambda service=service: self._service_detail(service),  # type: ignore[misc]
            )
        if not self._settings.ray_address:
            argv = ray_head_argv(ports, sockets, num_cpus=self._settings.num_cpus, resources=ray_resources())
            self._parts[RAY] = Supervised(
                RAY,
                lambda: self._start_ray(argv),
                is_ready=lambda: _accepts(LOOPBACK, ports.ray_gcs) and _accepts(LOOPBACK, ports.ray_dashboard),
                clock=self._clock,
                detail=lambda: f"dashboard {LOOPBACK}:{ports.ray_dashboard}",
            )
        self._parts[BOOTSTRAP] = Supervised(
            BOOTSTRAP, self._start_bootstrap, is_ready=lambda: False, clock=self._clock, once=True
        )
        if self._demo:
            self._parts[DEMO] = Supervised(
                DEMO,
                lambda: self._child(DEMO, [sys.executable, "-P", "-m", "ingest.simulate"], nice=5),
                is_ready=lambda: True,
                clock=self._clock,
                detail=lambda: f"recorded telemetry: {Replay()}",
            )

    def _child(self, name: str, argv: list[str], nice: int = 0) -> Child:
        # In the data folder, so that nothing of the caller's own folder shadows our packages.
        log_path = self.folder.logs / f"{name}.log"
        return Child.start(name, argv, log_path=log_path, env=self._env, cwd=self.folder.path, nice=nice)

    def _start_ray(self, argv: list[str]) -> Child:
        if self._parts[RAY].restarts:
            # What is left of the old head (HAProxy outlives its actor) would keep the ports.
            end_marked(self.record.floor_id, 2.0, spare=self._service_groups())
        return self._child(RAY, argv)

    def _start_bootstrap(self) -> Child:
        self.folder.bootstrap_result.unlink(missing_ok=True)
        argv = [sys.executable, "-P", "-m", "serve_apps.floor", "--result", str(self.folder.bootstrap_result)]
        return self._child(BOOTSTRAP, [*argv, *(["--foreign-ray"] if self._settings.ray_address else [])])

    def _leave_ray(self) -> None:
        child = self._child(RAY, [sys.executable, "-P", "-m", "serve_apps.foreign_ray"])
        status = child.wait(LEAVE_RAY_TIMEOUT_S)
        child.stop(1.0)
        if status != 0:
            logger.warning("something of this floor is left on its Ray, see %s", self.folder.logs / f"{RAY}.log")

    def _after_bootstrap(self, part: Supervised) -> None:
        if part.state == "done":
            self._record = dataclasses.replace(self.record, phase="ready", error="", ready_at=self._clock.time_s())
        elif part.state == "waiting":
            error = (
                self._bootstrap_said("error") or f"it ended without a word, see {self.folder.logs / 'bootstrap.log'}"
            )
            self._record = dataclasses.replace(self.record, error=error)
            if self.record.phase == "starting":
                # Nobody has used this floor yet: better to end with a clear message than to try for ever.
                self._set_phase("failed")
                raise FloorStartError("the floor did not come up", error)

    def _launch_demo_when_alerts_flow(self) -> bool:
        demo = self._parts.get(DEMO)
        if demo is None or demo.state != "stopped" or self._bootstrap_said("stage") not in DEMO_STAGES:
            return False
        demo.launch()
        return True

    def _bootstrap_said(self, key: str) -> str:
        try:
            return str(json.loads(self.folder.bootstrap_result.read_text(encoding="utf-8")).get(key, ""))
        except (OSError, ValueError):
            return ""

    def _service_detail(self, service: EmbeddedService) -> str:
        if service.name != "mqtt":
            return f"Valkey on {LOOPBACK}:{service.port}"
        refused = refused_clients(self.folder.logs / "mqtt.log")
        detail = f"NATS, MQTT 3.1.1 on {LOOPBACK}:{service.port}"
        if refused:
            detail += f"; refused MQTT 5 clients: {', '.join(refused)} (use 3.1.1, or set MQTT_URL to a broker with 5)"
        return detail

    def _service_groups(self) -> frozenset[int]:
        kept = (part.process for name, part in self._parts.items() if name not in (RAY, BOOTSTRAP))
        return frozenset(process.pid for process in kept if process is not None)

    def _set_phase(self, phase: FloorPhase) -> None:
        self._record = dataclasses.replace(self.record, phase=phase)
        self._write()

    def _write(self) -> None:
        services = self._external | {name: part.record() for name, part in self._parts.items() if name != BOOTSTRAP}
        self._record = dataclasses.replace(self.record, services=services)
        self._recorded_s = self._clock.monotonic_s()
        self.folder.write(self._record)


def clear_leftovers(previous: FloorRecord | None) -> int:
    """End what a killed supervisor left running, and return how many processes that were."""
    if previous is None or previous.phase == "stopped":
        return 0
    ended = end_marked(previous.floor_id)
    if ended:
        logger.warning("ended %d processes that a killed supervisor had left", ended)
    return ended


def refuse_open_bind(settings: Settings) -> None:
    """Refuse to listen beyond this machine unless somebody chose the key that signs tokens.

    Raises:
        BindRefusedError: the address is not a loopback one and no key file was given.
        FloorStartError: the key file cannot be used.
    """
    if settings.secret_file:
        path = Path(settings.secret_file)
        if not path.is_file() or path.stat().st_size < 32:
            raise FloorStartError("WATCHFLOOR_SECRET_FILE", f"{path} must be a file of at least 32 bytes")
    elif not _is_loopback(settings.http_host):
        raise BindRefusedError(settings.http_host)


def raise_file_limit() -> int:
    """Let this process and its children open as many files as they may, and return how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def forget_old_sessions(folder: Path) -> None:
    """Remove Ray's session folders but for the newest: their logs may still explain something."""
    if not folder.is_dir():
        return
    sessions = sorted(path for path in folder.glob("session_2*") if path.is_dir() and not path.is_symlink())
    for path in sessions[: -(KEPT_RAY_SESSIONS - 1)]:
        shutil.rmtree(path, ignore_errors=True)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown_host(host: str) -> str:
    return socket.gethostname() if host in ALL_INTERFACES else local_host(host)


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def _this_process() -> ProcessIdentity:
    identity = ProcessIdentity.of(os.getpid())
    assert identity is not None, "/proc is not mounted"
    return identity
