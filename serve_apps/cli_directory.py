"""``watchfloor directory``: tenants, their clients, users and devices."""

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from ingest.directory_entry import Kind
from serve_apps.cli_options import AsJson, DataDir, fail, settings_of

app = typer.Typer(no_args_is_help=True, help="Tenants, their clients, users and devices.")


@app.command("import")
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
    with line.opened(settings_of(data_dir)) as engine:
        report = directory_import.load(engine, sheet, LOCAL_USER, time.time(), prune=prune, dry_run=dry_run)
    if as_json:
        print(json.dumps(line.report_json(report, dry_run=dry_run), indent=2))
    else:
        print(line.render_report(report, dry_run=dry_run), file=sys.stderr if report.problems else sys.stdout)
    if report.problems:
        sys.exit(1)


@app.command("export")
def directory_export(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None, data_dir: DataDir = None
) -> None:
    """Print the directory as a CSV that `directory import` reads."""
    from cluster.clock import SystemClock
    from ingest import directory_csv
    from ingest.directory_store import DirectoryStore
    from serve_apps import directory_line as line

    with line.opened(settings_of(data_dir)) as engine:
        sys.stdout.write(directory_csv.write(DirectoryStore(engine, SystemClock()).entries(tenant)))


@app.command("list")
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
    with line.opened(settings_of(data_dir)) as engine:
        rows = [listed_to_json(one) for one in DirectoryStore(engine, SystemClock()).page(query)]
    if as_json:
        print(json.dumps({"items": rows}, indent=2))
    else:
        Console().print(line.render_entries(rows))


@app.command("show")
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
        fail(str(error))
    with line.opened(settings_of(data_dir)) as engine:
        found = listed_to_json(DirectoryStore(engine, SystemClock()).get(kind, wanted))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:16} {'' if value is None else value}")
