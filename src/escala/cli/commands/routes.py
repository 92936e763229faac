"""The command `escala routes`."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from escala.cli.support.console import out, print_table
from escala.cli.support.options import File, Settings, open_project
from escala.config import Policy
from escala.config.types import ANY_METHOD
from escala.gateway.topology.routes import ResolvedRoute
from escala.http import methods
from escala.units import format_duration, format_size

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")]


def routes(file: File = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show which path leads to which service, and which policy applies to it."""
    found = open_project(file, settings).topology.routes
    if as_json:
        for each in found:
            out.print(msgspec.json.encode(_document(each)).decode(), markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("PATH", "HOSTS", "SERVICE", "NEEDS", "POLICY"):
        table.add_column(heading, overflow="fold")
    for each in found:
        route, policy = each.settings, each.policy
        service = f"{each.service}{f', {route.split.percent} % {route.split.service}' if route.split else ''}"
        needs = "nothing" if policy.public else ", ".join(["a token", *policy.scopes])
        path = f"{route.path}{f' → {route.to}' if route.to else ''}"
        table.add_row(path, ", ".join(policy.hosts) or "any", service, needs, ", ".join(_words(each)))
    print_table(table)


def _words(route: ResolvedRoute) -> Iterator[str]:
    """Yield descriptions of the settings that differ from their defaults."""
    policy, plain = route.policy, Policy()
    if policy.methods == ANY_METHOD:
        yield "any method"
    elif policy.methods != methods.DEFAULT:
        yield "/".join(policy.methods)
    if policy.paths != plain.paths:
        yield f"paths {policy.paths}"
    for limit in policy.rate_limits:
        burst = f" (burst {limit.burst})" if limit.burst else ""
        yield f"{limit.requests} in {format_duration(limit.period)} per {limit.per}{burst}"
    if policy.timeout != plain.timeout:
        yield f"timeout {format_duration(policy.timeout)}"
    if policy.max_body != plain.max_body:
        yield f"bodies up to {format_size(policy.max_body)}"
    if policy.cache is not None:
        yield f"cached {format_duration(policy.cache)}"
    if policy.cors is not None:
        yield f"CORS for {', '.join(policy.cors.origins)}"
    if policy.compression:
        yield "compressed"
    if not policy.retry:
        yield "not retried"
    own = route.settings.balance
    for name in sorted(own.model_fields_set):
        yield f"{name.replace('_', ' ')} {_worded(getattr(own, name))}"


def _worded(value: int | float) -> str:
    return format_duration(value) if isinstance(value, float) else str(value)


def _document(route: ResolvedRoute) -> dict[str, object]:
    policy = route.policy.model_dump(mode="json")
    balance = route.settings.balance.model_dump(mode="json", exclude_unset=True)
    own = {"path": route.settings.path, "to": route.settings.to, "service": route.service}
    return {**own, **policy, "balance": balance, "sources": dict(route.sources)}
