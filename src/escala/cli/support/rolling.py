"""Waiting for rollouts, with a line at each step."""

import time
from collections.abc import Sequence

from escala.cli.support.console import out
from escala.control.client import Client
from escala.errors import EscalaError
from escala.units import format_duration

_LOOK_EVERY = 0.2


def wait_rolled(client: Client, services: Sequence[str], timeout: float) -> None:
    """Return when no service is being rolled out any more; raise EscalaError where one was stopped."""
    began = time.monotonic()
    said: dict[str, str] = {}
    while True:
        words = {each.name: each.rollout for each in client.status(brief=True).services if each.name in services}
        running = {name: text for name, text in words.items() if text.startswith("rolling out")}
        for name, text in running.items():
            if said.get(name) != text:
                out.print(f"{name}: {text}", markup=False)
        said = running
        if not running:
            break
        if time.monotonic() - began > timeout:
            raise EscalaError(f"not done after {timeout:g} s: {', '.join(running)}; it goes on (see `escala status`)")
        time.sleep(_LOOK_EVERY)
    stopped = [f"{name}: {text}" for name, text in words.items() if text]
    if stopped:
        raise EscalaError("\n".join(stopped))
    out.print(f"{', '.join(services)}: rolled out after {format_duration(time.monotonic() - began)}", markup=False)
