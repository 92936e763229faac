"""The back half of the gateway for one service, the balancer: replicas, algorithm, queue, health, retries."""

import math
from collections.abc import Iterator, Sequence

from escala.config import Balance, Policy, Service
from escala.gateway import limits, tokens
from escala.gateway.rewriting import rewrite, rewrite_back
from escala.gateway.routing import Lane, Placed, leading_to
from escala.gateway.rules import by_value, one_of, refuse, when
from escala.gateway.text import located, milliseconds, quoted
from escala.gateway.upstream import Backend, Server, Surroundings
from escala.headers import MAX_BODY

IDEMPOTENT = "GET HEAD OPTIONS TRACE PUT DELETE"
"""Methods that may be repeated (RFC 9110, section 9.2.2)."""

COMPRESSED = (
    "text/html text/plain text/css text/csv text/javascript application/javascript application/json"
    " application/problem+json application/xml image/svg+xml"
)
_BODY_SECONDS = 10
_BODY_BYTES = 16 * 1024 - 1024  # of HAProxy's buffer, less its reserve
_BUDGET_WINDOW = "10s"
_BUDGET_SHARE = 5
_BUDGET_LEAST = 10


def backend(
    live: Backend, service: Service, lane: Lane, defaults: Policy, routes: Sequence[Placed], around: Surroundings
) -> Iterator[str]:
    """Yield the lines of a lane's section; `routes` are those of all services."""
    reaching, balance = lane.routes, lane.balance
    yield from _algorithm(balance)
    yield f"retries {balance.retries}"
    yield f"timeout connect {milliseconds(balance.connect_timeout)}"
    yield f"timeout queue {milliseconds(balance.queue_timeout)}"
    yield from _health(service)
    sleeps = service.replicas.min == 0
    if sleeps:
        yield from _hold(lane.name, service, balance)
    full = refuse(503, "Every replica of the service is busy.", ("Retry-After", "1"))
    yield full + when(f"{{ queue ge {balance.queue} }}")
    # All routes, as a scope's bit and a limit's table are the same everywhere.
    yield from tokens.granted(routes, reaching)
    yield from limits.after_verification(routes, reaching)
    # A body that trickles must not keep a replica busy. One without announced length may be a dialogue; it passes.
    trickle = "{ var(txn.length) -m int gt 0 }"
    yield f"http-request wait-for-body time {_BODY_SECONDS}s at-least {_BODY_BYTES}" + when(trickle)
    yield from _bodies(
        reaching, max((placed.policy.max_body for placed in leading_to(routes, live.service)), default=0)
    )
    yield from _retries(reaching, limits.counters(routes) + 2)
    yield from _timeouts(reaching, defaults)
    yield from _cache(reaching)
    yield from _compression(reaching)
    yield from rewrite(reaching)
    yield from rewrite_back(reaching)
    for server in live.servers:
        endpoint = quoted(located(server.endpoint))
        yield f"server {server.name} {endpoint} {server_options(server, service, balance)}{_disabled(server)}"
    if not sleeps:  # whose requests wait for the first replica
        yield f"server none {quoted('unix@' + around.unavailable)} id 100000 backup no-check"


def server_options(server: Server, service: Service, balance: Balance) -> str:
    """Return the options of a replica, whether it is written down or added while the gateway runs."""
    words = [
        f"id {server.number} weight {server.weight}",
        f"maxconn {balance.inflight}",
        "check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1",
    ]
    if not (service.command and service.on_socket):
        # A refused connection is a process that is gone: out at the first, not when a check or the supervisor says so.
        # But a Unix socket refuses when its backlog is full, too, which may be short where the server is not ours.
        words.append("observe layer4 error-limit 1 on-error mark-down")
    if balance.sticky is not None:
        words.append(f"cookie {server.number}")
    if service.protocol == "h2":
        words.append("proto h2")
    if balance.slow_start is not None:
        words.append(f"slowstart {milliseconds(balance.slow_start)}")
    return " ".join(words)


def cache_name(seconds: float) -> str:
    return f"escala.{milliseconds(seconds)}"


def _hold(name: str, service: Service, balance: Balance) -> Iterator[str]:
    """Let requests wait for the first replica of a service that sleeps, as long as one may take to start."""
    none = f"{{ nbsrv({name}) eq 0 }}"
    crowd = refuse(503, "Too many requests wait for the first replica.", ("Retry-After", "1"))
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
    if balance.sticky is not None:
        yield f"cookie {balance.sticky} insert indirect nocache httponly attr SameSite=Lax"


