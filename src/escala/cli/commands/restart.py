"""The command `escala restart`."""

from typing import Annotated

import typer

from escala.cli.support.options import File, Settings, open_project
from escala.cli.support.rolling import wait_rolled
from escala.control.client import Client

Services = Annotated[list[str] | None, typer.Argument(metavar="[SERVICE...]", help="Which ones; all unless named.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to return only when it is done.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=1)]


def restart(
    services: Services = None,
    file: File = None,
    settings: Settings = None,
    wait: Wait = True,
    timeout: Timeout = 600.0,
) -> None:
    """Replace replicas by new ones, and drop no request: a new one is ready before an old one finishes and goes.

    This is how changed code is taken over. A version that does not become ready stops it, and the old one serves on.
    """
    client = Client(open_project(file, settings))
    rolling = client.roll(services or None)
    if wait:
        wait_rolled(client, rolling, timeout)
