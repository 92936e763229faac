"""Cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol), handled on behalf of the services."""

from collections.abc import Iterator, Sequence

from escala.gateway.render.rules import by_value, when
from escala.gateway.render.text import quoted
from escala.gateway.topology.routes import ResolvedRoute


def preflight(routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Store the origin of a request if its route allows it, and answer preflight requests, which carry no token."""
    for group in by_value(routes, lambda route: route.policy.cors):
        cors, condition = group.value, group.condition
        if cors is None:
            continue
        yield group.comment("cors")
        everybody = "*" in cors.origins
        known = (
            "{ req.fhdr(origin) -m found }"
            if everybody
            else f"{{ req.fhdr(origin) -m str -- {' '.join(cors.origins)} }}"
        )
        allowed = "str(*)" if everybody else "req.fhdr(origin)"
        yield f"http-request set-var(txn.origin) {allowed}" + when(condition, known)
        headers = {
            "Access-Control-Allow-Methods": ", ".join(cors.methods),
            "Access-Control-Allow-Headers": ", ".join(cors.headers),
            "Access-Control-Max-Age": str(round(cors.max_age)),
        }
        words = "".join(f" hdr {name} {quoted(value)}" for name, value in headers.items())
        asked = "{ method OPTIONS } { req.fhdr(access-control-request-method) -m found } { var(txn.origin) -m found }"
        yield f"http-request return status 204{words}" + when(condition, asked)


def headers(routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Allow the page to read the answer, including the gateway's own errors."""
    for group in by_value(routes, lambda route: route.policy.cors):
        cors, condition = group.value, group.condition
        if cors is None:
            continue
        yield group.comment("cors")
        admitted = "{ var(txn.origin) -m found }"
        given = {"Access-Control-Allow-Origin": "%[var(txn.origin)]"}
        if cors.expose:
            given["Access-Control-Expose-Headers"] = ", ".join(cors.expose)
        if cors.credentials:
            given["Access-Control-Allow-Credentials"] = "true"
        for name, value in given.items():
            yield f"http-after-response set-header {name} {quoted(value)}" + when(condition, admitted)
        if "*" not in cors.origins:
            yield "http-after-response add-header Vary Origin" + when(condition)