def _health(service: Service) -> Iterator[str]:
    if service.health == "tcp":
        yield "option tcp-check"
        return
    yield "option httpchk"
    # Over a Unix socket a client has no address, and an app that looks at it would not be well.
    yield f"http-check send meth GET uri {service.health} hdr Host localhost hdr X-Forwarded-For 127.0.0.1"
    # 404: the app has no such page, and is well enough to say so.
    yield f"http-check expect rstatus {quoted('^([23]..|404)$')}"


def _bodies(routes: Sequence[Placed], most: int) -> Iterator[str]:
    """Let a replica stop at a route's largest body where its service's, up to which it counts by itself, is larger."""
    for largest, condition in by_value(routes, lambda placed: placed.policy.max_body):
        if largest < most:
            unannounced = "!{ var(txn.length) -m found }"
            yield f"http-request set-header {MAX_BODY} {largest}" + when(condition, unannounced)


def _retries(routes: Sequence[Placed], counter: int) -> Iterator[str]:
    """Repeat what may be repeated, unless so much fails that repeating makes it worse."""
    counted = f"http_req_rate({_BUDGET_WINDOW}),http_fail_rate({_BUDGET_WINDOW})"
    yield f"stick-table type integer size 1 expire {_BUDGET_WINDOW} store {counted}"
    yield f"http-request track-sc{counter} int(0)"
    yield f"http-request disable-l7-retry unless {{ method {IDEMPOTENT} }}"
    for retry, condition in by_value(routes, lambda placed: placed.policy.retry):
        if not retry:
            yield "http-request disable-l7-retry" + when(condition)
    failing = f"{{ sc_http_fail_rate({counter}) gt {_BUDGET_LEAST} }}"
    rate = f"{{ sc_http_req_rate({counter}),set-var(txn.rate) -m found }}"  # for the next, as sub() takes a variable
    spent = f"{{ sc_http_fail_rate({counter}),mul({_BUDGET_SHARE}),sub(txn.rate) -m int gt 0 }}"
    yield "http-request disable-l7-retry" + when(failing, rate, spent)


def _timeouts(routes: Sequence[Placed], defaults: Policy) -> Iterator[str]:
    for seconds, condition in by_value(routes, lambda placed: placed.policy.timeout):
        if seconds != defaults.timeout:
            yield f"http-request set-timeout server {milliseconds(seconds)}" + when(condition)
    for seconds, condition in by_value(routes, lambda placed: placed.policy.idle_timeout):
        if seconds != defaults.idle_timeout:
            yield f"http-request set-timeout tunnel {milliseconds(seconds)}" + when(condition)


def _cache(routes: Sequence[Placed]) -> Iterator[str]:
    for seconds, condition in by_value(routes, lambda placed: placed.policy.cache):
        if seconds is None:
            continue
        age = quoted(f"public, max-age={max(1, round(seconds))}")
        silent = "!{ res.hdr(cache-control) -m found }"
        # What a request says of its sender, or asks in a body, may be in the answer, which then is not everybody's.
        nobodys = ("!{ req.fhdr(authorization) -m found }", "!{ req.fhdr(cookie) -m found }")
        shared, personal = "{ var(txn.shared) -m bool }", "{ res.fhdr(set-cookie) -m found }"
        asking = ("{ method GET HEAD }", *nobodys)
        # Whether there is a body no header tells in HTTP/2.
        yield f"http-request wait-for-body time {_BODY_SECONDS}s at-least 1" + when(condition, *asking)
        yield "http-request set-var(txn.shared) bool(true)" + when(condition, *asking, "!{ req.body_len gt 0 }")
        yield f"http-request cache-use {cache_name(seconds)}" + when(condition, shared)
        kept = (shared, f"!{personal}")
        yield f"http-response set-header Cache-Control {age}" + when(condition, "{ status 200 }", silent, *kept)
        yield f"http-response cache-store {cache_name(seconds)}" + when(condition, *kept)


def _compression(routes: Sequence[Placed]) -> Iterator[str]:
    chosen = [placed for placed in routes if placed.policy.compression]
    if not chosen:
        return
    for seconds in sorted({placed.policy.cache for placed in routes if placed.policy.cache is not None}):
        yield f"filter cache {cache_name(seconds)}"
    yield "filter compression"
    yield "compression algo gzip"
    yield f"compression type {COMPRESSED}"
    others = [placed for placed in routes if placed not in chosen]
    if others:
        # The filter is the backend's; on these routes it, and the service, must think that nothing is accepted.
        yield f"http-request del-header Accept-Encoding if {one_of(others)}"
