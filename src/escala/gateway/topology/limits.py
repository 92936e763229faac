"""Rate limits: all routes that take a limit from the same table of escala.toml share one count."""

from collections.abc import Sequence
from dataclasses import dataclass

from escala.config import RateLimit
from escala.gateway.topology.routes import ResolvedRoute


@dataclass(frozen=True, eq=False)
class Limit:
    """A limit that is set in one place, and the routes that share its count."""

    table: str
    """The name of the stick table that holds the count."""
    counter: int
    """The number of the sticky counter that tracks it: its position in the list, from 1; sc0 is for tokens."""
    rate: RateLimit
    routes: tuple[ResolvedRoute, ...]


def limits_of(routes: Sequence[ResolvedRoute]) -> tuple[Limit, ...]:
    found: dict[tuple[str, int, RateLimit], list[ResolvedRoute]] = {}
    for route in routes:
        for place, rate in enumerate(route.policy.rate_limits, start=1):
            found.setdefault((route.sources["rate_limits"], place, rate), []).append(route)
    return tuple(
        Limit(f"escala.limit.{number}", place, rate, tuple(members))
        for number, ((_, place, rate), members) in enumerate(found.items(), start=1)
    )
