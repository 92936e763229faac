"""escala.toml and the live replicas → HAProxy's configuration. Pure: text out, nothing touched.

References: HAProxy 2.8 Configuration Manual; sections are named where a choice needs one.
"""

from collections.abc import Iterator, Mapping, Sequence

from escala.config import Config, ServiceSettings
from escala.gateway.render import limits, tokens
from escala.gateway.render.backend import CHANGED, backend, cache_name, changed_table
from escala.gateway.render.context import RenderContext
from escala.gateway.render.frontend import WORKER, frontend
from escala.gateway.render.rules import folded
from escala.gateway.render.text import milliseconds, problem, quoted
from escala.gateway.topology.routes import Placed, lanes, placed_routes
from escala.gateway.topology.servers import Backend

LONGEST_DRAIN = 600.0
"""Seconds after which a worker that was replaced by a reload ends, whatever it still has."""

MOST_HEADERS = 256
"""Header lines of a request or an answer."""
_REWRITE_BYTES = 1024
"""Of a buffer, for headers that are added."""

_CACHE_MEGABYTES = 16
_HOT_BYTES = 4 * 1024**2
_OWN_COUNTERS = 3  # what HAProxy has of sticky counters without being asked

ERRORS = {
    400: "The request is malformed.",
    401: "This needs an access token.",
    403: "The token does not allow this.",
    404: "No route leads there.",
    405: "This method is not allowed here.",
    408: "The request took too long to arrive.",
    413: "The body is larger than allowed.",
    429: "Too many requests; slow down.",
    500: "The gateway failed to handle this request.",
    502: (
        "The service's answer was broken off or invalid, or its head is larger than {max_head} (gateway.max_head) or"
        " has more than {headers} lines."
    ),
    503: "No replica of the service is free.",
    504: "The service took too long to answer.",
}
"""Statuses that the gateway answers by itself, with the detail of each."""
_BODY_LATE = "The request is malformed, or its body did not arrive in time."


def render(
    config: Config, services: Mapping[str, ServiceSettings], backends: Sequence[Backend], context: RenderContext
) -> str:
    """Return the whole configuration; `services` has the built-in one too."""
    routes = placed_routes(config)
    sections = [
        _section("global", _global(config, services, routes, context)),
        _section("defaults", _defaults(config)),
        _section("frontend gateway", frontend(config, routes, context)),
        _section("frontend unavailable", _unavailable(context)),
        _section("frontend admin", _admin(context)),
    ]
    if context.access_log is not None:
        sections.append(_section("backend escala.collector", _collector(context)))
    sections.append(_section(f"backend {tokens.TABLE}", tokens.table(config, routes)))
    sections.append(_section(f"backend {tokens.REFUSED}", tokens.refused_table()))
    sections += [_section(f"backend {limit.table}", limits.table(limit)) for limit in limits.limits_of(routes)]
    ages = sorted({placed.policy.cache for placed in routes if placed.policy.cache is not None})
    sections += [_section(f"cache {cache_name(seconds)}", _cache(seconds)) for seconds in ages]
    if ages:
        sections.append(_section(f"backend {CHANGED}", changed_table(ages[-1])))
    for live in backends:
        for lane in lanes(config, routes, live.service):
            lines = backend(live, services[live.service], lane, config.gateway, routes, context)
            sections.append(_section(f"backend {lane.name}", lines))
    return "# Written by Escala from escala.toml; changes made here are lost.\n\n" + "\n".join(sections)


