"""The command `escala down`."""

import time
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.errors import EscalaError
from escala.processes.process import has_ended
from escala.units import format_duration

_LOOK_EVERY = 0.05

Timeout = Annotated[float, typer.Option(help="Seconds to wait until the project has stopped.", min=1)]


def down(file: File = None, settings: Settings = None, timeout: Timeout = 60.0) -> None:
    """Stop the running project. Requests and jobs in flight are finished first."""
    project = open_project(file, settings)
    client = Client(project)
    began = time.monotonic()
    pid = client.status(brief=True).pid
    client.stop()
    while not has_ended(pid):
        if time.monotonic() - began > timeout:
            log = project.layout.log / "escala.log"
            raise EscalaError(f"{project.name} is still stopping after {timeout:g} s; see {log}")
        time.sleep(_LOOK_EVERY)
    out.print(f"{project.name} stopped in {format_duration(time.monotonic() - began)}")
