"""``watchfloor dead-letters``: what devices sent that could not be used, and trying it again."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from serve_apps.cli_options import AsJson, DataDir, fail, running, settings_of

app = typer.Typer(no_args_is_help=True, help="What devices sent that could not be used, and trying it again.")

Reason = Annotated[str | None, typer.Option(help="Only those set aside for this reason.")]
TopicStart = Annotated[str | None, typer.Option(help="Only those whose topic begins so.")]


@app.command("list")
def dead_letters_list(
    reason: Reason = None,
    topic: TopicStart = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="Those that were used after all.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List dead letters, the newest first."""
    from serve_apps import dead_letter_line as line

    settings = settings_of(data_dir)
    filters = {"reason": reason, "topic": topic, "replayed": "true" if replayed else None}
    try:
        found = line.find(settings, running(settings), max(1, limit), **filters)
    except line.DeadLetterLineError as error:
        fail(str(error))
    if as_json:
        print(json.dumps({"items": found}, indent=2))
    else:
        Console().print(line.render_list(found))


@app.command("show")
def dead_letters_show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="As `dead-letters list` prints it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show one dead letter with its payload."""
    from serve_apps import dead_letter_line as line

    settings = settings_of(data_dir)
    try:
        found = line.show(settings, running(settings), letter)
    except line.DeadLetterLineError as error:
        fail(str(error))
    print(json.dumps(found, indent=2) if as_json else line.render_letter(found))


@app.command("replay")
def dead_letters_replay(
    letters: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="These letters.")] = None,
    reason: Reason = None,
    topic: TopicStart = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Try dead letters again, as after a repair; exit status 1 when some are refused again."""
    from serve_apps import dead_letter_line as line

    if bool(letters) == bool(reason or topic or everything):
        fail("say which: ids, or --reason, --topic or --all")
    settings = settings_of(data_dir)
    filters = {"reason": reason, "topic": topic, "all": everything or None}
    try:
        done = line.replay(settings, running(settings), letters or [], **filters)
    except line.DeadLetterLineError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(done, indent=2))
    else:
        print(", ".join(f"{count} {outcome}" for outcome, count in done["counts"].items()))
        for item in done["items"]:
            if item["outcome"] == "refused":
                print(f"{item['id']}: {item['reason']} {item['detail']}".rstrip())
    if done["counts"]["refused"]:
        sys.exit(1)
