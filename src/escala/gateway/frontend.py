"""The front half of the gateway: what happens to a request until it is known where it goes and who sent it."""

from collections.abc import Iterator, Sequence

from escala.config import Config
from escala.gateway import cors, limits, tokens
from escala.gateway.routing import Placed, has_hosts
from escala.gateway.rules import by_value, one_of, refuse, when
from escala.gateway.text import log_format, quoted
from escala.gateway.upstream import Surroundings

LOG_FIELDS = (
    *("%Ts.%ms", "%ci", "%HM", "%ST"),
    *("%TR", "%Tw", "%Tc", "%Tr", "%Ta", "%B", "%U"),
    *("%b", "%s", "%rc", "%tsc", "%ID", "%pid", "%lc"),
    *("%[var(txn.key),bytes(0,8),hex]", "%[var(txn.subject),url_enc]", "%[var(txn.route)]", "%HV", "%HPO"),
)
"""A line of the access log, separated by tabs; the path is last, as it may be cut off."""

SEPARATOR = "\\t"
LONGEST_LINE = 2048

_RANDOM = "%[rand,bytes(4,4),hex,lower]"
REQUEST_ID = 4 * _RANDOM
"""32 hexadecimal digits, so that it is a trace's id as well (https://www.w3.org/TR/trace-context/)."""


def frontend(config: Config, routes: Sequence[Placed], around: Surroundings) -> Iterator[str]:
    """Yield the lines of the section."""
    yield from _listen(config, around)
    yield f"unique-id-format {REQUEST_ID}"
    yield from _log(around)
    if config.gateway.tls is not None and around.redirect is not None:
        yield "http-request redirect scheme https code 308 unless { ssl_fc }"
    yield from _hygiene()
    yield from _choose(routes, around)
    yield from _bounds(routes)
    yield from cors.preflight(routes)
    yield from limits.before_verification(routes)
    yield from _identify(config)
    public = [placed for placed in routes if placed.policy.public]
    yield f"http-request allow if {one_of(public)}"  # the rest of this section is about tokens
    yield from tokens.known()
    yield from tokens.verify(config, routes, around)
    yield "http-after-response set-header X-Request-ID %[unique-id]"
    yield from cors.headers(routes)
    yield from _headers(config, routes)
    for placed in routes:
        if placed.route.split is not None:
            drawn = f"{{ rand(100) lt {placed.route.split.percent} }}"
            yield f"use_backend {placed.route.split.service}" + when(one_of([placed]), drawn)
    yield f"use_backend %[var(txn.route),map_str({quoted(around.services)})]"


def _listen(config: Config, around: Surroundings) -> Iterator[str]:
    tls = ""
    if around.certificates is not None:
        tls = f" ssl crt {quoted(around.certificates)} alpn h2,http/1.1 ssl-min-ver TLSv1.2"
    yield f"bind {around.bind}{tls}"
    if around.redirect is not None:
        yield f"bind {around.redirect}"


def _log(around: Surroundings) -> Iterator[str]:
    if around.collector is None:
        yield "no log"
        return
    yield f"log ring@access len {LONGEST_LINE} format raw local0"
    yield f'log-format "{SEPARATOR.join(LOG_FIELDS)}"'


def _hygiene() -> Iterator[str]:
    """Refuse what no client sends in good faith, before it is looked at more closely."""
    dots = refuse(400, "A path must not contain dot segments.")
    suspect = "{ path -m sub . % }"  # spares most paths the decoding
    yield dots + when(suspect, "{ path,url_dec,concat(/) -m sub /../ /./ }")


def _choose(routes: Sequence[Placed], around: Surroundings) -> Iterator[str]:
    """Set txn.route: by the host, then by its parent for "*.", then whatever the host is; each by longest prefix."""
    found = f"map_beg({quoted(around.routes)})"
    missing = "!{ var(txn.route) -m found }"
    if has_hosts(routes):
        yield "http-request set-var(txn.path) path,concat(/)"
        yield "http-request set-var(txn.host) req.fhdr(host),lower,field(1,:)"
        yield f"http-request set-var(txn.route) var(txn.host),concat(,txn.path),{found}"
        yield "http-request set-var(txn.parent) var(txn.host),field(2,.,0)" + when(missing)
        yield f"http-request set-var(txn.route) str(.),concat(,txn.parent),concat(,txn.path),{found}" + when(missing)
        yield f"http-request set-var(txn.route) var(txn.path),{found}" + when(missing)
    else:
        yield f"http-request set-var(txn.route) path,concat(/),{found}"
    yield refuse(404, "No route leads there.") + when(missing)


def _bounds(routes: Sequence[Placed]) -> Iterator[str]:
    for methods, condition in by_value(routes, lambda placed: placed.policy.methods):
        allow = ("Allow", ", ".join(methods))
        refusal = refuse(405, "This method is not allowed here.", allow)
        # A preflight request asks about a method; it is none of the route's.
        asking = "!{ req.fhdr(access-control-request-method) -m found }" if "OPTIONS" not in methods else ""
        yield refusal + when(condition, f"!{{ method {' '.join(methods)} }}", asking)
    for most, condition in by_value(routes, lambda placed: placed.policy.max_body):
        refusal = refuse(413, f"The body is larger than the {most} bytes allowed.")
        yield refusal + when(condition, f"{{ req.fhdr(content-length) -m int gt {most} }}")


def _identify(config: Config) -> Iterator[str]:
    """Replace what clients claim about themselves by what is so."""
    yield "http-request del-header X-Forwarded- -m beg"
    for header in ("Forwarded", "X-Real-IP"):
        yield f"http-request del-header {header}"
    yield "http-request set-header X-Request-ID %[unique-id]"
    # No X-Forwarded-Host: the Host header arrives as the client sent it.
    yield "http-request add-header X-Forwarded-For %[src]"
    yield f"http-request add-header X-Forwarded-Proto {'https' if config.gateway.tls else 'http'}"
    traced = "{ req.fhdr(traceparent) -m len 55 }"
    yield f"http-request set-header traceparent 00-%ID-%[unique-id,bytes(16,16)]-01 unless {traced}"


def _headers(config: Config, routes: Sequence[Placed]) -> Iterator[str]:
    """Add response headers that the service does not set itself."""
    names = sorted({name for placed in routes for name in placed.policy.headers})
    for name in names:
        for value, condition in by_value(routes, lambda placed, name=name: placed.policy.headers.get(name)):  # type: ignore[misc]
            if value is not None:
                absent = f"!{{ res.fhdr({name}) -m found }}"
                yield f"http-after-response set-header {name} {quoted(log_format(value))}" + when(condition, absent)
    if config.gateway.tls is not None and config.gateway.tls.hsts is not None:
        seconds = round(config.gateway.tls.hsts)
        yield f'http-after-response set-header Strict-Transport-Security "max-age={seconds}" if {{ ssl_fc }}'
