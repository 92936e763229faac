"""The gateway's cache for public answers (RFC 9111)."""

from collections.abc import Iterator, Sequence

from escala.config import Balance
from escala.gateway.render.rules import by_value, one_of, when
from escala.gateway.render.sticky import sticky_header
from escala.gateway.render.text import milliseconds, quoted
from escala.gateway.topology.routes import ResolvedRoute
from escala.http.methods import SAFE

_BODY_SECONDS = 10


def cache_name(seconds: float) -> str:
    return f"escala.{milliseconds(seconds)}"


def cache_rules(routes: Sequence[ResolvedRoute], balance: Balance, counter: int) -> Iterator[str]:
    """Cache what a shared cache may store (RFC 9111). Rules cover the cases that HAProxy's own cache ignores."""
    for group in by_value(routes, lambda route: route.policy.cache):
        seconds, condition = group.value, group.condition
        if seconds is None:
            continue
        yield group.comment("cache")
        age = quoted(f"public, max-age={max(1, round(seconds))}")
        silent = "!{ res.hdr(cache-control) -m found }"
        # If a request identifies its sender or has a body, its answer may depend on that. Then it must not be shared.
        session = sticky_header(balance)
        nobodys = [f"!{{ req.fhdr({name}) -m found }}" for name in ("authorization", "cookie", session) if name]
        impersonal = [f"!{{ res.fhdr({name}) -m found }}" for name in ("set-cookie", session) if name]
        shared = "{ var(txn.shared) -m bool }"
        keep = "!{ req.hdr(cache-control) -m sub -i no-store }"  # section 5.2.1.5
        asking = ("{ method GET HEAD }", *nobodys)
        changed = f"{{ var(txn.resource),in_table({CHANGED}) }}"
        # In HTTP/2, headers do not always tell whether there is a body.
        yield f"http-request wait-for-body time {_BODY_SECONDS}s at-least 1" + when(condition, *asking)
        host = "req.fhdr(host),lower,field(1,:),rtrim(.)"  # normalized
        yield "http-request set-var(txn.where) path" + when(condition)
        yield f"http-request set-var(txn.resource) {host},concat(,txn.where),xxh32" + when(condition)
        known = "{ var(txn.resource) -m found }"
        here = when(condition, *asking, keep, "!{ req.body_len gt 0 }", known, f"!{changed}")
        yield "http-request set-var(txn.shared) bool(true)" + here
        yield f"http-request cache-use {cache_name(seconds)}" + when(condition, shared)
        # Section 4.4: after a successful unsafe request, its resource is no longer answered from the cache.
        unsafe, good = f"!{{ method {' '.join(SAFE)} }}", "{ status 200:399 }"
        yield f"http-response track-sc{counter} var(txn.resource) table {CHANGED}" + when(condition, unsafe, good)
        # Sections 5.3 and 4.2.1: Expires applies unless max-age or s-maxage is given; but HAProxy does not read it.
        dated = "{ res.fhdr(expires) -m found }"
        aged = "{ res.hdr(cache-control) -m sub -i max-age= s-maxage= }"
        kept = (shared, *impersonal, f"!{changed}")
        fresh = when(condition, "{ status 200 }", silent, *kept, f"!{dated}")
        yield f"http-response set-header Cache-Control {age}" + fresh
        yield f"http-response cache-store {cache_name(seconds)}" + when(condition, *kept, f"!{dated}")
        yield f"http-response cache-store {cache_name(seconds)}" + when(condition, *kept, dated, aged)
    cached = [route for route in routes if route.policy.cache is not None]
    if cached:
        yield "# A cached response is shared, so it must not set the cookie that keeps one client at its replica"
        yield "ignore-persist" + when(one_of(cached), "{ method GET HEAD }", "!{ req.fhdr(cookie) -m found }")


CHANGED = "escala.changed"
"""Resources that were recently changed through the gateway, by a digest of host and path."""


def changed_table(seconds: float) -> list[str]:
    """Return the table's lines; `seconds` is the maximum time for which answers are cached."""
    return [f"stick-table type integer size 100k expire {milliseconds(seconds)} store gpt(1)"]
