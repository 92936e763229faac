"""The command `escala down`."""

import time
from typing import Annotated

import typer

from escala.cli.console import out
from escala.cli.options import File, Settings, open_project
from escala.config.units import format_duration
from escala.errors import EscalaError, NotRunning
from escala.supervisor.client import Client

_LOOK_EVERY = 0.05

Timeout = Annotated[float, typer.Option(help="Seconds to wait for the end.", min=1)]


def down(file: File = None, settings: Settings = None, timeout: Timeout = 60.0) -> None:
    """Stop the running project: requests and jobs in flight are finished first."""
    project = open_project(file, settings)
    client = Client(project)
    began = time.monotonic()
    client.stop()
    while time.monotonic() - began < timeout:
        try:
            client.status()
        except NotRunning:
            out.print(f"{project.name} stopped in {format_duration(time.monotonic() - began)}")
            return
        time.sleep(_LOOK_EVERY)
    raise EscalaError(f"{project.name} is still stopping after {timeout:g} s; see {project.layout.log}/escala.log")
