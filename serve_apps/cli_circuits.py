"""``watchfloor circuits``: which services are called, and an operator's word about that."""

import json
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console

from serve_apps.cli_options import AsJson, DataDir, ask

app = typer.Typer(add_completion=False, help="Show which services are called, and say so yourself.")


@app.callback(invoke_without_command=True)
def circuits(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show each guarded service: whether it is called, and if not, why and until when."""
    from serve_apps import status as command

    if context.invoked_subcommand is not None:
        return
    found = ask(data_dir, "/api/v1/circuits")
    if as_json:
        print(json.dumps(found, indent=2))
    elif found["items"]:
        Console().print(command.render_circuits(found))
    else:
        print("no service was called yet")


@app.command("force")
def circuits_force(
    service: Annotated[str, typer.Argument(help="mqtt_broker, webhook, alertmanager, or another that circuits lists.")],
    state: Annotated[str, typer.Argument(help="open: nobody calls it; closed: everybody does.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who looks sees it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Hold a circuit open or closed in all processes, until it is reset."""
    told = ask(data_dir, f"/api/v1/circuits/{quote(service, safe='')}/force", {"state": state, "reason": reason})
    _say_circuit(told, as_json=as_json)


@app.command("reset")
def circuits_reset(
    service: Annotated[str, typer.Argument(help="Service of the circuit.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who looks sees it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Close a circuit in all processes, and let calls decide again."""
    told = ask(data_dir, f"/api/v1/circuits/{quote(service, safe='')}/reset", {"reason": reason})
    _say_circuit(told, as_json=as_json)


def _say_circuit(told: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print(f"{told['service']} is {told['state'].replace('_', ' ')}")
    if not told["is_told"]:
        print("Valkey does not answer: the other processes hear of it when it is back", file=sys.stderr)
