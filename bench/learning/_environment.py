"""Environments of their own for opponents, and a question and an answer a line with a process in one.

An environment is made at its first use, in a cache folder, from the package index that pip is set up
for. Arrays travel as base64 of float32, so that both sides see the same numbers whatever their numpy.
"""

import base64
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "watchfloor-bench"
PACKAGES = {
    "modal": ("modAL-python==0.4.2.1", "scikit-learn==1.5.2"),
    "skactiveml": ("scikit-activeml==1.0.0",),
}
SCRIPT = Path(__file__).with_name("_opponents.py")


class Environment:
    """One process with its own packages, asked one question at a time; a context manager."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            # -P: this folder has modules named as the standard library has them.
            [python_of(name), "-P", "-W", "ignore", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # One thread a process, as ours.
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> "Environment":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def ask(self, **question: Any) -> list[NDArray[np.float32]]:
        """Return the arrays of an answer; arrays in the question are encoded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        ready = {key: encoded(value) if isinstance(value, np.ndarray) else value for key, value in question.items()}
        self._process.stdin.write(json.dumps(ready) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the opponent's process ended with {self._process.wait(10)}")
        return [decoded(one) for one in json.loads(line)]


def encoded(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as a line can carry it."""
    return {"shape": array.shape, "base64": base64.b64encode(array.astype("<f4").tobytes()).decode()}


def decoded(one: dict[str, Any]) -> NDArray[np.float32]:
    """Return what ``encoded`` was given, as float32."""
    return np.frombuffer(base64.b64decode(one["base64"]), dtype="<f4").reshape(one["shape"])


def python_of(name: str) -> str:
    """Return the interpreter of an environment, making it if need be; one process at a time may."""
    folder = FOLDER / name
    done = folder / "installed"
    python = folder / "bin" / "python"
    wanted = "\n".join(PACKAGES[name])
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        print(f"   making the environment of {name} in {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *PACKAGES[name]], check=True)
        done.write_text(wanted, encoding="utf-8")
    return str(python)
