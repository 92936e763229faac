"""Follows operations of a running project to their end, and prints a line for each step."""

import time
from collections.abc import Callable
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.control.messages import OperationStatus
from escala.units import format_duration

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the operation is done, or return at once.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait. After that, the operation continues.", min=1)]


def steps() -> Callable[[OperationStatus], None]:
    """Return a function that prints the steps of an operation, each of them once."""
    shown: list[str] = []

    def show(status: OperationStatus) -> None:
        if status.state == "running" and status.step and shown[-1:] != [status.step]:
            shown.append(status.step)
            out.print(status.step, markup=False)

    return show


def took(status: OperationStatus) -> str:
    """Return how long an operation took, as text."""
    return format_duration((status.ended_at or time.time()) - status.started_at)


def print_continues(status: OperationStatus) -> None:
    """Say that an operation goes on, and how it is called."""
    out.print(f"operation {status.id} ({status.kind}) continues; see `escala status`")
