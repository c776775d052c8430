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
        user = _make_environment(folder)
        if user is not None:
            uid = pwd.getpwnam(user).pw_uid
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, uid, -1, follow_symlinks=False)
        return cls(folder, user)

    def shell(self, line: str, timeout_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run one line of a shell there, as its user with that user's bare environment."""
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=_bare_environment(self.folder),
            user=self.user,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def _make_environment(folder: Path) -> str | None:
    """Make a virtual environment that borrows this one's packages; return the other user if that one can use it."""
    own = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for program in (own, folder / "python" / "bin" / own.name):
        if program != own:
            # Root's Python may lie in a home folder that nobody else can enter: then a copy of it.
            left_out = shutil.ignore_patterns("site-packages", "test", "*.a", "share", "include")
            shutil.copytree(sys.base_prefix, folder / "python", symlinks=True, ignore=left_out)
        shutil.rmtree(folder / ".venv", ignore_errors=True)
        subprocess.run([str(program), "-m", "venv", "--without-pip", str(folder / ".venv")], check=True, timeout=60)
        libraries = Path(sysconfig.get_path("purelib"))
        own_libraries = folder / ".venv" / libraries.relative_to(sys.prefix)
        (own_libraries / "checkout.pth").write_text(f"{folder}\n{libraries}\n", encoding="utf-8")
        for name, module in (("watchfloor", "serve_apps.cli"), ("ray", "ray.scripts.scripts")):
            script = folder / ".venv" / "bin" / name
            script.write_text(f"#!{folder}/.venv/bin/python\nfrom {module} import main\nmain()\n", encoding="utf-8")
            script.chmod(0o755)
        (folder / ".venv" / "bin" / "nats-server").symlink_to(Path(sys.executable).parent / "nats-server")
        if os.getuid() != 0:
            return None
        if _can_import(folder, OTHER_USER):
            return OTHER_USER
    return None


def _bare_environment(folder: Path) -> dict[str, str]:
    environment = {
        "HOME": str(folder),
        "PATH": f"{folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if (folder / "python").exists():
        environment["LD_LIBRARY_PATH"] = str(folder / "python" / "lib")  # of the copied Python, if it is a shared one
    return environment


def _can_import(folder: Path, user: str) -> bool:
    """Whether ``user`` may use this installation."""
    program = str(folder / ".venv" / "bin" / "python")
    question = "import importlib.util, ssl, sys; sys.exit(importlib.util.find_spec('ray') is None)"
    try:
        asked = subprocess.run(
            [program, "-c", question],
            cwd=folder,
            env=_bare_environment(folder),
            user=user,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except PermissionError:
        return False
    return asked.returncode == 0
