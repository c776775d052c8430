"""HAProxy with Unix sockets: what is rewritten, and what a replica opens."""

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from cluster.ports import LOOPBACK
from serve_apps.haproxy import (
    BINARY_VARIABLE,
    SOCKET_VARIABLE,
    is_listening,
    replica_socket,
    rewritten,
    with_sockets,
    write_program,
)
from serve_apps.replica_socket import listen_beside_tcp

CONFIG = """
backend http-gateway
    server replica-a 127.0.0.1:20001 check observe layer4 error-limit 3 on-error mark-down
    server replica-b 127.0.0.1:20002 check
    server replica-c 10.0.0.7:20001 check
    server fallback 127.0.0.1:20003 check backup
frontend prometheus
    bind 127.0.0.1:20001
"""


def test_servers_that_listen_at_their_socket_are_reached_there() -> None:
    """Others, servers of other machines and what HAProxy binds itself keep their ports."""
    folder = Path("/run/wf/h")
    seen: list[Path] = []

    def listens(path: Path) -> bool:
        seen.append(path)
        return path.name == "20001.sock"

    written = with_sockets(CONFIG, folder, listens)

    assert "server replica-a unix@/run/wf/h/20001.sock check observe layer4" in written
    assert written.replace("unix@/run/wf/h/20001.sock", "127.0.0.1:20001") == CONFIG
    assert seen == [folder / f"{port}.sock" for port in (20001, 20002, 20003)]


def test_a_file_without_a_listener_is_no_socket(tmp_path: Path) -> None:
    """A killed replica leaves its file behind, and another one may get its port."""
    path = replica_socket(tmp_path, 20001)
    assert not is_listening(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert is_listening(path)
    assert path.exists()
    assert not is_listening(path)


def test_arguments_name_the_copy(tmp_path: Path) -> None:
    """Serve's own file is left as it was; all other words are HAProxy's."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)

    assert rewritten(["-db", "-f", str(config), "-sf", "7"], tmp_path) == ["-db", "-f", f"{config}.sockets", "-sf", "7"]
    assert config.read_text() == (tmp_path / "haproxy.cfg.sockets").read_text() == CONFIG


def test_the_program_becomes_haproxy(tmp_path: Path) -> None:
    """It is executable, private, and has HAProxy's process and exit status."""
    program = write_program(tmp_path / "h")

    env = os.environ | {SOCKET_VARIABLE: str(tmp_path / "h" / "a.sock"), BINARY_VARIABLE: str(program)}

    ran = subprocess.run([program, "-v"], env=env, capture_output=True, timeout=30)

    assert stat.S_IMODE(program.stat().st_mode) == stat.S_IMODE((tmp_path / "h").stat().st_mode) == 0o700
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(b"HAProxy version")


@pytest.fixture
def startup() -> Iterator[None]:
    """Give uvicorn its own start back."""
    before = uvicorn.Server.startup
    yield
    uvicorn.Server.startup = before  # type: ignore[method-assign]


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.usefixtures("startup")
@pytest.mark.parametrize("has_folder", [True, False])
async def test_a_server_answers_at_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_folder: bool) -> None:
    """And at its port alone where the socket cannot be."""
    monkeypatch.setenv(SOCKET_VARIABLE, str((tmp_path if has_folder else tmp_path / "none") / "a.sock"))
    listen_beside_tcp()
    listen_beside_tcp()
    tcp = socket.socket()
    tcp.bind((LOOPBACK, 0))
    port = tcp.getsockname()[1]
    replica_socket(tmp_path, port).touch()  # of a dead one
    server = uvicorn.Server(uvicorn.Config(hello, lifespan="off", log_config=None))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)  # as ``serve`` does
    await server.startup(sockets=[tcp])
    try:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{LOOPBACK}:{port}/")).text == "hello"
        if has_folder:
            transport = httpx.AsyncHTTPTransport(uds=str(replica_socket(tmp_path, port)))
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("http://replica/")).text == "hello"
        else:
            assert len(server.servers) == 1
    finally:
        await server.shutdown(sockets=[tcp])
