"""The command `escala status`."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from escala.cli.support.console import out, print_table
from escala.cli.support.options import File, Settings, open_project
from escala.cli.support.tables import status_table, total_memory, traffic_table
from escala.control.client import Client
from escala.control.status import ServiceStatus
from escala.units import format_size

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def status(file: File = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show what runs: processes with their state and memory (PSS), services and replicas with their requests."""
    found = Client(open_project(file, settings)).status()
    if as_json:
        out.print(msgspec.json.encode(found).decode(), markup=False)
        return
    print_table(status_table(found))
    out.print()
    print_table(traffic_table(found))
    out.print()
    for service in found.services:
        for line in _about(service):
            out.print(line, markup=False)
    for problem in found.problems:
        out.print(f"[red]problem:[/] {escape(problem)}")
    out.print(f"\n{found.project}: {found.phase}, {found.url}, {format_size(total_memory(found))} in all")
    if found.metrics:
        out.print(f"metrics: {found.metrics} and {found.metrics}/routes")


def _about(service: ServiceStatus) -> Iterator[str]:
    """Yield why a service has its current number of replicas, if it is not fixed, and the state of its rollout."""
    if service.why:
        yield f"{service.name}: {service.replicas} of {service.min} to {service.max} replicas: {service.why}"
    if service.rollout:
        yield f"{service.name}: {service.rollout}"
