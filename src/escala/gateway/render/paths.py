"""From a request's host and path to its route, and which paths are refused as ambiguous."""

from collections.abc import Iterator

from escala.gateway.render.context import RenderContext
from escala.gateway.render.rules import one_of, refuse, when
from escala.gateway.render.text import quoted
from escala.gateway.topology.topology import Topology

_BACKSLASH = quoted("\\")
_AMBIGUOUS = (
    "The path is ambiguous: it must not contain empty or dot segments, backslashes, encoded slashes, incomplete"
    " encoding, or encoding or parameters (;) that lead to another route."
)
_DECODED = "path,url_dec,regsub(;[^/]*,,g)"
"""The path as read by servers that first decode it, and then remove parameters from its segments (RFC 3986, 3.3)."""
_READINGS = {
    "merged": f"{_DECODED},regsub(//+,/,g)",
    "stripped": "path,regsub(;[^/]*,,g),url_dec,regsub(;[^/]*,,g),regsub(//+,/,g)",
}
"""The path as read by servers that merge empty segments, and by servers that remove parameters before they decode.

Each step can only make a path match a longer prefix. So if the original path and both of these readings lead to the
same route, all readings in between lead to it too.
"""
_MISLEADING = (
    "The path is ambiguous: it must not contain dot segments, backslashes, incomplete encoding, or anything that"
    " some servers would treat as another route."
)


def choose_route(topology: Topology, context: RenderContext) -> Iterator[str]:
    """Set txn.route, and refuse paths that different servers may read differently.

    The path that is checked here must be the path that the service sees. So a path is refused if it leads to another
    route once it is decoded.
    """
    as_is = [route for route in topology.routes if route.policy.paths == "as-is"]
    readings = {"decoded": _DECODED, **(_READINGS if as_is else {})}
    routes_map = quoted(context.routes)
    special = "{ path -m sub % ; // }"
    yield "# The route: by host and longest prefix in routes.map; also for other readings of the path"
    if topology.has_hosts:
        yield "http-request set-var(txn.host) req.fhdr(host),lower,field(1,:),rtrim(.)"
        yield "http-request set-var(txn.parent) var(txn.host),field(2,.,0)"
        yield from _by_host("route", "path", routes_map)
        for name, path in readings.items():
            yield from _by_host(name, path, routes_map, special, otherwise=",-")
        route_of = {name: f"var(txn.{name})" for name in readings}
    else:
        yield f"http-request set-var(txn.route) path,concat(/),map_beg({routes_map})"
        route_of = {name: f"{path},concat(/),map_beg({routes_map},-)" for name, path in readings.items()}
    elsewhere = {name: f"{route},strcmp(txn.route),bool -m bool" for name, route in route_of.items()}
    yield "# ambiguous: servers may read the path differently, so it could pass one route's rules and reach another"
    always = (
        f"path -m sub {_BACKSLASH}",
        "path -m sub -i %5c %00",
        f"path -m reg {quoted('%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)')}",
        f"{_DECODED},concat(/) -m sub /../ /./",
        elsewhere["decoded"],
    )
    for meaning in (*always, "path -m sub //", "path -m sub -i %2f", f"{_DECODED} -m sub //"):
        yield f"acl ambiguous {meaning}"
    suspicious = f"{{ path -m sub % ; // /. {_BACKSLASH} }}"  # most paths skip the checks below
    if as_is:
        yield '# misleading: the same for routes with paths = "as-is": all readings must lead to the same route'
        for meaning in (*always, "path,url_dec,concat(/) -m sub /../ /./", *(elsewhere[name] for name in _READINGS)):
            yield f"acl misleading {meaning}"
        yield refuse(400, _MISLEADING) + when(suspicious, one_of(as_is), "misleading")
        yield refuse(400, _AMBIGUOUS) + when(suspicious, f"!{one_of(as_is)}", "ambiguous")
    else:
        yield refuse(400, _AMBIGUOUS) + when(suspicious, "ambiguous")
    yield refuse(404, "No route matches this path.") + when("!{ var(txn.route) -m found }")


def _by_host(name: str, path: str, routes_map: str, *conditions: str, otherwise: str = "") -> Iterator[str]:
    """Set a variable to the route of a path: try the host, then "*.PARENT", then any host; the longest prefix wins."""
    missing = f"!{{ var(txn.{name}) -m found }}"
    yield f"http-request set-var(txn.path) {path},concat(/)" + when(*conditions)
    yield f"http-request set-var(txn.{name}) var(txn.host),concat(,txn.path),map_beg({routes_map})" + when(*conditions)
    parent = f"str(.),concat(,txn.parent),concat(,txn.path),map_beg({routes_map})"
    yield f"http-request set-var(txn.{name}) {parent}" + when(*conditions, missing)
    anywhere = f"var(txn.path),map_beg({routes_map}{otherwise})"
    yield f"http-request set-var(txn.{name}) {anywhere}" + when(*conditions, missing)
