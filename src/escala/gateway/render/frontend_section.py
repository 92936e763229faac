"""The front half of the gateway: it finds a request's route and its sender."""

from collections.abc import Iterator, Sequence

from escala.config import GatewaySettings
from escala.config.types import ANY_METHOD
from escala.gateway.render import cors, limits, tokens
from escala.gateway.render.context import RenderContext
from escala.gateway.render.paths import choose_route
from escala.gateway.render.rules import by_value, one_of, refuse, when
from escala.gateway.render.text import log_format, quoted
from escala.gateway.topology.backend_names import websocket_backend
from escala.gateway.topology.routes import ResolvedRoute
from escala.gateway.topology.topology import Topology

WORKER = "proc.read_at"
"""The time in microseconds at which a worker read its configuration.

It tells which worker wrote a log line. Unlike %pid, it is never reused.
"""

LOG_FIELDS = (
    *("%Ts.%ms", "%[var(ADDRESS)]", "%HM", "%ST"),
    *("%TR", "%Tw", "%Tc", "%Tr", "%Ta", "%B", "%U"),
    *("%b", "%s", "%rc", "%tsc", "%ID", f"%[var({WORKER})]", "%lc"),
    *("%[var(txn.key),bytes(0,8),hex]", "%[var(txn.subject),url_enc,bytes(0,500)]", "%[var(txn.route)]", "%HV", "%HPO"),
)
"""The fields of an access log line, separated by tabs.

The path is last, because a long line is cut off. ADDRESS stands for the variable from `address_of`.
"""

SEPARATOR = "\\t"
MAX_LINE = 2048

