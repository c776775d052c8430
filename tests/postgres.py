"""A real PostgreSQL of a test's own: a cluster in a folder below /tmp, on a free loopback port.

It runs as somebody who is not root, since PostgreSQL refuses root. Its disk is not waited
for (``fsync=off``): a kill of the server loses nothing by that, only a crash of the machine.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from cluster.ports import LOOPBACK, free_port
from cluster.process import Child, ProcessIdentity, send

USER = "watchfloor"
ACCOUNT = "postgres"
"""Debian's account for it; used when the tests run as root."""
MIGRATED = "migrated"
"""Database with the newest schema, to be copied."""
START_S = 30.0


def find_postgres() -> Path | None:
    """Return the folder of the newest server's programs; None when there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("postgres")
    return Path(found).parent if found else None


class Postgres:
    """One server; a test may kill it, stop its processes, and start it again on the same data."""

    def __init__(self, folder: Path, port: int) -> None:
        programs = find_postgres()
        assert programs is not None, "PostgreSQL is not installed"
        self.port = port
        self._programs = programs
        self._folder = folder
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """What both psycopg and SQLAlchemy read, without the database."""
        return f"{USER}@{LOOPBACK}:{self.port}"

    def url(self, database: str) -> str:
        """Return the URL of a database for SQLAlchemy."""
        return f"postgresql+psycopg://{self.address}/{database}"

    def create_cluster(self) -> None:
        """Make the data folder, once."""
        data = str(self._folder / "data")
        options = ("--no-sync", "--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C")
        subprocess.run(
            [*_as_nobody(), str(self._programs / "initdb"), "-D", data, *options],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        give_up_at_s = time.monotonic() + START_S
        while True:
            self._child = Child.start("postgres", self._argv(), log_path=self._folder / "log")
            while self._child.poll() is None:
                if self._answers():
                    return
                assert time.monotonic() < give_up_at_s, (self._folder / "log").read_text()
                time.sleep(0.02)
            # Just killed: its last back-end still holds the shared memory.
            assert time.monotonic() < give_up_at_s, (self._folder / "log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to the server and all its back-ends, as when a machine goes."""
        assert self._child is not None
        for process in self._processes():
            send(process, signal.SIGKILL)
        self._child.wait(5.0)

    def pause(self) -> None:
        """SIGSTOP to all of it: connections stay open and nothing answers."""
        for process in self._processes():
            send(process, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        for process in self._processes():
            send(process, signal.SIGCONT)

    def stop(self) -> None:
        """End it, whoever is connected."""
        if self._child is None:
            return
        self.resume()
        send(self._child.identity, signal.SIGINT)
        if self._child.wait(10.0) is None:
            self.kill()
        self._child = None

    def execute(self, statement: sql.Composed | sql.SQL) -> None:
        """Run one administrative statement."""
        with psycopg.connect(f"postgresql://{self.address}/postgres", autocommit=True) as connection:
            connection.execute(statement)

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database and return its URL."""
        statement = "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY"
        self.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def lend_database(self, template: str = "template1") -> Iterator[str]:
        """Yield the URL of a new database, and drop it afterwards, whoever is connected."""
        name = f"t{uuid.uuid4().hex[:12]}"
        try:
            yield self.create_database(name, template)
        finally:
            self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _argv(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK, "port": self.port, "unix_socket_directories": "", "fsync": "off",
            "shared_buffers": "16MB", "max_connections": 60, "autovacuum": "off", "log_min_messages": "fatal",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*_as_nobody(), str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options]

    def _answers(self) -> bool:
        try:
            psycopg.connect(f"postgresql://{self.address}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _processes(self) -> list[ProcessIdentity]:
        """The server and its back-ends, the server first: so it replaces none of them."""
        assert self._child is not None
        found = [self._child.identity]
        tasks = Path(f"/proc/{self._child.identity.pid}/task")
        for children in tasks.glob("*/children"):
            found += [one for pid in children.read_text().split() if (one := ProcessIdentity.of(int(pid)))]
        return found


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """A new server for as long as the context lasts."""
    # Not below pytest's folder, which nobody but its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="wf-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, ACCOUNT, ACCOUNT)
    server = Postgres(folder, free_port())
    try:
        server.create_cluster()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _as_nobody() -> list[str]:
    if os.geteuid() != 0:
        return []
    # The death signal that Child asks for is dropped by a change of user, so it is asked for again.
    return ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", "--pdeathsig", "TERM"]
