"""The ``watchfloor`` command: starts a floor, ends it, and asks it questions.

Holds no logic of its own. Invariant: what scripts read goes to standard output and only
there; a mistake or a missing service is one sentence on standard error and exit status 2.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import quote

import typer
from rich.console import Console

from cluster.errors import ClusterError
from cluster.settings import Settings, load_section
from ingest.choices import BrokerKind, ExportKind, FileFormat
from ingest.directory_entry import Kind
from ingest.errors import RulesFileError
from serve_apps.floor_state import FloorFolder, FloorRecord

if TYPE_CHECKING:  # a command that needs no rules is not to wait for them
    from ingest.rules.model import Rule

EXIT_MISTAKE = 2
EXIT_NOT_RUNNING = 3

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=(
    "Device events become alerts that people act on; what people decide becomes better models."
))  # fmt: skip

rules = typer.Typer(no_args_is_help=True, help="Threshold, rate and absence rules in a file: check it, try it.")
app.add_typer(rules, name="rules")
directory = typer.Typer(no_args_is_help=True, help="Tenants, their clients, users and devices.")
app.add_typer(directory, name="directory")

notifications = typer.Typer(no_args_is_help=True, help="Messages to the outside that were given up.")
app.add_typer(notifications, name="notifications")

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


circuits_app = typer.Typer(add_completion=False, help="Show which services are called, and say so yourself.")
app.add_typer(circuits_app, name="circuits")


@circuits_app.callback(invoke_without_command=True)
def circuits(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show each guarded service: whether it is called, and if not, why and until when."""
    from serve_apps import status as command

    if context.invoked_subcommand is not None:
        return
    found = _call(data_dir, "/api/v1/circuits")
    if as_json:
        print(json.dumps(found, indent=2))
    elif found["items"]:
        Console().print(command.render_circuits(found))
    else:
        print("no service was called yet")


