"""The back half of the gateway for one service, the balancer: replicas, algorithm, queue, health, retries."""

import math
from collections.abc import Iterator, Sequence

from escala.config import Balance, Policy, ServiceSettings
from escala.gateway.render import limits, tokens
from escala.gateway.render.context import RenderContext
from escala.gateway.render.rewriting import rewrite, rewrite_back
from escala.gateway.render.rules import by_value, one_of, refuse, when
from escala.gateway.render.text import located, milliseconds, quoted
from escala.gateway.topology.routes import Lane, Placed, leading_to
from escala.gateway.topology.servers import Backend, Server
from escala.http.internal_headers import MAX_BODY
from escala.http.methods import IDEMPOTENT, SAFE

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
    live: Backend,
    service: ServiceSettings,
    lane: Lane,
    defaults: Policy,
    routes: Sequence[Placed],
    context: RenderContext,
) -> Iterator[str]:
    """Yield the lines of a lane's section; `routes` are those of all services."""
    reaching, balance = lane.routes, lane.balance
    yield from _algorithm(balance)
    yield f"retries {balance.retries}"
    yield f"timeout connect {milliseconds(balance.connect_timeout)}"
    yield f"timeout queue {milliseconds(balance.queue_timeout)}"
    if service.command is not None:
        # Any server may close an idle connection when it likes. A request on one that other clients used is lost then,
        # where it may not be repeated; one on this client's own is for the client to repeat (RFC 9112, section 9.5).
        yield "http-reuse safe"
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
    yield "http-response set-var(txn.answered) bool(true) if { status 400 }"  # see the frontend's 408
    yield from _retries(reaching, limits.counters(routes) + 2)
    yield from _timeouts(reaching, defaults)
    yield from _cache(reaching, balance, limits.counters(routes) + 3)
    yield from _sticky_header(balance)
    yield from _compression(reaching)
    yield from rewrite(reaching)
    yield from rewrite_back(reaching)
    for server in live.servers:
        endpoint = quoted(located(server.endpoint))
        yield f"server {server.name} {endpoint} {server_options(server, service, balance)}{_disabled(server)}"
    if not sleeps:  # whose requests wait for the first replica
        yield f"server none {quoted('unix@' + context.unavailable)} id 100000 backup no-check"


def server_options(server: Server, service: ServiceSettings, balance: Balance) -> str:
    """Return the options of a replica, whether it is written down or added while the gateway runs."""
    words = [
        f"id {server.number} weight {server.weight}",
        f"maxconn {inflight(server, balance)}",
        "check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1",
    ]
    if not (service.command and service.on_socket):
        # A refused connection is a process that is gone: out at the first, not when a check or the supervisor says so.
        # But a Unix socket refuses when its backlog is full, too, which may be short where the server is not ours.
        words.append("observe layer4 error-limit 1 on-error mark-down")
    if sticky_cookie(balance) is not None:
        words.append(f"cookie {server.number}")
    if service.protocol == "h2":
        words.append("proto h2")
    if balance.slow_start is not None:
        words.append(f"slowstart {milliseconds(balance.slow_start)}")
    return " ".join(words)


def inflight(server: Server, balance: Balance) -> int:
    """Return how many requests a replica gets at a time: as many as it has threads, unless somebody says otherwise."""
    if server.threads is not None and "inflight" not in balance.model_fields_set:
        return server.threads
    return balance.inflight


def sticky_cookie(balance: Balance) -> str | None:
    return None if balance.sticky is None or ":" in balance.sticky else balance.sticky


def sticky_header(balance: Balance) -> str | None:
    return (balance.sticky or "").partition(":")[2] or None


def cache_name(seconds: float) -> str:
    return f"escala.{milliseconds(seconds)}"


def _hold(name: str, service: ServiceSettings, balance: Balance) -> Iterator[str]:
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
    if (cookie := sticky_cookie(balance)) is not None:
        yield f"cookie {cookie} insert indirect nocache httponly attr SameSite=Lax"


