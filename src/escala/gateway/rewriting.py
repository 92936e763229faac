"""Paths on the way to the service, and back in its redirects."""

from collections.abc import Iterator, Sequence

from escala.gateway.routing import Placed
from escala.gateway.rules import one_of
from escala.gateway.text import quoted, regex

BACK_1, BACK_2 = "\\1", "\\2"  # the groups of a regular expression


def rewrite(routes: Sequence[Placed]) -> Iterator[str]:
    """Replace a route's prefix by what it says in `to`."""
    for placed, inner in _rewritten(routes):
        prefix = placed.route.prefix
        if not inner and prefix:  # nothing would be left of a path that is the prefix itself
            yield f"http-request set-path / if {one_of([placed])} {{ path {prefix} }}"
        pattern = quoted(f"^{regex(prefix)}(/.*)?$" if inner else f"^{regex(prefix)}(/.*)$")
        yield f"http-request replace-path {pattern} {quoted(inner + BACK_1)} if {one_of([placed])}"


def rewrite_back(routes: Sequence[Placed]) -> Iterator[str]:
    """Let redirects within the service lead to where clients reach it."""
    rewritten = list(_rewritten(routes))
    if rewritten:
        yield "http-request set-var(txn.authority) req.fhdr(host)"
    for placed, inner in rewritten:
        pattern = quoted(f"^([a-z]+://[^/]+)?{regex(inner)}([/?].*)?$")
        replacement = quoted(f"{BACK_1}{placed.route.prefix}{BACK_2}")
        for own in ("{ res.hdr(location) -m beg / }", "{ res.hdr(location),field(3,/),strcmp(txn.authority) eq 0 }"):
            yield f"http-response replace-header Location {pattern} {replacement} if {one_of([placed])} {own}"


def _rewritten(routes: Sequence[Placed]) -> Iterator[tuple[Placed, str]]:
    for placed in routes:
        if placed.route.to is not None:
            yield placed, placed.route.to.rstrip("/")
