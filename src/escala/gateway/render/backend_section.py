"""The back half of the gateway for one service, the balancer: replicas, algorithm, queue, health, retries."""

import math
from collections.abc import Iterator, Sequence

from escala.config import Balance, Policy, ServiceSettings
from escala.gateway.render import limits, tokens
from escala.gateway.render.cache import cache_name, cache_rules
from escala.gateway.render.context import RenderContext
from escala.gateway.render.rewriting import rewrite, rewrite_back
from escala.gateway.render.rules import by_value, one_of, refuse, when
from escala.gateway.render.sticky import sticky_cookie, sticky_header
from escala.gateway.render.text import located, milliseconds, quoted
from escala.gateway.topology.backend_names import websocket_backend
from escala.gateway.topology.backends import Backend
from escala.gateway.topology.routes import ResolvedRoute, sources_of
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from escala.http.internal_headers import MAX_BODY
from escala.http.methods import IDEMPOTENT

COMPRESSED = (
    "text/html text/plain text/css text/csv text/javascript application/javascript application/json"
    " application/problem+json application/xml image/svg+xml"
)
_BODY_SECONDS = 10
_BODY_BYTES = 16 * 1024 - 1024  # HAProxy's buffer minus its reserve
_BUDGET_WINDOW = "10s"
_BUDGET_SHARE = 5
_BUDGET_LEAST = 10


def backend(backend: Backend, topology: Topology, servers: Sequence[Server], context: RenderContext) -> Iterator[str]:
    """Yield the lines of a backend's section."""
    service, balance, routes = topology.services[backend.service], backend.balance, backend.routes
    counters = topology.limit_counters
    yield f"# {_purpose(backend)}"
    yield "# balance: algorithm, retries, connect_timeout, queue_timeout"
    yield from _algorithm(balance)
    yield f"retries {balance.retries}"
    yield f"timeout connect {milliseconds(balance.connect_timeout)}"
    yield f"timeout queue {milliseconds(balance.queue_timeout)}"
    if service.command is not None:
        yield "# A server may close idle connections at any time"
        # A request is then lost if it may not be retried, and if it was sent on a connection that other clients used.
        # On the client's own connection, the client itself retries (RFC 9112, section 9.5).
        yield "http-reuse safe"
    sleeps = service.replicas.min == 0
    if sleeps:
        yield from _hold(backend.name, service, balance)
    yield "# balance.queue"
    full = refuse(503, "Every replica of the service is busy.", ("Retry-After", "1"))
    yield full + when(f"{{ queue ge {balance.queue} }}")
    yield from tokens.granted(topology.scopes, routes)
    yield from limits.after_verification(topology.limits, routes)
    yield "# A slowly sent body must not keep a replica busy; one without Content-Length may be an interactive stream"
    trickle = "{ var(txn.length) -m int gt 0 }"
    yield f"http-request wait-for-body time {_BODY_SECONDS}s at-least {_BODY_BYTES}" + when(trickle)
    yield from _bodies(routes, topology.max_body(backend.service))
    yield "http-response set-var(txn.answered) bool(true) if { status 400 }"  # see the frontend's 408
    yield from _retries(routes, counters + 2)
    yield from _timeouts(routes, topology.config.gateway)
    yield from cache_rules(routes, balance, counters + 3)
    yield from _sticky_header(balance)
    yield from _compression(routes)
    yield from rewrite(routes)
    yield from rewrite_back(routes)
    limit = "websockets" if backend.name == websocket_backend(backend.service) else "inflight"
    yield f"# Replicas; maxconn is balance.{limit}, or the number of threads of a WSGI app"
    for server in servers:
        endpoint = quoted(located(server.endpoint))
        yield f"server {server.name} {endpoint} {server_options(server, service, balance)}{_disabled(server)}"
    if not sleeps:  # whose requests wait for the first replica
        yield "# Answers 503 while there is no replica"
        yield f"server none {quoted('unix@' + context.unavailable)} id 100000 backup no-check"


def _purpose(backend: Backend) -> str:
    """Return a comment for operators that says which requests a backend serves."""
    if backend.name == websocket_backend(backend.service):
        return f"Service {backend.service}, WebSockets"
    names = " ".join(route.name for route in backend.routes)
    return f"Service {backend.service}, routes: {names or 'none'}"


def server_options(server: Server, service: ServiceSettings, balance: Balance) -> str:
    """Return the options of a replica, both for the configuration file and for the Runtime API."""
    words = [
        f"id {server.number} weight {server.weight}",
        f"maxconn {inflight(server, balance)}",
        "check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1",
    ]
    if not (service.command and service.on_socket):
        # A refused connection means that the process has ended. So the first one marks the replica down, before a
        # health check or the supervisor notices. But a Unix socket also refuses connections when its backlog is full.
        # The backlog of a server that is not ours may be short.
        words.append("observe layer4 error-limit 1 on-error mark-down")
    if sticky_cookie(balance) is not None:
        words.append(f"cookie {server.number}")
    if service.protocol == "h2":
        words.append("proto h2")
    if balance.slow_start is not None:
        words.append(f"slowstart {milliseconds(balance.slow_start)}")
    return " ".join(words)


def inflight(server: Server, balance: Balance) -> int:
    """Return how many requests a replica gets at a time: its number of threads, unless `inflight` is configured."""
    if server.threads is not None and "inflight" not in balance.model_fields_set:
        return server.threads
    return balance.inflight


