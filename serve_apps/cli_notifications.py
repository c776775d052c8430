"""``watchfloor notifications``: messages to the outside that were given up."""

import json
from typing import Annotated

import typer
from rich.console import Console

from serve_apps.cli_options import AsJson, DataDir, ask

app = typer.Typer(no_args_is_help=True, help="Messages to the outside that were given up.")


@app.command("dead")
def notifications_dead(
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most of them.")] = 100,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List messages that were not delivered and are not tried any more, the newest first."""
    from serve_apps import status as command

    found = ask(data_dir, f"/api/v1/notifications/dead?limit={limit}")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(command.render_dead_messages(found))


@app.command("replay")
def notifications_replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of messages; left out: all.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Send messages that were given up once more, under the ids that they had."""
    found = ask(data_dir, "/api/v1/notifications/replay", {"ids": ids} if ids else {})
    print(json.dumps(found, indent=2) if as_json else f"{found['replayed']} messages are sent again")
