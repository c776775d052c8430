"""A whole running floor in the hands of a test, used as its users do: by the command line.

Starts nothing at import. Invariant: a floor of a test lives in the folder that it was given
and is addressed by nothing else.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Floor:
    """A whole running floor, as ``watchfloor up`` starts it."""

    url: str
    data_dir: Path
    up_said: str = ""
    """What the command that started it printed."""

    def cli(self, *arguments: str, timeout_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run the ``watchfloor`` command against this floor."""
        return watchfloor(self.data_dir, *arguments, timeout_s=timeout_s)

    def token(self, user: str = "local", role: str = "admin", tenant: str | None = None) -> str:
        """Return a signed token."""
        more = ("--tenant", tenant) if tenant else ()
        return self._said("token", "--user", user, "--role", role, *more)

    def signin_url(self) -> str:
        """Return a sign-in link that works once."""
        return self._said("token", "--link")

    def status(self) -> dict[str, Any]:
        """Return what ``watchfloor status --json`` says."""
        content: dict[str, Any] = json.loads(self._said("status", "--json"))
        return content

    def env(self) -> dict[str, str]:
        """Return the environment that ``eval "$(watchfloor env)"`` gives a shell."""
        shell = subprocess.run(
            ["bash", "-c", f"{self._said('env')}\nenv -0"], capture_output=True, text=True, check=True, timeout=10
        )
        return dict(line.split("=", 1) for line in shell.stdout.split("\0") if "=" in line)

    def _said(self, *arguments: str) -> str:
        done = self.cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def watchfloor(
    data_dir: Path, *arguments: str, timeout_s: float = 60.0, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the ``watchfloor`` command on a data folder, as a user would."""
    program = str(Path(sys.executable).parent / "watchfloor")
    return subprocess.run(
        [program, *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **(env or {})},
    )
