"""Rate limits: each is counted in one place for all routes that have it from the same table of escala.toml."""

from collections.abc import Sequence
from dataclasses import dataclass

from escala.config import RateLimit
from escala.gateway.topology.routes import ResolvedRoute


@dataclass(frozen=True, eq=False)
class Limit:
    """A limit, written once, and the routes that share its count."""

    table: str
    """The stick table that counts."""
    counter: int
    """The sticky counter that tracks it, by its place in the list; sc0 is the token's."""
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