def _section(head: str, lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join([head, *(f"    {line}" for line in folded(lines))]) + "\n"


def _global(
    config: Config, services: Mapping[str, ServiceSettings], routes: Sequence[Placed], context: RenderContext
) -> Iterator[str]:
    yield f"maxconn {config.gateway.max_connections}"
    if config.gateway.threads is not None:
        yield f"nbthread {config.gateway.threads}"
    yield f"stats socket {quoted('unix@' + context.socket)} mode 600 level admin expose-fd listeners"
    yield "log stdout format raw local0 notice"
    if context.access_log is not None:
        yield f"set-var {WORKER} date(0,us),concat()"  # as text, which is in each line
    yield f"hard-stop-after {milliseconds(LONGEST_DRAIN)}"
    # A request in flight holds a second buffer, to be repeated from; kept by the thread, they stay in its caches.
    yield f"tune.memory.hot-size {_HOT_BYTES}"
    yield f"tune.bufsize {config.gateway.max_head + _REWRITE_BYTES}"
    yield f"tune.maxrewrite {_REWRITE_BYTES}"
    yield f"tune.http.maxhdr {MOST_HEADERS}"
    # The token's, the limits', the refused tokens', the retries' budget, what was changed in the cache.
    counters = 3 + limits.counters(routes) + any(placed.policy.cache is not None for placed in routes)
    if counters > _OWN_COUNTERS:
        yield f"tune.stick-counters {counters}"
    if any(service.replicas.min == 0 for service in services.values()):
        yield f"lua-load-per-thread {quoted(context.hold)}"
    if context.certificates is not None:
        yield "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets"
        yield "tune.ssl.default-dh-param 2048"


def _defaults(config: Config) -> Iterator[str]:
    yield "mode http"
    yield "log global"
    yield "option dontlognull"
    yield "option http-keep-alive"
    # A client whose idle connection is closed by a reload may just be sending its next request on it.
    yield "option idle-close-on-response"
    yield "option redispatch 1"
    # Each backend limits all but connection failures to idempotent methods.
    yield "retry-on conn-failure empty-response"
    # Who leaves takes the request along: out of the queue, and from a replica that works on it.
    yield "option abortonclose"
    yield "http-reuse always"
    yield "timeout http-request 10s"
    yield "timeout http-keep-alive 60s"
    yield f"timeout client {milliseconds(config.gateway.timeout)}"
    # Also how long a refused connection waits before its next try (at most 1 s; stream turn-context).
    yield "timeout connect 250ms"
    yield "timeout queue 5s"
    yield f"timeout server {milliseconds(config.gateway.timeout)}"
    yield f"timeout tunnel {milliseconds(config.gateway.idle_timeout)}"
    yield "timeout check 2s"
    largest = f"{config.gateway.max_head / 1024:g} KiB"
    for status, detail in ERRORS.items():
        answer = problem(status, detail.format(max_head=largest, headers=MOST_HEADERS))
        again = " hdr Retry-After 1" if status == 503 else ""
        if status == 400:  # HAProxy's for a body that stalls; the frontend makes 408 of it
            answer = problem(400, _BODY_LATE, named=False)
        yield f"http-error {answer}{again}"


def _unavailable(context: RenderContext) -> Iterator[str]:
    """Answer for services without a replica, as their backup server.

    HAProxy itself answers nothing, and closes, when a retry that began on a reused connection finds no server.
    """
    detail = "No replica of the service is ready."
    yield f"bind {quoted('unix@' + context.unavailable)} mode 600"
    yield "no log"
    yield "option httpclose"  # or the gateway's own idle connections to it would hold up a stop
    yield f"http-request return {problem(503, detail, request_id='%[req.hdr(x-request-id)]')} hdr Retry-After 1"


def _admin(context: RenderContext) -> Iterator[str]:
    yield f"bind {context.admin}"
    yield "no log"
    yield "http-request use-service prometheus-exporter if { path /metrics }"
    here = "There are /metrics and /metrics/routes."
    elsewhere = " unless { path /metrics/routes }" if context.access_log is not None else ""
    yield f"http-request return {problem(404, here)}{elsewhere}"
    if context.access_log is not None:
        yield "use_backend escala.collector"


def _collector(context: RenderContext) -> Iterator[str]:
    yield f"server collector {quoted('unix@' + context.route_metrics)}"


def _cache(seconds: float) -> Iterator[str]:
    yield f"total-max-size {_CACHE_MEGABYTES}"
    yield f"max-object-size {1024**2}"
    yield f"max-age {max(1, round(seconds))}"
    yield "process-vary on"
