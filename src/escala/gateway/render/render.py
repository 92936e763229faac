"""escala.toml and the live replicas → HAProxy's configuration. Pure: text out, nothing touched.

References: HAProxy 2.8 Configuration Manual; sections are named where a choice needs one.
"""

from collections.abc import Iterator, Mapping, Sequence

from escala.config import GatewaySettings
from escala.gateway.render import limits, tokens
from escala.gateway.render.backend import CHANGED, backend, cache_name, changed_table
from escala.gateway.render.context import RenderContext
from escala.gateway.render.frontend import WORKER, frontend
from escala.gateway.render.rules import folded
from escala.gateway.render.text import milliseconds, problem, quoted
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology

MAX_DRAIN = 600.0
"""Seconds after which a worker that was replaced by a reload ends, whatever it still has."""

MAX_HEADERS = 256
"""Header lines of a request or an answer."""
_REWRITE_BYTES = 1024
"""Of a buffer, for headers that are added."""

_CACHE_MEGABYTES = 16
_HOT_BYTES = 4 * 1024**2
_MAX_COMMENT = 200
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
_HEAD = """\
# Written by Escala from escala.toml; changes made here are lost.
# A comment names the key of escala.toml that the lines below it come from.

"""
_BODY_LATE = "The request is malformed, or its body did not arrive in time."


def render(topology: Topology, servers: Mapping[str, Sequence[Server]], context: RenderContext) -> str:
    """Return the whole configuration; `servers` are the replicas of each service."""
    ages = topology.cache_ages
    sections = [
        _section("global", _global(topology, context)),
        _section("defaults", _defaults(topology.config.gateway)),
        _section("frontend gateway", frontend(topology, context)),
        _section("frontend unavailable", _unavailable(context)),
        _section("frontend admin", _admin(context)),
    ]
    if context.access_log is not None:
        sections.append(_section("backend escala.collector", _collector(context)))
    sections.append(_section(f"backend {tokens.TABLE}", tokens.table(topology)))
    sections.append(_section(f"backend {tokens.REFUSED}", tokens.refused_table()))
    sections += [_section(f"backend {limit.table}", limits.table(limit)) for limit in topology.limits]
    sections += [_section(f"cache {cache_name(seconds)}", _cache(seconds)) for seconds in ages]
    if ages:
        sections.append(_section(f"backend {CHANGED}", changed_table(ages[-1])))
    for service, replicas in servers.items():
        for each in topology.backends[service]:
            sections.append(_section(f"backend {each.name}", backend(each, topology, replicas, context)))
    return _HEAD + "\n".join(sections)


def _section(head: str, lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join([head, *(f"    {_cut(line)}" for line in folded(lines))]) + "\n"


def _cut(line: str) -> str:
    """Shorten a comment that names many routes."""
    return f"{line[:_MAX_COMMENT]} ..." if line.startswith("#") and len(line) > _MAX_COMMENT else line


def _global(topology: Topology, context: RenderContext) -> Iterator[str]:
    gateway = topology.config.gateway
    yield "# gateway.max_connections"
    yield f"maxconn {gateway.max_connections}"
    if gateway.threads is not None:
        yield "# gateway.threads"
        yield f"nbthread {gateway.threads}"
    yield "# The Runtime API"
    yield f"stats socket {quoted('unix@' + context.socket)} mode 600 level admin expose-fd listeners"
    yield "log stdout format raw local0 notice"
    if context.access_log is not None:
        yield f"set-var {WORKER} date(0,us),concat()"  # as text, which is in each line
    yield f"hard-stop-after {milliseconds(MAX_DRAIN)}"
    # A request in flight holds a second buffer, to be repeated from; kept by the thread, they stay in its caches.
    yield f"tune.memory.hot-size {_HOT_BYTES}"
    yield "# gateway.max_head"
    yield f"tune.bufsize {gateway.max_head + _REWRITE_BYTES}"
    yield f"tune.maxrewrite {_REWRITE_BYTES}"
    yield f"tune.http.maxhdr {MAX_HEADERS}"
    # The token's, the limits', the refused tokens', the retries' budget, what was changed in the cache.
    counters = 3 + topology.limit_counters + bool(topology.cache_ages)
    if counters > _OWN_COUNTERS:
        yield f"tune.stick-counters {counters}"
    if any(service.replicas.min == 0 for service in topology.services.values()):
        yield f"lua-load-per-thread {quoted(context.hold)}"
    if context.certificates is not None:
        yield "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets"
        yield "tune.ssl.default-dh-param 2048"


def _defaults(gateway: GatewaySettings) -> Iterator[str]:
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
    yield "# gateway.timeout, gateway.idle_timeout; routes and balance set their own in the backends"
    yield "timeout http-request 10s"
    yield "timeout http-keep-alive 60s"
    yield f"timeout client {milliseconds(gateway.timeout)}"
    # Also how long a refused connection waits before its next try (at most 1 s; stream turn-context).
    yield "timeout connect 250ms"
    yield "timeout queue 5s"
    yield f"timeout server {milliseconds(gateway.timeout)}"
    yield f"timeout tunnel {milliseconds(gateway.idle_timeout)}"
    yield "timeout check 2s"
    yield "# What the gateway answers by itself, as problem documents (RFC 9457)"
    largest = f"{gateway.max_head / 1024:g} KiB"
    for status, detail in ERRORS.items():
        answer = problem(status, detail.format(max_head=largest, headers=MAX_HEADERS))
        again = " hdr Retry-After 1" if status == 503 else ""
        if status == 400:  # HAProxy's for a body that stalls; the frontend makes 408 of it
            answer = problem(400, _BODY_LATE, named=False)
        yield f"http-error {answer}{again}"


def _unavailable(context: RenderContext) -> Iterator[str]:
    """Answer for services without a replica, as their backup server.

    HAProxy itself answers nothing, and closes, when a retry that began on a reused connection finds no server.
    """
    detail = "No replica of the service is ready."
    yield "# Answers for services without a replica, as their backup server"
    yield f"bind {quoted('unix@' + context.unavailable)} mode 600"
    yield "no log"
    yield "option httpclose"  # or the gateway's own idle connections to it would hold up a stop
    yield f"http-request return {problem(503, detail, request_id='%[req.hdr(x-request-id)]')} hdr Retry-After 1"


def _admin(context: RenderContext) -> Iterator[str]:
    yield "# gateway.admin: metrics"
    yield f"bind {context.admin}"
    yield "no log"
    yield "http-request use-service prometheus-exporter if { path /metrics }"
    here = "There are /metrics and /metrics/routes."
    elsewhere = " unless { path /metrics/routes }" if context.access_log is not None else ""
    yield f"http-request return {problem(404, here)}{elsewhere}"
    if context.access_log is not None:
        yield "use_backend escala.collector"


def _collector(context: RenderContext) -> Iterator[str]:
    yield "# The access log's collector, which counts by route"
    yield f"server collector {quoted('unix@' + context.route_metrics)}"


def _cache(seconds: float) -> Iterator[str]:
    yield f"# Answers of routes with cache = {seconds:g} s"
    yield f"total-max-size {_CACHE_MEGABYTES}"
    yield f"max-object-size {1024**2}"
    yield f"max-age {max(1, round(seconds))}"
    yield "process-vary on"
