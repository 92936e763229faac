"""The command `escala status`."""

from typing import Annotated

import msgspec
import typer

from escala.cli.console import out
from escala.cli.options import File, Settings, open_project
from escala.cli.tables import status_table, total_memory, traffic_table
from escala.config.units import format_size
from escala.supervisor.client import Client

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def status(file: File = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show what runs: processes with their state and memory (PSS), replicas with their requests."""
    found = Client(open_project(file, settings)).status()
    if as_json:
        out.print(msgspec.json.encode(found).decode(), markup=False)
        return
    out.print(status_table(found))
    out.print()
    out.print(traffic_table(found))
    out.print(f"\n{found.project}: {found.phase}, {found.url}, {format_size(total_memory(found))} in all")
    if found.metrics:
        out.print(f"metrics: {found.metrics} and {found.metrics}/routes")
