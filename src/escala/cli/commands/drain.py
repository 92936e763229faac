"""The command `escala drain`."""

import time
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.errors import EscalaError
from escala.units import format_duration

_LOOK_EVERY = 0.1

Replica = Annotated[str, typer.Argument(metavar="SERVICE/REPLICA", help='Which one, such as "web/2".')]
Resume = Annotated[bool, typer.Option("--resume", help="Send it requests again.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for its last request.", min=1)]


def drain(
    replica: Replica, file: File = None, settings: Settings = None, resume: Resume = False, timeout: Timeout = 60.0
) -> None:
    """Send no new requests to a replica, and return when it has finished those it has. It keeps running."""
    client = Client(open_project(file, settings))
    began = time.monotonic()
    client.drain(replica, not resume)
    if resume:
        out.print(f"{replica} gets requests again")
        return
    while inflight := _inflight(client, replica):
        if time.monotonic() - began > timeout:
            raise EscalaError(f"{replica} still has {inflight} requests after {timeout:g} s; it gets no new ones")
        time.sleep(_LOOK_EVERY)
    out.print(f"{replica} is idle after {format_duration(time.monotonic() - began)}; `--resume` brings it back")


def _inflight(client: Client, replica: str) -> int:
    return sum(p.inflight or 0 for p in client.status(brief=True).processes if f"{p.service}/{p.replica}" == replica)
