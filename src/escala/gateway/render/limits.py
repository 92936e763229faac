"""Rate limits: a stick table for each, counting what was let through in a sliding window.

At most `burst` requests pass in a window that is so long that on average it is `requests` a period. What is refused is
not counted, so a client that never slows down still gets what the limit grants.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from escala.config import RateLimit
from escala.gateway.render.rules import one_of, refuse, when
from escala.gateway.render.text import milliseconds
from escala.gateway.topology.routes import Placed

LONGEST_ROUTE = 840
"""Of a route's name: a host of nine labels and a path, as `config.section` admits them."""

ADDRESS = "src,ipmask(32,64)"
"""Of IPv6, the network that a customer commonly gets (RFC 6177); ipmask knows IPv4 on a socket for both."""


class _Per(NamedTuple):
    """How the requests of one kind of sender are told apart, and how many senders are kept."""

    key: str
    type: str
    size: int


_PER = {
    "address": _Per(ADDRESS, "ipv6", 200_000),
    "token": _Per("http_auth_bearer,sha2(256)", "binary len 32", 200_000),
    "route": _Per("var(txn.route)", f"string len {LONGEST_ROUTE}", 1_000),
}


@dataclass(frozen=True)
class Limit:
    """A limit, written down once, and the routes that it is for."""

    table: str
    counter: int
    """The sticky counter that tracks it, by its place in the list; sc0 is the token's."""
    rate: RateLimit
    routes: tuple[Placed, ...]


def limits_of(routes: Sequence[Placed]) -> list[Limit]:
    """Return the limits of all routes; those that routes have from one place are one limit."""
    found: dict[tuple[str, int, RateLimit], list[Placed]] = {}
    for placed in routes:
        for place, rate in enumerate(placed.policy.rate_limits, start=1):
            found.setdefault((placed.limited_by, place, rate), []).append(placed)
    return [
        Limit(f"escala.limit.{number}", place, rate, tuple(members))
        for number, ((_, place, rate), members) in enumerate(found.items(), start=1)
    ]


def counters(routes: Sequence[Placed]) -> int:
    """Return how many sticky counters the limits need."""
    return max((limit.counter for limit in limits_of(routes)), default=0)


def table(limit: Limit) -> list[str]:
    per, window = _PER[limit.rate.per], milliseconds(limit.rate.window)
    return [f"stick-table type {per.type} size {per.size} expire {window} store gpc(1),gpc_rate(1,{window})"]


def before_verification(routes: Sequence[Placed]) -> Iterator[str]:
    """Rules for limits that need no token: whoever is above them costs no verification."""
    yield from _rules(routes, [limit for limit in limits_of(routes) if limit.rate.per != "token"])


def after_verification(routes: Sequence[Placed], reaching: Sequence[Placed]) -> Iterator[str]:
    """Rules, for the routes that reach a backend, of limits per token."""
    for limit in limits_of(routes):
        if limit.rate.per == "token":
            yield from _rules(reaching, [limit])


def _rules(routes: Sequence[Placed], limits: Sequence[Limit]) -> Iterator[str]:
    for limit in limits:
        members = [placed for placed in routes if placed in limit.routes]
        if not members:
            continue
        here = "" if len(members) == len(routes) else one_of(members)
        counter, rate = limit.counter, limit.rate
        wait = max(1, math.ceil(rate.period / rate.requests))  # seconds until one more is earned
        detail = f"At most {rate.requests} requests in {rate.period:g} s per {rate.per}; slow down."
        above = f"{{ sc_gpc_rate(0,{counter}) ge {rate.most} }}"
        yield f"http-request track-sc{counter} {_PER[rate.per].key} table {limit.table}" + when(here)
        yield refuse(429, detail, ("Retry-After", str(wait))) + when(here, above)
        yield f"http-request sc-inc-gpc(0,{counter})" + when(here)
