"""What the commands of ``watchfloor`` share: their options, the running floor, and how they fail.

Holds no command. Invariant: whatever goes wrong is one sentence on standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.error import HTTPError

import typer

from cluster.settings import Settings
from serve_apps.floor_state import FloorFolder, FloorRecord

EXIT_MISTAKE = 2
EXIT_NOT_RUNNING = 3

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the floor's state; default .watchfloor.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]


def settings_of(data_dir: Path | None) -> Settings:
    """Return the settings, with the folder that was named."""
    environment = dict(os.environ)
    if data_dir is not None:
        environment["WATCHFLOOR_DATA_DIR"] = str(data_dir)
    return Settings.load(environment)


def running(settings: Settings) -> FloorRecord:
    """Return the record of the floor that runs there; ends the command when there is none."""
    record = FloorFolder.of(settings).read()
    if record is None or not record.is_running:
        print(f"no floor is running in {FloorFolder.of(settings).path}; start one with: watchfloor up", file=sys.stderr)
        sys.exit(EXIT_NOT_RUNNING)
    return record


def ask(data_dir: Path | None, path: str, body: Any = None) -> Any:
    """Ask the running floor; what it refuses is one sentence."""
    from serve_apps import status as command

    settings = settings_of(data_dir)
    try:
        return command.call_api(settings, running(settings), path, body)
    except HTTPError as error:
        fail(_refusal(error))
    except (OSError, ValueError) as error:
        fail(f"the floor does not answer: {error}")


def _refusal(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the floor refuses: {error}"


def fail(text: str) -> NoReturn:
    """End the command with a sentence."""
    print(f"watchfloor: {text}", file=sys.stderr)
    sys.exit(EXIT_MISTAKE)
