"""What the commands print with."""

from rich.console import Console

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(highlight=False, soft_wrap=True, emoji=False, stderr=True)


def complain(message: str) -> None:
    """Print an error for a person: one line, or one for each problem."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(message, markup=False)
