"""Rate limits: each has a stick table, which counts the allowed requests in a sliding window.

At most `burst` requests pass within a window. The window is just long enough that the average is `requests` per period.
Refused requests are not counted. So a client that never slows down still gets the full rate that the limit allows.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from escala.gateway.render.rules import one_of, refuse, when
from escala.gateway.render.text import milliseconds
from escala.gateway.topology.limits import Limit
from escala.gateway.topology.routes import ResolvedRoute, sources_of

MAX_ROUTE_NAME = 840
"""The maximum length of a route's name: a host of nine labels plus a path, as allowed by `config.types`."""

ADDRESS = "src,ipmask(32,64)"
"""The key for a client's address.

For IPv6 it is the /64 network, which is commonly assigned to one customer (RFC 6177). On a socket for both versions,
ipmask also recognizes IPv4 addresses.
"""


class _Per(NamedTuple):
    """How requests of different senders are told apart, and for how many senders counts are kept."""

    key: str
    type: str
    size: int


_PER = {
    "address": _Per(ADDRESS, "ipv6", 200_000),
    "token": _Per("http_auth_bearer,sha2(256)", "binary len 32", 200_000),
    "route": _Per("var(txn.route)", f"string len {MAX_ROUTE_NAME}", 1_000),
}


def table(limit: Limit) -> list[str]:
    per, window = _PER[limit.rate.per], milliseconds(limit.rate.window)
    return [f"stick-table type {per.type} size {per.size} expire {window} store gpc(1),gpc_rate(1,{window})"]


def before_verification(limits: Sequence[Limit], routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Yield rules for limits that need no token; a request above one is refused before its token is verified."""
    yield from _rules(routes, [limit for limit in limits if limit.rate.per != "token"])


def after_verification(limits: Sequence[Limit], reaching: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Yield rules for limits per token, for the routes that reach a backend."""
    yield from _rules(reaching, [limit for limit in limits if limit.rate.per == "token"])


def _rules(routes: Sequence[ResolvedRoute], limits: Sequence[Limit]) -> Iterator[str]:
    for limit in limits:
        members = [route for route in routes if route in limit.routes]
        if not members:
            continue
        here = "" if len(members) == len(routes) else one_of(members)
        counter, rate = limit.counter, limit.rate
        wait = max(1, math.ceil(rate.period / rate.requests))  # seconds until one more request is allowed
        detail = f"At most {rate.requests} requests in {rate.period:g} s per {rate.per}; slow down."
        above = f"{{ sc_gpc_rate(0,{counter}) ge {rate.most} }}"
        yield f"# {sources_of(members, 'rate_limits')}: {rate.requests} in {rate.period:g} s per {rate.per}"
        yield f"http-request track-sc{counter} {_PER[rate.per].key} table {limit.table}" + when(here)
        yield refuse(429, detail, ("Retry-After", str(wait))) + when(here, above)
        yield f"http-request sc-inc-gpc(0,{counter})" + when(here)
