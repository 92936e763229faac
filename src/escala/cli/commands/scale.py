"""The command `escala scale`."""

from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.operations import Timeout, Wait, print_continues, took
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.control.messages import Scale
from escala.errors import ConfigError

Wanted = Annotated[list[str], typer.Argument(metavar="SERVICE=N...", help="The number of replicas for a service.")]


def scale(
    wanted: Wanted, file: File = None, settings: Settings = None, wait: Wait = True, timeout: Timeout = 120.0
) -> None:
    """Change how many replicas run.

    New replicas get requests once they are ready. Replicas that are no longer wanted finish their requests first.
    """
    counts = _parse(wanted)
    client = Client(open_project(file, settings))
    begun = [client.begin(Scale(service, count)) for service, count in counts.items()]
    if not wait:
        for operation in begun:
            print_continues(operation)
        return
    for operation, (service, count) in zip(begun, counts.items(), strict=True):
        done = client.follow(operation, timeout)
        out.print(f"{service}: {count} ready after {took(done)}")


def _parse(wanted: list[str]) -> dict[str, int]:
    counts, problems = {}, []
    for word in wanted:
        service, _, number = word.partition("=")
        if service and number.isascii() and number.isdigit():
            counts[service] = int(number)
        else:
            problems.append(f"{word}: expected SERVICE=N, where N is the number of replicas, such as web=3")
    if problems:
        raise ConfigError("escala scale", problems)
    return counts
