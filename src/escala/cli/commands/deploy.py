"""The command `escala deploy`."""

import re
from typing import Annotated

import typer

from escala.cli.commands.restart import Services, roll
from escala.cli.support.operations import Timeout, Wait
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.control.messages import Canary, Roll
from escala.errors import ConfigError
from escala.units import parse_duration

Share = Annotated[
    str | None, typer.Option("--canary", metavar="PERCENT", help="Test the first new replica with this share first.")
]
Watch = Annotated[str, typer.Option("--watch", metavar="DURATION", help="How long the canary is watched.")]


def deploy(
    services: Services = None,
    file: File = None,
    settings: Settings = None,
    canary: Share = None,
    watch: Watch = "30s",
    wait: Wait = True,
    timeout: Timeout = 600.0,
) -> None:
    """Roll out changed code, optionally with a canary.

    The canary is the first new replica. It gets a share of the requests and is compared with the old replicas.

    The rollout is rolled back if at least three of the canary's answers were errors, and its error rate is more than
    one percentage point above that of the old replicas.

    It is also rolled back if the canary took more than 1.5 times as long as the old replicas, and over 10 ms longer.
    """
    tried = _canary(canary, watch)
    client = Client(open_project(file, settings))
    roll(client, Roll(services or None, tried), wait=wait, timeout=timeout)


def _canary(share: str | None, watch: str) -> Canary | None:
    try:
        seconds = parse_duration(watch)
    except ValueError as error:
        raise ConfigError("escala deploy", [f"--watch {watch}: {error}"]) from None
    if share is None:
        return None
    number = re.fullmatch(r"(\d{1,2}(?:\.\d+)?)%?", share, re.ASCII)
    if number is None or float(number[1]) == 0:
        raise ConfigError("escala deploy", [f"--canary {share}: expected a share above 0% and below 100%, such as 10%"])
    return Canary(float(number[1]) / 100, seconds)
