"""The command `escala apply`."""

from typing import Annotated

import typer
from rich.markup import escape

from escala.cli.support.console import out
from escala.cli.support.operations import Timeout, Wait, print_continues, steps, took
from escala.cli.support.options import File, Settings, open_project
from escala.config.difference import Change
from escala.control.client import Client
from escala.control.messages import Applied, Apply

Dry = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


def apply(
    file: File = None, settings: Settings = None, dry: Dry = False, wait: Wait = True, timeout: Timeout = 600.0
) -> None:
    """Apply a changed escala.toml to the running project, without dropping a request.

    If the file has an error, nothing changes.
    """
    client = Client(open_project(file, settings))
    if dry:
        _show(client.changes())
        out.print("\nnothing was changed (--dry-run)")
        return
    begun = client.begin(Apply())
    switched = client.follow(begun, timeout, until=lambda status: status.applied is not None)
    assert switched.applied is not None
    if not _show(switched.applied):
        return
    now = switched.applied.rolling or not all(change.later for change in switched.applied.changes)
    out.print("\n[green]applied[/]" if now else "\nnothing else has changed")
    if not switched.applied.rolling:
        return
    if wait:
        done = client.follow(switched, timeout, steps())
        out.print(f"{', '.join(switched.applied.rolling)}: rolled out after {took(done)}", markup=False)
    else:
        print_continues(switched)


def _show(applied: Applied) -> bool:
    """Print the differences; return whether there are any."""
    if not applied.changes and not applied.rolling:
        out.print("no changes: the running project matches the file")
        return False
    for change in applied.changes:
        out.print(_line(change))
    later = sum(change.later for change in applied.changes)
    if later:
        what = "a change" if later == 1 else f"{later} changes"
        out.print(f"\n[yellow]{what}[/] (marked *) will take effect when the project is started again")
    for warning in applied.warnings:
        out.print(f"\n[yellow]warning:[/] {escape(warning)}")
    if applied.rolling:
        out.print(f"\nthe replicas of these services are replaced: {', '.join(applied.rolling)}")
    return True


def _line(change: Change) -> str:
    star = " *" if change.later else ""
    if change.before is None:
        return f"[green]+ {escape(change.key)} = {escape(str(change.after))}[/]{star}"
    if change.after is None:
        return f"[red]- {escape(change.key)} = {escape(change.before)}[/]{star}"
    return f"[yellow]~ {escape(change.key)} = {escape(change.before)} → {escape(change.after)}[/]{star}"