def _hold(name: str, service: ServiceSettings, balance: Balance) -> Iterator[str]:
    """Let requests wait for the first replica of a sleeping service, for as long as its start may take."""
    yield "# replicas.min = 0: requests wait for the first replica, up to start_timeout"
    none = f"{{ nbsrv({name}) eq 0 }}"
    crowd = refuse(503, "Too many requests are waiting for the first replica.", ("Retry-After", "1"))
    yield crowd + when(none, f"{{ be_conn({name}) gt {balance.queue} }}")
    yield f"http-request lua.escala_hold {name} {math.ceil(service.start_timeout)}" + when(none)


def _disabled(server: Server) -> str:
    return "" if server.state == "ready" else " disabled"


def _algorithm(balance: Balance) -> Iterator[str]:
    if balance.hash_on is not None:
        kind, _, name = balance.hash_on.partition(":")
        fetch = {"header": "req.hdr", "cookie": "req.cook", "query": "url_param"}[kind]
        yield f"balance hash {fetch}({name})"
        yield "hash-type consistent"
    else:
        yield "balance random(2)" if balance.algorithm == "random" else f"balance {balance.algorithm}"
    if (cookie := sticky_cookie(balance)) is not None:
        yield f"cookie {cookie} insert indirect nocache httponly attr SameSite=Lax"


def _sticky_header(balance: Balance) -> Iterator[str]:
    """Keep a client at the replica that opened its session, by adding the replica's number to the session's name.

    A table of sessions would be lost at each reload. If the replica is gone or unhealthy, another one is used.
    """
    name = sticky_header(balance)
    if name is None:
        return
    yield f"# balance.sticky: {name} contains the number of the replica that opened the session"
    numbered = f"{{ req.fhdr({name}) -m reg {quoted('~[0-9]+$')} }}"
    yield f"http-request set-var(txn.named) req.fhdr({name}),field(-1,~)" + when(numbered)
    yield f"http-request replace-header {name} {quoted('^(.*)~[0-9]+$')} {quoted(chr(92) + '1')}"
    yield "use-server %[var(txn.named)]" + when("{ var(txn.named) -m found }")
    yield f"http-response replace-header {name} {quoted('^(.*)$')} {quoted(chr(92) + '1~%[srv_name]')}" + when(
        "{ srv_id gt 0 }"
    )  # not for answers from the cache


def _bodies(routes: Sequence[ResolvedRoute], most: int) -> Iterator[str]:
    """Tell a replica a route's maximum body size if it is below the service's, which the replica enforces itself."""
    for group in by_value(routes, lambda route: route.policy.max_body):
        if group.value < most:
            unannounced = "!{ var(txn.length) -m found }"
            yield f"http-request set-header {MAX_BODY} {group.value}" + when(group.condition, unannounced)


def _retries(routes: Sequence[ResolvedRoute], counter: int) -> Iterator[str]:
    """Retry idempotent requests, unless so many requests fail that retries would make things worse."""
    yield "# Retry only idempotent requests (RFC 9110, 9.2.2), and not while more than a fifth of requests fail"
    counted = f"http_req_rate({_BUDGET_WINDOW}),http_fail_rate({_BUDGET_WINDOW})"
    yield f"stick-table type integer size 1 expire {_BUDGET_WINDOW} store {counted}"
    yield f"http-request track-sc{counter} int(0)"
    yield f"http-request disable-l7-retry unless {{ method {' '.join(IDEMPOTENT)} }}"
    for group in by_value(routes, lambda route: route.policy.retry):
        if not group.value:
            yield group.comment("retry")
            yield "http-request disable-l7-retry" + when(group.condition)
    failing = f"{{ sc_http_fail_rate({counter}) gt {_BUDGET_LEAST} }}"
    rate = f"{{ sc_http_req_rate({counter}),set-var(txn.rate) -m found }}"  # for `spent`: sub() takes a variable
    spent = f"{{ sc_http_fail_rate({counter}),mul({_BUDGET_SHARE}),sub(txn.rate) -m int gt 0 }}"
    yield "http-request disable-l7-retry" + when(failing, rate, spent)


def _timeouts(routes: Sequence[ResolvedRoute], defaults: Policy) -> Iterator[str]:
    for group in by_value(routes, lambda route: route.policy.timeout):
        if group.value != defaults.timeout:
            yield group.comment("timeout")
            yield f"http-request set-timeout server {milliseconds(group.value)}" + when(group.condition)
    for group in by_value(routes, lambda route: route.policy.idle_timeout):
        if group.value != defaults.idle_timeout:
            yield group.comment("idle_timeout")
            yield f"http-request set-timeout tunnel {milliseconds(group.value)}" + when(group.condition)


def _compression(routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    chosen = [route for route in routes if route.policy.compression]
    if not chosen:
        return
    yield f"# {sources_of(chosen, 'compression')}"
    for seconds in sorted({route.policy.cache for route in routes if route.policy.cache is not None}):
        yield f"filter cache {cache_name(seconds)}"
    yield "filter compression"
    yield "compression algo gzip"
    yield f"compression type {COMPRESSED}"
    others = [route for route in routes if route not in chosen]
    if others:
        # The filter applies to the whole backend. On these routes, the filter and the service must see a client that
        # accepts no compression.
        yield f"http-request del-header Accept-Encoding if {one_of(others)}"
