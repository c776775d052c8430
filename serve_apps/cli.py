"""The ``watchfloor`` command: starts a floor, ends it, and asks it questions.

Holds no logic of its own. Invariant: what scripts read goes to standard output and only
there; a mistake or a missing service is one sentence on standard error and exit status 2.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from cluster.errors import ClusterError
from cluster.settings import Settings
from serve_apps.floor_state import FloorFolder, FloorRecord

EXIT_MISTAKE = 2
EXIT_NOT_RUNNING = 3

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=(
    "Device events become alerts that people act on; what people decide becomes better models."
))  # fmt: skip

dead_letters = typer.Typer(no_args_is_help=True, help="What devices sent that could not be used, and trying it again.")
app.add_typer(dead_letters, name="dead-letters")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the floor's state; default .watchfloor.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when the floor is ready; it goes on.")] = False,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Replay recorded telemetry as devices.")] = True,
    data_dir: DataDir = None,
) -> None:
    """Start the floor and keep it running; Ctrl-C ends all that it started."""
    from serve_apps import up as command

    settings = _settings(data_dir)
    folder = FloorFolder.of(settings)
    record = folder.read()
    if record is not None and record.is_running:
        _say_running(settings, record)
        return
    sys.exit(command.detached(settings, demo=demo) if detach else command.foreground(settings, demo=demo))


@app.command()
def down(data_dir: DataDir = None) -> None:
    """End the floor; returns when nothing of it is left."""
    from serve_apps import up as command

    ended = command.down(FloorFolder.of(_settings(data_dir)))
    print("the floor has ended" if ended else "no floor is running here")


@app.command()
def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what the floor is doing."""
    from serve_apps import status as command

    found = command.collect(_settings(data_dir))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(command.render(found))
    if found["phase"] in ("stopped", "killed", "failed"):
        sys.exit(EXIT_NOT_RUNNING)


@app.command()
def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Check the installation and the running floor; exit status 1 when something is wrong."""
    from serve_apps import doctor as command

    findings = command.examine(_settings(data_dir))
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        Console().print(command.render(findings))
    sys.exit(1 if any(finding.level == "error" for finding in findings) else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def simulate(context: typer.Context, data_dir: DataDir = None) -> None:
    """Replay the recorded series as devices; further options go to python -m ingest.simulate."""
    settings = _settings(data_dir)
    environment = dict(os.environ)
    if not settings.mqtt_url:
        environment |= _running(settings).urls
    sys.exit(subprocess.call([sys.executable, "-P", "-m", "ingest.simulate", *context.args], env=environment))


@app.command()
def token(
    user: Annotated[str, typer.Option(help="User id.")] = "local",
    role: Annotated[list[str] | None, typer.Option(help="viewer, operator, engineer or admin; repeatable.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant; left out: the whole floor.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group whose messages the user gets; repeatable.")] = None,
    hours: Annotated[float, typer.Option(help="Hours until it expires.")] = 12.0,
    channel: Annotated[str | None, typer.Option(help="A token that only lets the user listen to this channel.")] = None,
    link: Annotated[bool, typer.Option("--link", help="A sign-in link, valid once and for ten minutes.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Print a signed token for the HTTP API and the SDKs, for one channel, or a sign-in link."""
    from serve_apps import status as command
    from serve_apps.auth import issue_channel_token, issue_signin_key, issue_token

    settings = _settings(data_dir)
    if channel is not None and (role or group or link):
        _fail("--channel goes with --user, --tenant and --hours only: such a token gives no role")
    try:
        secret = command.read_secret(settings)
        roles = role or ["admin"]
        if channel is not None:
            print(issue_channel_token(secret, sub=user, tenant=tenant, channel=channel, ttl_s=hours * 3600))
        elif link:
            url = _running(settings).url
            key = issue_signin_key(secret, sub=user, tenant=tenant, roles=roles, groups=group or ())
            print(f"{url}/signin?key={key}")
        else:
            print(issue_token(secret, sub=user, tenant=tenant, roles=roles, groups=group or (), ttl_s=hours * 3600))
    except (OSError, ValueError) as error:
        _fail(str(error))


