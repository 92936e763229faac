"""The console output of the commands."""

from functools import partial

from rich.console import Console
from rich.table import Table

_console = partial(Console, highlight=False, soft_wrap=True, emoji=False)

out = _console()
err = _console(stderr=True)

_WIDEST = 1000


def print_table(table: Table) -> None:
    """Print a table in its full width. If a narrow terminal wraps it, it can still be read; cut off, it could not."""
    width = out.measure(table, options=out.options.update(width=_WIDEST)).maximum
    _console(width=width).print(table)


def complain(message: str) -> None:
    """Print an error for people: one line, or one line per problem."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(message, markup=False)