@circuits_app.command("force")
def circuits_force(
    service: Annotated[str, typer.Argument(help="mqtt_broker, webhook, alertmanager, or another that circuits lists.")],
    state: Annotated[str, typer.Argument(help="open: nobody calls it; closed: everybody does.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who looks sees it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Hold a circuit open or closed in all processes, until it is reset."""
    told = _call(data_dir, f"/api/v1/circuits/{quote(service, safe='')}/force", {"state": state, "reason": reason})
    _say_circuit(told, as_json=as_json)


@circuits_app.command("reset")
def circuits_reset(
    service: Annotated[str, typer.Argument(help="Service of the circuit.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who looks sees it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Close a circuit in all processes, and let calls decide again."""
    told = _call(data_dir, f"/api/v1/circuits/{quote(service, safe='')}/reset", {"reason": reason})
    _say_circuit(told, as_json=as_json)


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
        summary = command.write(_settings(data_dir), broker, out, passwords, floor_user)
    except ValueError as error:
        _fail(str(error))
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

    settings = _settings(data_dir)
    try:
        chosen = file_format or FileFormat(Path(out).suffix.removeprefix(".").lower())
    except ValueError:
        _fail("give --format csv, parquet or jsonl, or a file with such an ending")
    try:
        query = command.query_of(
            settings, kind, token=token, tenant=tenant, devices=device or [], metrics=metric or [], since=since,
            until=until,
        )  # fmt: skip
        summary = command.write(settings, kind, chosen, out, query)
    except ValueError as error:
        _fail(str(error))
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


RulesPath = Annotated[Path | None, typer.Argument(help="File of rules; left out: WATCHFLOOR_RULES_FILE.")]


@rules.command("check")
def rules_check(file: RulesPath = None, as_json: AsJson = False) -> None:
    """Say what a file of rules holds, or every mistake in it with its line (exit status 1)."""
    from serve_apps import rules_line as line

    path, found = _rules(file, as_json=as_json)
    if as_json:
        print(json.dumps({"file": str(path), "rules": line.rules_json(found), "problems": []}, indent=2))
    else:
        Console().print(line.render_rules(path, found))


@rules.command("try")
def rules_try(
    file: RulesPath = None,
    data: Annotated[
        str, typer.Option(help="recorded, recorded:SERIES, archive, archive:TENANT or archive:TENANT/DEVICE.")
    ] = "recorded",
    days: Annotated[float, typer.Option(min=0.01, help="How far back an archive is read.")] = 7.0,
    site: Annotated[str | None, typer.Option(help="Where all these devices stand, for rules that name a site.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show when each rule would have fired and cleared on readings of the past, and how often a day."""
    from ingest.rules.trial import try_rules
    from ingest.rules.trial_data import readings_of
    from serve_apps import rules_line as line

    _, found = _rules(file, as_json=as_json)
    settings = _settings(data_dir)
    record = FloorFolder.of(settings).read()
    storage_url = settings.storage_url or (record.urls.get("STORAGE_URL", "") if record is not None else "")
    if data.startswith("archive") and not storage_url:
        _fail("there is no archive: no floor has run here, and STORAGE_URL is not set")
    try:
        readings, ends_at = readings_of(data, storage_url, days)
        outcome = try_rules(found, readings, site, ends_at)
    except ValueError as error:
        _fail(str(error))
    if as_json:
        print(json.dumps(outcome.to_json(), indent=2))
    else:
        Console().print(line.render_trial(outcome, data))


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

    settings = _settings(data_dir)
    record = _running(settings)
    try:
        wanted, content = line.parse_target(target), line.parse_payload(payload)
        found = line.send(settings, record, wanted, content, timeout, request_id)
        for found in line.follow(settings, record, found, timeout) if wait else [found]:  # noqa: B020
            if not as_json:
                print(" ".join(filter(None, (found["id"], found["state"], found["detail"]))), flush=True)
    except line.CommandLineError as error:
        _fail(str(error))
    if as_json:
        print(json.dumps(found, indent=2))
    if wait and found["state"] != "ok":
        sys.exit(1)


@directory.command("import")
def directory_import(
    file: Annotated[str, typer.Argument(help="A CSV as `directory export` writes it; - is the standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Of the tenants in the file, also remove what it does not name.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Bring the directory to what a file says: all of it, or nothing and the reasons (exit status 1)."""
    from ingest import directory_csv, directory_import
    from serve_apps import directory_line as line
    from serve_apps.status import LOCAL_USER

    sheet = directory_csv.read(line.read_file(file))
    with line.opened(_settings(data_dir)) as engine:
        report = directory_import.load(engine, sheet, LOCAL_USER, time.time(), prune=prune, dry_run=dry_run)
    if as_json:
        print(json.dumps(line.report_json(report, dry_run=dry_run), indent=2))
    else:
        print(line.render_report(report, dry_run=dry_run), file=sys.stderr if report.problems else sys.stdout)
    if report.problems:
        sys.exit(1)


@directory.command("export")
def directory_export(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None, data_dir: DataDir = None
) -> None:
    """Print the directory as a CSV that `directory import` reads."""
    from cluster.clock import SystemClock
    from ingest import directory_csv
    from ingest.directory_store import DirectoryStore
    from serve_apps import directory_line as line

    with line.opened(_settings(data_dir)) as engine:
        sys.stdout.write(directory_csv.write(DirectoryStore(engine, SystemClock()).entries(tenant)))


@directory.command("list")
def directory_list(
    kind: Annotated[Kind, typer.Argument(help="Of which kind.")],
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    search: Annotated[str | None, typer.Option(help="Part of an id, a name, a site or a type.")] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="Only devices that nobody registered.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 1000,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List entries of one kind by tenant and id."""
    from cluster.clock import SystemClock
    from ingest.directory_rows import listed_to_json
    from ingest.directory_store import DirectoryQuery, DirectoryStore
    from serve_apps import directory_line as line

    query = DirectoryQuery(
        kind=kind, tenant=tenant, search=search, known=False if unknown else None, limit=max(1, limit)
    )
    with line.opened(_settings(data_dir)) as engine:
        rows = [listed_to_json(one) for one in DirectoryStore(engine, SystemClock()).page(query)]
    if as_json:
        print(json.dumps({"items": rows}, indent=2))
    else:
        Console().print(line.render_entries(rows))


@directory.command("show")
def directory_show(
    kind: Annotated[Kind, typer.Argument(help="Of which kind.")],
    key: Annotated[str, typer.Argument(help="ID of a tenant or user, TENANT/ID of a client or device.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show one entry."""
    from cluster.clock import SystemClock
    from ingest.directory_rows import listed_to_json
    from ingest.directory_store import DirectoryStore
    from serve_apps import directory_line as line

    try:
        wanted = line.parse_key(kind, key)
    except ValueError as error:
        _fail(str(error))
    with line.opened(_settings(data_dir)) as engine:
        found = listed_to_json(DirectoryStore(engine, SystemClock()).get(kind, wanted))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:16} {'' if value is None else value}")


@notifications.command("dead")
def notifications_dead(
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most of them.")] = 100,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List messages that were not delivered and are not tried any more, the newest first."""
    from serve_apps import status as command

    found = _api(data_dir, f"/api/v1/notifications/dead?limit={limit}")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(command.render_dead_messages(found))


@notifications.command("replay")
def notifications_replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of messages; left out: all.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Send messages that were given up once more, under the ids that they had."""
    found = _api(data_dir, "/api/v1/notifications/replay", {"ids": ids} if ids else {})
    print(json.dumps(found, indent=2) if as_json else f"{found['replayed']} messages are sent again")


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


def _api(data_dir: Path | None, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    from serve_apps import status as command

    settings = _settings(data_dir)
    try:
        answer: dict[str, Any] = command.call_api(settings, _running(settings), path, body)
    except (OSError, ValueError) as error:
        _fail(f"the floor does not answer: {error}")
    return answer


def _rules(file: Path | None, *, as_json: bool) -> "tuple[Path, tuple[Rule, ...]]":
    from ingest.rules.rules_file import read_rules
    from ingest.rules.settings import RulesSettings

    path = file or Path(load_section(RulesSettings).file)
    if path == Path():
        _fail("name a file of rules, or set WATCHFLOOR_RULES_FILE")
    try:
        return path, read_rules(path)
    except RulesFileError as error:
        if as_json:
            print(json.dumps({"file": str(path), "rules": [], "problems": list(error.problems)}, indent=2))
        else:
            for problem in error.problems:
                print(f"{path}: {problem}", file=sys.stderr)
        sys.exit(1)


def _say_running(settings: Settings, record: FloorRecord) -> None:
    from serve_apps import status as command

    print(f"this floor already runs (process {record.supervisor.pid}): {record.url or 'it is starting'}")
    if record.phase == "ready":
        print(f"sign in once with {command.signin_url(settings, record.url)}")


def _call(data_dir: Path | None, path: str, body: Any = None) -> Any:
    """Ask the running floor; what it refuses is one sentence."""
    from serve_apps import status as command

    settings = _settings(data_dir)
    try:
        return command.call_api(settings, _running(settings), path, body)
    except HTTPError as error:
        _fail(_refusal(error))
    except (OSError, ValueError) as error:
        _fail(f"the floor does not answer: {error}")


def _refusal(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the floor refuses: {error}"


def _say_circuit(told: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print(f"{told['service']} is {told['state'].replace('_', ' ')}")
    if not told["is_told"]:
        print("Valkey does not answer: the other processes hear of it when it is back", file=sys.stderr)


def _fail(text: str) -> NoReturn:
    print(f"watchfloor: {text}", file=sys.stderr)
    sys.exit(EXIT_MISTAKE)


if __name__ == "__main__":
    main()
