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
from typing import Annotated

import typer
from rich.console import Console

from cluster.errors import ClusterError
from cluster.settings import Settings
from ingest.choices import BrokerKind, ExportKind, FileFormat
from serve_apps import cli_circuits, cli_dead_letters, cli_directory, cli_notifications, cli_rules
from serve_apps.cli_options import EXIT_NOT_RUNNING, AsJson, DataDir, fail, running, settings_of
from serve_apps.floor_state import FloorFolder, FloorRecord

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=(
    "Device events become alerts that people act on; what people decide becomes better models."
))  # fmt: skip
app.add_typer(cli_rules.app, name="rules")
app.add_typer(cli_directory.app, name="directory")
app.add_typer(cli_circuits.app, name="circuits")
app.add_typer(cli_notifications.app, name="notifications")
app.add_typer(cli_dead_letters.app, name="dead-letters")


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when the floor is ready; it goes on.")] = False,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Replay recorded telemetry as devices.")] = True,
    data_dir: DataDir = None,
) -> None:
    """Start the floor and keep it running; Ctrl-C ends all that it started."""
    from serve_apps import up as command

    settings = settings_of(data_dir)
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

    ended = command.down(FloorFolder.of(settings_of(data_dir)))
    print("the floor has ended" if ended else "no floor is running here")


@app.command()
def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what the floor is doing."""
    from serve_apps import status as command

    found = command.collect(settings_of(data_dir))
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

    findings = command.examine(settings_of(data_dir))
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        Console().print(command.render(findings))
    sys.exit(1 if any(finding.level == "error" for finding in findings) else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def simulate(context: typer.Context, data_dir: DataDir = None) -> None:
    """Replay the recorded series as devices; further options go to python -m ingest.simulate."""
    settings = settings_of(data_dir)
    environment = dict(os.environ)
    if not settings.mqtt_url:
        environment |= running(settings).urls
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

    settings = settings_of(data_dir)
    if channel is not None and (role or group or link):
        fail("--channel goes with --user, --tenant and --hours only: such a token gives no role")
    try:
        secret = command.read_secret(settings)
        roles = role or ["admin"]
        if channel is not None:
            print(issue_channel_token(secret, sub=user, tenant=tenant, channel=channel, ttl_s=hours * 3600))
        elif link:
            url = running(settings).url
            key = issue_signin_key(secret, sub=user, tenant=tenant, roles=roles, groups=group or ())
            print(f"{url}/signin?key={key}")
        else:
            print(issue_token(secret, sub=user, tenant=tenant, roles=roles, groups=group or (), ttl_s=hours * 3600))
    except (OSError, ValueError) as error:
        fail(str(error))


@app.command()
def env(data_dir: DataDir = None) -> None:
    """Print the shell lines that point ray and python at this floor: eval "$(watchfloor env)"."""
    record = running(settings_of(data_dir))
    for name, value in sorted(record.env.items()):
        print(f"export {name}={shlex.quote(value)}")
    # A driver must run the floor's Python and Ray, whatever else is installed.
    print(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')


@app.command()
def lanes(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show each lane: what runs, what waits and for what."""
    from serve_apps import status as command

    settings = settings_of(data_dir)
    try:
        found = command.call_api(settings, running(settings), "/api/v1/lanes")
    except (OSError, ValueError) as error:
        fail(f"the floor does not answer: {error}")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(command.render_lanes(found))


@app.command()
def acl(
    broker: Annotated[BrokerKind, typer.Option(help="Whose files.")],
    out: Annotated[Path, typer.Option(help="Folder to write them into.")] = Path("broker"),
    passwords: Annotated[
        Path | None, typer.Option(help="Lines of user:hash; of mosquitto_passwd, or bcrypt for nats-server.")
    ] = None,
    floor_user: Annotated[str, typer.Option(help="The floor's own user of the broker.")] = "ingest",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Write a broker's configuration that lets each device use its own topics and no others."""
    from serve_apps import acl as command

    try:
        summary = command.write(settings_of(data_dir), broker, out, passwords, floor_user)
    except ValueError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(summary.as_dict(), indent=2))
    else:
        Console().print(command.render(summary))


