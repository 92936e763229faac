"""The command `escala drain`."""

from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.operations import took
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.control.messages import Drain

Replica = Annotated[str, typer.Argument(metavar="SERVICE/REPLICA", help='The replica, such as "web/2".')]
Resume = Annotated[bool, typer.Option("--resume", help="Send requests to it again.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait until its last request has finished.", min=1)]


def drain(
    replica: Replica, file: File = None, settings: Settings = None, resume: Resume = False, timeout: Timeout = 60.0
) -> None:
    """Stop sending new requests to a replica, and return when it has finished its current ones. It keeps running."""
    client = Client(open_project(file, settings))
    done = client.follow(client.begin(Drain(replica, not resume)), timeout)
    if resume:
        out.print(f"{replica} gets requests again")
    else:
        out.print(f"{replica} is idle after {took(done)}; to send it requests again, use --resume")