_TRACEPARENT = quoted("^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
_CLAIMS = quoted("^(x[-_](forwarded.*|escala.*|real[-_]ip|request[-_]id)|forwarded|connection)$")
"""Headers that are removed from clients' requests, because only the gateway may set them.

Connection is among them: a client could list one of the gateway's own headers in it (RFC 9110, 7.6.1).

Names are in lower case, as in HAProxy. Some servers, and all CGI-like ones, treat an underscore as a dash.
"""
_HOST = quoted(r"^([A-Za-z0-9._~!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?$")
"""RFC 3986, section 3.2.2; "http" does not allow an empty host name (RFC 9110, section 4.2.1)."""
_HOSTLESS = "The request must have exactly one valid Host header."
_HOPS = 5
"""The maximum number of trusted proxies in a chain."""
_USER_INFORMATION = "The request target must not contain user information."
_WEBSOCKET = "{ var(txn.upgrade) -m str -i websocket }"
_RANDOM = "%[rand,bytes(4,4),hex,lower]"
REQUEST_ID = 4 * _RANDOM
"""32 hexadecimal digits, so that it can also be a trace id (https://www.w3.org/TR/trace-context/)."""


def frontend(topology: Topology, context: RenderContext) -> Iterator[str]:
    """Yield the lines of the section."""
    gateway, routes = topology.config.gateway, topology.routes
    yield from _listen(gateway, context)
    yield "# The request id, which is also used as trace id"
    yield f"unique-id-format {REQUEST_ID}"
    yield "unique-id-header X-Request-ID"
    yield from _log(gateway, context)
    yield from _forwarded(gateway)
    yield from _host()
    yield from _to_https(gateway, context)
    yield from _handshake()
    yield from choose_route(topology, context)
    yield from _bounds(routes)
    yield from cors.preflight(routes)
    yield from limits.before_verification(topology.limits, routes)
    yield from _identify(gateway)
    yield from tokens.known()
    public = [route for route in routes if route.policy.public]
    yield "# Public routes need no token, so they skip the rest of this section"
    yield f"http-request unset-var(txn.key) if {one_of(public)}"  # it was not verified
    yield f"http-request allow if {one_of(public)}"
    yield from tokens.verify(topology, context)
    yield "# HAProxy answers 400 to a stalled upload, as if it were malformed; 408 is the right status"
    stalled = ("{ status 400 }", "{ srv_id gt 0 }", "!{ var(txn.answered) -m found }")
    yield "http-after-response set-status 408" + when(*stalled)
    yield "http-after-response set-header X-Request-ID %[unique-id]"
    yield from cors.headers(routes)
    yield from _headers(gateway, routes)
    yield from _use_backends(topology, context)


def _use_backends(topology: Topology, context: RenderContext) -> Iterator[str]:
    """Send each request to the backend of its route; if the route is split, send a share to the other service."""
    for route in topology.routes:
        if route.settings.split is not None:
            yield f"# {route.where}.split"
            service, here = route.settings.split.service, one_of([route])
            drawn = f"{{ rand(100) lt {route.settings.split.percent} }}"
            if topology.has_websockets(service):
                yield f"use_backend {websocket_backend(service)}" + when(here, _WEBSOCKET, drawn)
                drawn = f"!{_WEBSOCKET} {drawn}"
            yield f"use_backend {topology.backend_for(route, service).name}" + when(here, drawn)
    socketed = [route for route in topology.routes if topology.has_websockets(route.service)]
    if socketed:
        yield "# WebSockets have a separate backend, because they do not count as requests in flight"
        condition = "" if len(socketed) == len(topology.routes) else one_of(socketed)
        backend = websocket_backend(f"%[var(txn.route),map_str({quoted(context.backends)}),field(1,:)]")
        yield f"use_backend {backend}" + when(_WEBSOCKET, condition)
    yield "# From the route to its backend"
    yield f"use_backend %[var(txn.route),map_str({quoted(context.backends)})]"


def _to_https(gateway: GatewaySettings, context: RenderContext) -> Iterator[str]:
    if gateway.tls is None or context.redirect is None:
        return
    yield "# gateway.tls.redirect: plain HTTP is redirected to HTTPS"
    port = "" if gateway.bind.port == 443 else f":{gateway.bind.port}"
    there = f"https://%[req.fhdr(host),host_only]{port}%[pathq]"
    plain = ("!{ ssl_fc }", "!{ var(txn.scheme) -m str https }")  # a proxy in front did not receive it over TLS either
    yield f"http-request redirect location {there} code 308" + when(*plain, "{ req.fhdr(host) -m len gt 0 }")
    yield refuse(400, _HOSTLESS) + when(*plain)


def _listen(gateway: GatewaySettings, context: RenderContext) -> Iterator[str]:
    yield f"# gateway.bind: {gateway.bind}; fd@N is a listening socket inherited from the supervisor"
    tls = ""
    if context.certificates is not None:
        tls = f" ssl crt {quoted(context.certificates)} alpn h2,http/1.1"
    yield f"bind {context.bind}{tls}"
    if context.redirect is not None:
        yield "# gateway.tls.redirect"
        yield f"bind {context.redirect}"
    if gateway.proxy_protocol:
        yield "# gateway.proxy_protocol"
        yield f"tcp-request connection expect-proxy layer4 if {_from_proxy(gateway)}"
    yield "# The client's address as text, for X-Forwarded-For and the access log"
    yield "tcp-request session set-var(sess.address) src,concat()"


def address_of(gateway: GatewaySettings) -> str:
    """Return the variable with the client's address: per request if proxies name it in headers, else per connection."""
    return "txn.address" if _reads_headers(gateway) else "sess.address"


def _host() -> Iterator[str]:
    """Make the Host header name the requested host, and refuse requests without one (RFC 9112, section 3.2).

    HAProxy itself refuses differing Host headers, characters that no host can have, and a target whose host differs
    from the header.
    """
    yield "# The Host header (RFC 9112, 3.2) is required; in HTTP/1.0, an absolute target replaces a missing one"
    foreign = "!{ url_beg / } { url -m sub :// } !{ req.ver 2.0 }"  # "GET http://shop.example/x HTTP/1.0"
    authority = "url,field(3,/)"
    yield f"{refuse(400, _USER_INFORMATION)} if {foreign} {{ {authority} -m sub @ }}"
    yield f"{refuse(400, _HOSTLESS)} if {foreign} !{{ {authority} -m len gt 0 }}"
    nameless = "!{ req.fhdr(host) -m found } { req.ver 1.0 }"
    yield f"http-request set-header Host %[{authority}] if {foreign} {nameless}"
    yield f"http-request set-uri %[pathq] if {foreign}"
    invalid = f"!{{ req.fhdr(host) -m reg {_HOST} }}"
    for version in ("!{ req.ver 1.0 }", "{ req.ver 1.0 } { req.fhdr(host) -m found }"):
        yield refuse(400, _HOSTLESS) + when(version, invalid)


def _forwarded(gateway: GatewaySettings) -> Iterator[str]:
    """Take the client's address from the proxies in front, the nearest first, up to an address that is not a proxy."""
    if not _reads_headers(gateway):
        return
    yield "# gateway.forwarded: what trusted proxies say about the client"
    for scheme in ("http", "https"):
        said = f"{{ req.fhdr(x-forwarded-proto) -m str -i {scheme} }}"
        yield f"http-request set-var(txn.scheme) str({scheme})" + when(_from_proxy(gateway), said)
    readable = ""  # entries before an invalid one cannot be trusted
    for hop in range(1, _HOPS + 1):
        yield f"http-request set-src req.hdr_ip(x-forwarded-for,-{hop})" + when(_from_proxy(gateway), readable)
        readable = f"{{ req.hdr_ip(x-forwarded-for,-{hop}) -m found }}"
    yield "http-request set-var(txn.address) src,concat()"


def _reads_headers(gateway: GatewaySettings) -> bool:
    """Whether proxies name the client in headers."""
    return bool(gateway.forwarded) and not gateway.proxy_protocol


def _from_proxy(gateway: GatewaySettings) -> str:
    return f"{{ src {' '.join(gateway.forwarded)} }}"


def _handshake() -> Iterator[str]:
    """Refuse invalid WebSocket handshakes (RFC 6455, section 4.1); HAProxy itself refuses one without a key."""
    yield "# WebSocket handshakes (RFC 6455, 4.1)"
    yield "http-request set-var(txn.upgrade) req.fhdr(upgrade)"
    detail = "A WebSocket begins with a GET request without a body."
    bodies = ("{ req.fhdr(content-length) -m int gt 0 }", "{ req.fhdr(transfer-encoding) -m found }")
    for wrong in (*bodies, "!{ method GET }"):
        yield refuse(400, detail) + when(_WEBSOCKET, wrong)
    # A request with a body may offer other protocols (RFC 9110, section 7.8). Servers then wait for the body in vain.
    for body in bodies:
        yield "http-request del-header Upgrade" + when("{ var(txn.upgrade) -m found }", body)


def _log(gateway: GatewaySettings, context: RenderContext) -> Iterator[str]:
    if context.access_log is None:
        yield "# gateway.access_log.enabled = false"
        yield "no log"
        return
    yield "# The access log, written to the collector's pipe"
    yield f"log {context.access_log} len {MAX_LINE} format raw local0"
    fields = SEPARATOR.join(LOG_FIELDS).replace("ADDRESS", address_of(gateway))
    yield f'log-format "{fields}"'


def _bounds(routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    for methods in by_value(routes, lambda route: route.policy.methods):
        yield methods.comment("methods")
        if methods.value == ANY_METHOD:  # except CONNECT, which asks for a tunnel to another server
            yield refuse(405, "This method is not allowed here.") + when(methods.condition, "{ method CONNECT }")
            continue
        refusal = refuse(405, "This method is not allowed here.", ("Allow", ", ".join(methods.value)))
        # A preflight request only asks about a method. So the route need not allow its own method, OPTIONS.
        asking = "!{ req.fhdr(access-control-request-method) -m found }" if "OPTIONS" not in methods.value else ""
        yield refusal + when(methods.condition, f"!{{ method {' '.join(methods.value)} }}", asking)
    for bodies in by_value(routes, lambda route: route.policy.max_body):
        yield bodies.comment("max_body")
        refusal = refuse(413, f"The body is larger than the {bodies.value} bytes allowed.")
        length = f"{{ req.fhdr(content-length),set-var(txn.length) -m int gt {bodies.value} }}"
        yield refusal + when(bodies.condition, length)


def _identify(gateway: GatewaySettings) -> Iterator[str]:
    """Remove the headers that only the gateway may set, and set them to verified values."""
    yield "# Headers that only the gateway may set: remove the client's values, then set them"
    yield f"http-request del-header {_CLAIMS} -m reg"
    # X-Forwarded-Host is not needed: the service gets the Host header as the client sent it.
    yield f"http-request add-header X-Forwarded-For %[var({address_of(gateway)})]"
    scheme = "https" if gateway.tls else "http"
    said = "{ var(txn.scheme) -m found }" if _reads_headers(gateway) else ""
    if said:
        yield f"http-request add-header X-Forwarded-Proto %[var(txn.scheme)] if {said}"
    yield f"http-request add-header X-Forwarded-Proto {scheme}" + when(f"!{said}" if said else "")
    yield "http-request add-header Connection upgrade if { req.fhdr(upgrade) -m found }"
    lost = f"!{{ req.fhdr(traceparent) -m reg {_TRACEPARENT} }} or {{ req.fhdr_cnt(traceparent) gt 1 }}"
    yield f"http-request set-header traceparent 00-%ID-%[unique-id,bytes(16,16)]-01 if {lost}"


def _headers(gateway: GatewaySettings, routes: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Add response headers that the service does not set itself."""
    yield "# headers: Escala's security headers, and those set in gateway, services and routes"
    for name in sorted({name for route in routes for name in route.policy.headers}):
        for group in by_value(routes, lambda route, name=name: route.policy.headers.get(name)):  # type: ignore[misc]
            if group.value is not None:
                absent = f"!{{ res.fhdr({name}) -m found }}"
                rule = f"http-after-response add-header {name} {quoted(log_format(group.value))}"
                yield rule + when(group.condition, absent)
    if gateway.tls is not None and gateway.tls.hsts is not None:
        yield "# gateway.tls.hsts"
        seconds = round(gateway.tls.hsts)
        yield f'http-after-response set-header Strict-Transport-Security "max-age={seconds}" if {{ ssl_fc }}'
