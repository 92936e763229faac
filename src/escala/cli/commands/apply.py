"""The command `escala apply`."""

from typing import Annotated

import typer
from rich.markup import escape

from escala.cli.commands.restart import Timeout, Wait
from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.cli.support.rolling import wait_rolled
from escala.config.difference import Change
from escala.control.client import Client

Dry = Annotated[bool, typer.Option("--dry-run", help="Only show what is different.")]


def apply(
    file: File = None, settings: Settings = None, dry: Dry = False, wait: Wait = True, timeout: Timeout = 600.0
) -> None:
    """Take over a changed escala.toml while it runs, without a dropped request. A wrong file changes nothing."""
    client = Client(open_project(file, settings))
    applied = client.apply(dry=dry)
    if not applied.changes and not applied.rolling:
        out.print("the file says what runs already")
        return
    for change in applied.changes:
        out.print(_line(change))
    later = sum(change.later for change in applied.changes)
    if later:
        out.print(f"\n[yellow]{later} of them[/] (marked *) take effect when the project is started again")
    if applied.rolling:
        out.print(f"\nreplicas that are replaced for it: {', '.join(applied.rolling)}")
    out.print("\nnothing was changed yet" if dry else "\n[green]applied[/]")
    if applied.rolling and wait and not dry:
        wait_rolled(client, applied.rolling, timeout)


def _line(change: Change) -> str:
    star = " *" if change.later else ""
    if change.before is None:
        return f"[green]+ {escape(change.key)} = {escape(str(change.after))}[/]{star}"
    if change.after is None:
        return f"[red]- {escape(change.key)} = {escape(change.before)}[/]{star}"
    return f"[yellow]~ {escape(change.key)} = {escape(change.before)} → {escape(change.after)}[/]{star}"
