"""A second checkout of the project, for another user where there is one.

The copy has a virtual environment of its own, which borrows the packages of the one that
runs the tests: nothing is installed. Invariant: nothing of it is found by way of the first
checkout, nor by anything in this process's environment.
"""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cluster", "realtime", "ingest", "training", "serve_apps")
OTHER_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with the project, and whose it is."""

    folder: Path
    user: str | None
    """None: the user that runs the tests."""

    @classmethod
    def create(cls, folder: Path) -> "Checkout":
        """Copy the project into ``folder``, which every user must be able to reach."""
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        venv.create(folder / ".venv", symlinks=True)
        libraries = Path(sysconfig.get_path("purelib"))
        own_libraries = folder / ".venv" / libraries.relative_to(sys.prefix)
        (own_libraries / "checkout.pth").write_text(f"{folder}\n{libraries}\n", encoding="utf-8")
        for program in ("watchfloor", "ray"):
            module, name = ("serve_apps.cli", "main") if program == "watchfloor" else ("ray.scripts.scripts", "main")
            script = folder / ".venv" / "bin" / program
            script.write_text(f"#!{folder}/.venv/bin/python\nfrom {module} import {name}\n{name}()\n", encoding="utf-8")
            script.chmod(0o755)
        user = OTHER_USER if os.getuid() == 0 and _can_import(folder, OTHER_USER) else None
        if user is not None:
            uid = pwd.getpwnam(user).pw_uid
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, uid, -1, follow_symlinks=False)
        return cls(folder, user)

    def shell(self, line: str, timeout_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run one line of a shell there, as its user with that user's bare environment."""
        environment = {
            "HOME": str(self.folder),
            "PATH": f"{self.folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=environment,
            user=self.user,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def _can_import(folder: Path, user: str) -> bool:
    """Whether ``user`` may read this installation: a home folder of root's is closed to all others."""
    program = str(folder / ".venv" / "bin" / "python")
    asked = subprocess.run(
        [program, "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('ray') is None)"],
        cwd=folder,
        env={"HOME": str(folder)},
        user=user,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return asked.returncode == 0