@app.command()
def export(
    kind: Annotated[ExportKind, typer.Argument(help="What to take out.")],
    out: Annotated[str, typer.Option(help="File to write; - for standard output.")],
    file_format: Annotated[FileFormat | None, typer.Option("--format", help="Left out: by the file's ending.")] = None,
    tenant: Annotated[str | None, typer.Option(help="This tenant only.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="This device only; repeatable.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="This metric only; repeatable.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 2026-11-26T08:00:00Z, or an age (24h, 7d).")] = None,
    until: Annotated[str | None, typer.Option(help="Before then.")] = None,
    token: Annotated[str | None, typer.Option(help="Only what the owner of this token may see.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write telemetry, alerts or dead letters to a file: CSV, Parquet or JSON lines."""
    from serve_apps import export as command

    settings = settings_of(data_dir)
    try:
        chosen = file_format or FileFormat(Path(out).suffix.removeprefix(".").lower())
    except ValueError:
        fail("give --format csv, parquet or jsonl, or a file with such an ending")
    try:
        query = command.query_of(
            settings, kind, token=token, tenant=tenant, devices=device or [], metrics=metric or [], since=since,
            until=until,
        )  # fmt: skip
        summary = command.write(settings, kind, chosen, out, query)
    except ValueError as error:
        fail(str(error))
    # Where the rows themselves went to standard output nothing may follow them.
    target = sys.stderr if out == command.STDOUT else sys.stdout
    print(json.dumps(summary.as_dict()) if as_json else
          f"{summary.rows} rows written to {out} in {summary.seconds:.1f} s", file=target)  # fmt: skip


@app.command()
def drain(
    over: Annotated[float, typer.Option(help="Seconds over which the sockets are closed.")] = 20.0,
    hold: Annotated[float, typer.Option(help="Seconds for which newcomers are sent away.")] = 60.0,
    data_dir: DataDir = None,
) -> None:
    """Close all client sockets at a pace, before a redeploy; clients come back and recover."""
    from serve_apps import status as command

    settings = settings_of(data_dir)
    record = running(settings)
    try:
        told = command.call_api(settings, record, "/api/v1/drain", {"over_s": over, "hold_s": hold})
        left = command.wait_drained(settings, record, over)
    except (OSError, ValueError) as error:
        fail(f"the floor does not answer: {error}")
    print(f"{told['clients']} sockets closed; newcomers are sent away for {hold:g} s" if not left else
          f"{left} of {told['clients']} sockets are still open")  # fmt: skip
    if left:
        sys.exit(1)


@app.command()
def command(
    target: Annotated[str, typer.Argument(metavar="TENANT/DEVICE", help="Which device.")],
    payload: Annotated[str, typer.Argument(help='A JSON object, such as \'{"do": "lock"}\'.')],
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end; exit status 1 unless ok.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until it must have its result.")] = 60.0,
    request_id: Annotated[str | None, typer.Option(help="Your name for it: given twice, it is one.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Send a command to a device."""
    from serve_apps import command_line as line

    settings = settings_of(data_dir)
    record = running(settings)
    try:
        wanted, content = line.parse_target(target), line.parse_payload(payload)
        found = line.send(settings, record, wanted, content, timeout, request_id)
        for found in line.follow(settings, record, found, timeout) if wait else [found]:  # noqa: B020
            if not as_json:
                print(" ".join(filter(None, (found["id"], found["state"], found["detail"]))), flush=True)
    except line.CommandLineError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(found, indent=2))
    if wait and found["state"] != "ok":
        sys.exit(1)


def main() -> None:
    """Run the command line; every error of ours becomes one sentence."""
    try:
        app()
    except (ClusterError, OSError) as error:
        fail(str(error))


def _say_running(settings: Settings, record: FloorRecord) -> None:
    from serve_apps import status as command

    print(f"this floor already runs (process {record.supervisor.pid}): {record.url or 'it is starting'}")
    if record.phase == "ready":
        print(f"sign in once with {command.signin_url(settings, record.url)}")


if __name__ == "__main__":
    main()
