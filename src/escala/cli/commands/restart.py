"""The command `escala restart`."""

from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.operations import Timeout, Wait, print_continues, steps, took
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.control.messages import Roll

Services = Annotated[list[str] | None, typer.Argument(metavar="[SERVICE...]", help="The services. Default: all.")]


def restart(
    services: Services = None,
    file: File = None,
    settings: Settings = None,
    wait: Wait = True,
    timeout: Timeout = 600.0,
) -> None:
    """Replace replicas by new ones without dropping a request: a new one is ready before an old one ends.

    Use it to roll out changed code. If the new version does not become ready, the rollout stops, and the old one
    continues to serve.
    """
    roll(Client(open_project(file, settings)), Roll(services or None), wait=wait, timeout=timeout)


def roll(client: Client, request: Roll, *, wait: bool, timeout: float) -> None:
    """Begin a rollout and, if wanted, follow it to its end."""
    begun = client.begin(request)
    if wait:
        done = client.follow(begun, timeout, steps())
        out.print(f"{', '.join(done.services)}: rolled out after {took(done)}", markup=False)
    else:
        print_continues(begun)
