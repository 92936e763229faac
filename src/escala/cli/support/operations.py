"""Operations of a running project, followed to their end with a line at each step."""

import time
from collections.abc import Callable
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.control.messages import OperationStatus
from escala.units import format_duration

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to return only when it is done.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait; what is under way goes on after that.", min=1)]


def steps() -> Callable[[OperationStatus], None]:
    """Return what prints the steps of an operation, each once."""
    shown: list[str] = []

    def show(status: OperationStatus) -> None:
        if status.state == "running" and status.step and shown[-1:] != [status.step]:
            shown.append(status.step)
            out.print(status.step, markup=False)

    return show


def took(status: OperationStatus) -> str:
    """Say how long an operation took."""
    return format_duration((status.ended_at or time.time()) - status.started_at)
