"""Debian's Prometheus and Alertmanager on loopback, each for as long as a test wants it."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from cluster.ports import LOOPBACK, free_port

PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager")
PATIENCE_S = 30.0


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until ``holds``; on a busy machine too."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:.0f} s in vain: {what}") from None


@asynccontextmanager
async def prometheus(folder: Path, config: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a Prometheus with this configuration; SIGHUP makes it read its files again."""
    path = folder / "prometheus.yml"
    path.write_text(config)
    port = free_port()
    argv = [
        str(PROMETHEUS),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--rules.alert.resend-delay=1s",
    ]
    async with _running(argv, folder, f"http://{LOOPBACK}:{port}/-/ready") as process:
        yield process


@asynccontextmanager
async def alertmanager(folder: Path, config: str) -> AsyncIterator[str]:
    """Run an Alertmanager with this configuration; yields its address."""
    path = folder / "alertmanager.yml"
    path.write_text(config)
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    argv = [
        str(ALERTMANAGER),
        f"--config.file={path}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--cluster.listen-address=",
    ]
    async with _running(argv, folder, f"{url}/-/ready"):
        yield url


@asynccontextmanager
async def _running(argv: list[str], folder: Path, ready: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    log = folder / f"{Path(argv[0]).name}.log"
    process = _started(argv, log)
    try:
        async with httpx.AsyncClient() as client:

            async def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return (await client.get(ready, timeout=2.0)).is_success
                except httpx.HTTPError:
                    return False

            await until(answers, f"{argv[0]} is ready")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _started(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(argv, stdout=output, stderr=output, cwd=log.parent)
