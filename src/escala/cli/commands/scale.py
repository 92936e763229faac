"""The command `escala scale`."""

import time
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.errors import ConfigError, EscalaError
from escala.units import format_duration

_LOOK_EVERY = 0.1

Wanted = Annotated[list[str], typer.Argument(metavar="SERVICE=N...", help="How many replicas a service shall have.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to return only when it is so.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=1)]


def scale(
    wanted: Wanted, file: File = None, settings: Settings = None, wait: Wait = True, timeout: Timeout = 120.0
) -> None:
    """Change how many replicas run: new ones get requests when they are ready, others finish theirs and go."""
    counts = _parse(wanted)
    client = Client(open_project(file, settings))
    began = time.monotonic()
    for service, count in counts.items():
        client.scale(service, count)
    if not wait:
        return
    while missing := _missing(client, counts):
        if time.monotonic() - began > timeout:
            raise EscalaError(f"not so after {timeout:g} s: {missing}; see `escala status`")
        time.sleep(_LOOK_EVERY)
    for service, count in counts.items():
        out.print(f"{service}: {count} ready after {format_duration(time.monotonic() - began)}")


def _parse(wanted: list[str]) -> dict[str, int]:
    counts, problems = {}, []
    for word in wanted:
        service, _, number = word.partition("=")
        if service and number.isascii() and number.isdigit():
            counts[service] = int(number)
        else:
            problems.append(f"{word}: expected SERVICE=N, how many there are to be, such as web=3")
    if problems:
        raise ConfigError("escala scale", problems)
    return counts


def _missing(client: Client, counts: dict[str, int]) -> str:
    """Return, in words, what is not yet as wanted."""
    words = []
    processes = client.status(brief=True).processes
    for service, count in counts.items():
        mine = [process for process in processes if process.service == service]
        ready = sum(process.state == "serving" and not process.drained for process in mine)
        if (ready, len(mine)) != (count, count):
            words.append(f"{service} has {ready} of {count} ready, {len(mine) - ready} others")
    return ", ".join(words)
