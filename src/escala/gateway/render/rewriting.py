"""Rewriting of paths: in requests to the service, and back in its answers.

A route may remove its prefix (`path = "/shop"`, `to = "/"`). Then X-Forwarded-Prefix passes it to the service, which
may write paths as clients see them. So a path in an answer that already has the prefix is left unchanged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from escala.config import RouteSettings
from escala.gateway.render.rules import one_of, when
from escala.gateway.render.text import quoted, regex
from escala.gateway.topology.routes import ResolvedRoute
from escala.http.internal_headers import PREFIX

_BACK = "\\"  # starts a reference to a group of a regular expression


def root_of(route: RouteSettings) -> str | None:
    """Return the path at which clients see the service's "/"; None if the route does more than remove a prefix."""
    inner = (route.to or route.path).rstrip("/")
    return route.prefix.removesuffix(inner) if route.prefix.endswith(inner) else None


def rewrite(routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Replace a route's prefix with its `to`."""
    for route, inner in _rewritten(routes):
        prefix = route.settings.prefix
        yield f"# {route.where}.to = {route.settings.to}"
        if not inner and prefix:  # a path equal to the prefix would become empty
            yield f"http-request set-path / if {one_of([route])} {{ path {prefix} }}"
        pattern = quoted(f"^{regex(prefix)}(/.*)?$" if inner else f"^{regex(prefix)}(/.*)$")
        yield f"http-request replace-path {pattern} {quoted(f'{inner}{_BACK}1')} if {one_of([route])}"
        if root := root_of(route.settings):
            yield f"http-request set-header {PREFIX} {root} if {one_of([route])}"


def rewrite_back(routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Rewrite links, redirects and cookie paths in answers to the paths that clients use."""
    rewritten = list(_rewritten(routes))
    if rewritten:
        yield "http-request set-var(txn.authority) req.fhdr(host)"
    for route, inner in rewritten:
        yield f"# {route.where}.to: links, redirects and cookie paths in the response"
        for place in _PLACES:
            yield from _rewrite_header(route, inner, place)


@dataclass(frozen=True)
class _Place:
    """A path within a header: the pattern before it, and the conditions under which it is a path of the service."""

    header: str
    before: str = ""
    action: str = "replace-header"
    conditions: Sequence[str] = ()


def _places_of_a_url(header: str) -> tuple[_Place, _Place]:
    # "//" is followed by a host, which may be our own, as in a full URL (RFC 3986, section 4.2).
    local = f"{{ res.fhdr({header}) -m beg / }} !{{ res.fhdr({header}) -m beg // }}"
    full = f"{{ res.fhdr({header}) -m sub // }} {{ res.fhdr({header}),field(3,/),strcmp(txn.authority) eq 0 }}"
    return _Place(header, conditions=(local,)), _Place(header, "([A-Za-z]+:)?//[^/?#]+", conditions=(full,))


_PLACES = (
    *_places_of_a_url("Location"),
    *_places_of_a_url("Content-Location"),
    _Place("Link", " *<", "replace-value"),
    _Place("Refresh", "[0-9.]+ *[;,] *[Uu][Rr][Ll] *= *[\"']?"),
    _Place("Set-Cookie", ".*; *[Pp][Aa][Tt][Hh]="),
)
_MARK = "escala-public:"
"""A placeholder for the prefix in paths that already have it, while the prefix is added to all others."""


def _rewrite_header(route: ResolvedRoute, inner: str, place: _Place) -> Iterator[str]:
    here = when(one_of([route]), *place.conditions)
    public, before = route.settings.prefix, f"^({place.before})"
    # The number of the group after the prefix: each group within `before` counts too.
    rest = 2 + place.before.count("(")
    end = "([/?#;>\"'].*|)$"

    def rule(pattern: str, replacement: str, condition: str = here) -> str:
        return f"http-response {place.action} {place.header} {quoted(pattern)} {quoted(replacement)}{condition}"

    if root_of(route.settings):
        yield rule(f"{before}{regex(public)}{end}", f"{_BACK}1{_MARK}{_BACK}{rest}")
    if inner:
        yield rule(f"{before}{regex(inner)}{end}", f"{_BACK}1{public}{_BACK}{rest}")
    elif place.header == "Set-Cookie":  # other services may need a cookie for the whole host ("/")
        yield rule(f"{before}(/[^/;].*)$", f"{_BACK}1{public}{_BACK}{rest}")
    else:
        yield rule(f"{before}(/[^/].*|/)$", f"{_BACK}1{public}{_BACK}{rest}")
    if root_of(route.settings):
        yield rule(f"{before}{_MARK}(.*)$", f"{_BACK}1{public}{_BACK}{rest}", when(one_of([route])))


def _rewritten(routes: Sequence[ResolvedRoute]) -> Iterator[tuple[ResolvedRoute, str]]:
    for route in routes:
        if route.settings.to is not None:
            yield route, route.settings.to.rstrip("/")