@app.command()
def env(data_dir: DataDir = None) -> None:
    """Print the shell lines that point ray and python at this floor: eval "$(watchfloor env)"."""
    record = _running(_settings(data_dir))
    for name, value in sorted(record.env.items()):
        print(f"export {name}={shlex.quote(value)}")
    # A driver must run the floor's Python and Ray, whatever else is installed.
    print(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')


@app.command()
def lanes(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show each lane: what runs, what waits and for what."""
    from serve_apps import status as command

    settings = _settings(data_dir)
    try:
        found = command.call_api(settings, _running(settings), "/api/v1/lanes")
    except (OSError, ValueError) as error:
        _fail(f"the floor does not answer: {error}")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(command.render_lanes(found))


@app.command()
def drain(
    over: Annotated[float, typer.Option(help="Seconds over which the sockets are closed.")] = 20.0,
    hold: Annotated[float, typer.Option(help="Seconds for which newcomers are sent away.")] = 60.0,
    data_dir: DataDir = None,
) -> None:
    """Close all client sockets at a pace, before a redeploy; clients come back and recover."""
    from serve_apps import status as command

    settings = _settings(data_dir)
    record = _running(settings)
    try:
        told = command.call_api(settings, record, "/api/v1/drain", {"over_s": over, "hold_s": hold})
        left = command.wait_drained(settings, record, over)
    except (OSError, ValueError) as error:
        _fail(f"the floor does not answer: {error}")
    print(f"{told['clients']} sockets closed; newcomers are sent away for {hold:g} s" if not left else
          f"{left} of {told['clients']} sockets are still open")  # fmt: skip
    if left:
        sys.exit(1)


Reason = Annotated[str | None, typer.Option(help="Only those set aside for this reason.")]
TopicStart = Annotated[str | None, typer.Option(help="Only those whose topic begins so.")]


@dead_letters.command("list")
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

    settings = _settings(data_dir)
    filters = {"reason": reason, "topic": topic, "replayed": "true" if replayed else None}
    try:
        found = line.find(settings, _running(settings), max(1, limit), **filters)
    except line.DeadLetterLineError as error:
        _fail(str(error))
    if as_json:
        print(json.dumps({"items": found}, indent=2))
    else:
        Console().print(line.render_list(found))


@dead_letters.command("show")
def dead_letters_show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="As `dead-letters list` prints it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show one dead letter with its payload."""
    from serve_apps import dead_letter_line as line

    settings = _settings(data_dir)
    try:
        found = line.show(settings, _running(settings), letter)
    except line.DeadLetterLineError as error:
        _fail(str(error))
    print(json.dumps(found, indent=2) if as_json else line.render_letter(found))


@dead_letters.command("replay")
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
        _fail("say which: ids, or --reason, --topic or --all")
    settings = _settings(data_dir)
    filters = {"reason": reason, "topic": topic, "all": everything or None}
    try:
        done = line.replay(settings, _running(settings), letters or [], **filters)
    except line.DeadLetterLineError as error:
        _fail(str(error))
    if as_json:
        print(json.dumps(done, indent=2))
    else:
        print(", ".join(f"{count} {outcome}" for outcome, count in done["counts"].items()))
        for item in done["items"]:
            if item["outcome"] == "refused":
                print(f"{item['id']}: {item['reason']} {item['detail']}".rstrip())
    if done["counts"]["refused"]:
        sys.exit(1)


def main() -> None:
    """Run the command line; every error of ours becomes one sentence."""
    try:
        app()
    except (ClusterError, OSError) as error:
        _fail(str(error))


def _settings(data_dir: Path | None) -> Settings:
    environment = dict(os.environ)
    if data_dir is not None:
        environment["WATCHFLOOR_DATA_DIR"] = str(data_dir)
    return Settings.load(environment)


def _running(settings: Settings) -> FloorRecord:
    record = FloorFolder.of(settings).read()
    if record is None or not record.is_running:
        print(f"no floor is running in {FloorFolder.of(settings).path}; start one with: watchfloor up", file=sys.stderr)
        sys.exit(EXIT_NOT_RUNNING)
    return record


def _say_running(settings: Settings, record: FloorRecord) -> None:
    from serve_apps import status as command

    print(f"this floor already runs (process {record.supervisor.pid}): {record.url or 'it is starting'}")
    if record.phase == "ready":
        print(f"sign in once with {command.signin_url(settings, record.url)}")


def _fail(text: str) -> NoReturn:
    print(f"watchfloor: {text}", file=sys.stderr)
    sys.exit(EXIT_MISTAKE)


if __name__ == "__main__":
    main()
