"""The front half of the gateway: what happens to a request until it is known where it goes and who sent it."""

from collections.abc import Iterator, Sequence

from escala.config import Config
from escala.gateway import cors, limits, tokens
from escala.gateway.routing import Placed, has_hosts, lane_of
from escala.gateway.rules import by_value, one_of, refuse, when
from escala.gateway.text import log_format, quoted
from escala.gateway.upstream import Surroundings

WORKER = "proc.read_at"
"""When a worker's configuration was read, in microseconds: which one a line is from. Unlike %pid never used again."""

LOG_FIELDS = (
    *("%Ts.%ms", "%[var(sess.address)]", "%HM", "%ST"),
    *("%TR", "%Tw", "%Tc", "%Tr", "%Ta", "%B", "%U"),
    *("%b", "%s", "%rc", "%tsc", "%ID", f"%[var({WORKER})]", "%lc"),
    *("%[var(txn.key),bytes(0,8),hex]", "%[var(txn.subject),url_enc,bytes(0,500)]", "%[var(txn.route)]", "%HV", "%HPO"),
)
"""A line of the access log, separated by tabs; the path is last, as it may be cut off."""

SEPARATOR = "\\t"
LONGEST_LINE = 2048

_BACKSLASH = quoted("\\")
_AMBIGUOUS = (
    "The path has more than one reading: it must not contain empty or dot segments, backslashes, encoded slashes,"
    " incomplete encoding, or encoding or parameters (;) that change where it leads."
)
_DECODED = "path,url_dec,regsub(;[^/]*,,g)"
"""As servers read it that decode first, and know parameters of segments (RFC 3986, 3.3), which some cut off."""
_TRACEPARENT = quoted("^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
_CLAIMS = quoted("^(x[-_](forwarded.*|real[-_]ip|request[-_]id)|forwarded|connection)$")
"""What a client may not say of itself, and what it lists for the next hop alone (RFC 9110, 7.6.1): it may be ours.

Names are in lower case as HAProxy has them. Some servers, and all of CGI's kind, take an underscore for a dash.
"""
_RANDOM = "%[rand,bytes(4,4),hex,lower]"
REQUEST_ID = 4 * _RANDOM
"""32 hexadecimal digits, so that it is a trace's id as well (https://www.w3.org/TR/trace-context/)."""


def frontend(config: Config, routes: Sequence[Placed], around: Surroundings) -> Iterator[str]:
    """Yield the lines of the section."""
    yield from _listen(config, around)
    yield f"unique-id-format {REQUEST_ID}"
    yield "unique-id-header X-Request-ID"
    yield from _log(around)
    if config.gateway.tls is not None and around.redirect is not None:
        port = "" if config.gateway.bind.port == 443 else f":{config.gateway.bind.port}"
        there = f"https://%[req.fhdr(host),host_only]{port}%[pathq]"
        yield f"http-request redirect location {there} code 308 unless {{ ssl_fc }}"
    yield from _choose(routes, around)
    yield from _bounds(routes)
    yield from cors.preflight(routes)
    yield from limits.before_verification(routes)
    yield from _identify(config)
    yield from tokens.known()
    public = [placed for placed in routes if placed.policy.public]
    yield f"http-request unset-var(txn.key) if {one_of(public)}"  # nobody has verified it
    yield f"http-request allow if {one_of(public)}"  # the rest of this section is about tokens
    yield from tokens.verify(config, routes, around)
    yield "http-after-response set-header X-Request-ID %[unique-id]"
    yield from cors.headers(routes)
    yield from _headers(config, routes)
    for placed in routes:
        if placed.route.split is not None:
            drawn = f"{{ rand(100) lt {placed.route.split.percent} }}"
            yield f"use_backend {lane_of(config, routes, placed, placed.route.split.service)}" + when(
                one_of([placed]), drawn
            )
    yield f"use_backend %[var(txn.route),map_str({quoted(around.lanes)})]"


def _listen(config: Config, around: Surroundings) -> Iterator[str]:
    tls = ""
    if around.certificates is not None:
        tls = f" ssl crt {quoted(around.certificates)} alpn h2,http/1.1"
    yield f"bind {around.bind}{tls}"
    if around.redirect is not None:
        yield f"bind {around.redirect}"
    # As text, which is written into a header and a line for each request.
    yield "tcp-request session set-var(sess.address) src,concat()"


def _log(around: Surroundings) -> Iterator[str]:
    if around.access_log is None:
        yield "no log"
        return
    yield f"log {around.access_log} len {LONGEST_LINE} format raw local0"
    yield f'log-format "{SEPARATOR.join(LOG_FIELDS)}"'


def _choose(routes: Sequence[Placed], around: Surroundings) -> Iterator[str]:
    """Set txn.route, and refuse paths that one reads differently from another.

    What is checked here must be what the service sees, so a path that leads elsewhere once it is decoded is refused.
    """
    routes_map = quoted(around.routes)
    if has_hosts(routes):
        yield "http-request set-var(txn.host) req.fhdr(host),lower,field(1,:),rtrim(.)"
        yield "http-request set-var(txn.parent) var(txn.host),field(2,.,0)"
        yield from _by_host("route", "path", routes_map)
        yield from _by_host("decoded", _DECODED, routes_map, "{ path -m sub % ; }", otherwise=",-")
        decoded = "var(txn.decoded)"
    else:
        yield f"http-request set-var(txn.route) path,concat(/),map_beg({routes_map})"
        decoded = f"{_DECODED},concat(/),map_beg({routes_map},-)"
    for meaning in (
        f"path -m sub // {_BACKSLASH}",
        "path -m sub -i %2f %5c %00",
        f"path -m reg {quoted('%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)')}",
        f"{_DECODED} -m sub //",
        f"{_DECODED},concat(/) -m sub /../ /./",
        f"{decoded},strcmp(txn.route),bool -m bool",
    ):
        yield f"acl ambiguous {meaning}"
    suspicious = f"{{ path -m sub % ; // /. {_BACKSLASH} }}"  # spares most paths the rest
    yield refuse(400, _AMBIGUOUS) + when(suspicious, "ambiguous")
    yield refuse(404, "No route leads there.") + when("!{ var(txn.route) -m found }")


def _by_host(name: str, path: str, routes_map: str, *conditions: str, otherwise: str = "") -> Iterator[str]:
    """Set a variable to the route of a path: by host, by its parent for "*.", then for any; by longest prefix."""
    missing = f"!{{ var(txn.{name}) -m found }}"
    yield f"http-request set-var(txn.path) {path},concat(/)" + when(*conditions)
    yield f"http-request set-var(txn.{name}) var(txn.host),concat(,txn.path),map_beg({routes_map})" + when(*conditions)
    parent = f"str(.),concat(,txn.parent),concat(,txn.path),map_beg({routes_map})"
    yield f"http-request set-var(txn.{name}) {parent}" + when(*conditions, missing)
    anywhere = f"var(txn.path),map_beg({routes_map}{otherwise})"
    yield f"http-request set-var(txn.{name}) {anywhere}" + when(*conditions, missing)


def _bounds(routes: Sequence[Placed]) -> Iterator[str]:
    for methods, condition in by_value(routes, lambda placed: placed.policy.methods):
        allow = ("Allow", ", ".join(methods))
        refusal = refuse(405, "This method is not allowed here.", allow)
        # A preflight request asks about a method; it is none of the route's.
        asking = "!{ req.fhdr(access-control-request-method) -m found }" if "OPTIONS" not in methods else ""
        yield refusal + when(condition, f"!{{ method {' '.join(methods)} }}", asking)
    for most, condition in by_value(routes, lambda placed: placed.policy.max_body):
        refusal = refuse(413, f"The body is larger than the {most} bytes allowed.")
        yield refusal + when(condition, f"{{ req.fhdr(content-length),set-var(txn.length) -m int gt {most} }}")


def _identify(config: Config) -> Iterator[str]:
    """Replace what clients claim about themselves by what is so."""
    yield f"http-request del-header {_CLAIMS} -m reg"
    # No X-Forwarded-Host: the Host header arrives as the client sent it.
    yield "http-request add-header X-Forwarded-For %[var(sess.address)]"
    yield f"http-request add-header X-Forwarded-Proto {'https' if config.gateway.tls else 'http'}"
    yield "http-request add-header Connection upgrade if { req.fhdr(upgrade) -m found }"
    lost = f"!{{ req.fhdr(traceparent) -m reg {_TRACEPARENT} }} or {{ req.fhdr_cnt(traceparent) gt 1 }}"
    yield f"http-request set-header traceparent 00-%ID-%[unique-id,bytes(16,16)]-01 if {lost}"


def _headers(config: Config, routes: Sequence[Placed]) -> Iterator[str]:
    """Add response headers that the service does not set itself."""
    names = sorted({name for placed in routes for name in placed.policy.headers})
    for name in names:
        for value, condition in by_value(routes, lambda placed, name=name: placed.policy.headers.get(name)):  # type: ignore[misc]
            if value is not None:
                absent = f"!{{ res.fhdr({name}) -m found }}"
                yield f"http-after-response add-header {name} {quoted(log_format(value))}" + when(condition, absent)
    if config.gateway.tls is not None and config.gateway.tls.hsts is not None:
        seconds = round(config.gateway.tls.hsts)
        yield f'http-after-response set-header Strict-Transport-Security "max-age={seconds}" if {{ ssl_fc }}'