def _sticky_header(balance: Balance) -> Iterator[str]:
    """Keep a client at the replica that named its session: the session's name carries the replica's number to it.

    A table of names would be lost at each reload. A replica that is gone, or is not well, is passed over.
    """
    name = sticky_header(balance)
    if name is None:
        return
    numbered = f"{{ req.fhdr({name}) -m reg {quoted('~[0-9]+$')} }}"
    yield f"http-request set-var(txn.named) req.fhdr({name}),field(-1,~)" + when(numbered)
    yield f"http-request replace-header {name} {quoted('^(.*)~[0-9]+$')} {quoted(chr(92) + '1')}"
    yield "use-server %[var(txn.named)]" + when("{ var(txn.named) -m found }")
    yield f"http-response replace-header {name} {quoted('^(.*)$')} {quoted(chr(92) + '1~%[srv_name]')}" + when(
        "{ srv_id gt 0 }"
    )  # not from the cache


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
    yield f"http-request disable-l7-retry unless {{ method {' '.join(IDEMPOTENT)} }}"
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


def _cache(routes: Sequence[Placed], balance: Balance, counter: int) -> Iterator[str]:
    """Keep what a shared cache may keep (RFC 9111). Where HAProxy's cache does not look at something, rules do."""
    for seconds, condition in by_value(routes, lambda placed: placed.policy.cache):
        if seconds is None:
            continue
        age = quoted(f"public, max-age={max(1, round(seconds))}")
        silent = "!{ res.hdr(cache-control) -m found }"
        # What a request says of its sender, or asks in a body, may be in the answer, which then is not everybody's.
        session = sticky_header(balance)
        nobodys = [f"!{{ req.fhdr({name}) -m found }}" for name in ("authorization", "cookie", session) if name]
        impersonal = [f"!{{ res.fhdr({name}) -m found }}" for name in ("set-cookie", session) if name]
        shared = "{ var(txn.shared) -m bool }"
        keep = "!{ req.hdr(cache-control) -m sub -i no-store }"  # section 5.2.1.5
        asking = ("{ method GET HEAD }", *nobodys)
        changed = f"{{ var(txn.resource),in_table({CHANGED}) }}"
        # Whether there is a body no header tells in HTTP/2.
        yield f"http-request wait-for-body time {_BODY_SECONDS}s at-least 1" + when(condition, *asking)
        host = "req.fhdr(host),lower,field(1,:),rtrim(.)"  # however it is spelled
        yield "http-request set-var(txn.where) path" + when(condition)
        yield f"http-request set-var(txn.resource) {host},concat(,txn.where),xxh32" + when(condition)
        known = "{ var(txn.resource) -m found }"
        here = when(condition, *asking, keep, "!{ req.body_len gt 0 }", known, f"!{changed}")
        yield "http-request set-var(txn.shared) bool(true)" + here
        yield f"http-request cache-use {cache_name(seconds)}" + when(condition, shared)
        # Section 4.4: what a successful request may have changed is not answered from the cache any more.
        unsafe, good = f"!{{ method {' '.join(SAFE)} }}", "{ status 200:399 }"
        yield f"http-response track-sc{counter} var(txn.resource) table {CHANGED}" + when(condition, unsafe, good)
        # Sections 5.3 and 4.2.1: HAProxy does not read Expires, which counts unless there is an age.
        dated = "{ res.fhdr(expires) -m found }"
        aged = "{ res.hdr(cache-control) -m sub -i max-age= s-maxage= }"
        kept = (shared, *impersonal, f"!{changed}")
        fresh = when(condition, "{ status 200 }", silent, *kept, f"!{dated}")
        yield f"http-response set-header Cache-Control {age}" + fresh
        yield f"http-response cache-store {cache_name(seconds)}" + when(condition, *kept, f"!{dated}")
        yield f"http-response cache-store {cache_name(seconds)}" + when(condition, *kept, dated, aged)
    cached = [placed for placed in routes if placed.policy.cache is not None]
    if cached:
        # An answer for everybody sets no cookie that keeps one client at its replica.
        yield "ignore-persist" + when(one_of(cached), "{ method GET HEAD }", "!{ req.fhdr(cookie) -m found }")


CHANGED = "escala.changed"
"""What was changed through the gateway lately, by a digest of host and path."""


def changed_table(seconds: float) -> list[str]:
    """Return the table's lines; `seconds` is the longest time for which answers are kept."""
    return [f"stick-table type integer size 100k expire {milliseconds(seconds)} store gpt(1)"]


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
