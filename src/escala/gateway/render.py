"""escala.toml and the live replicas → HAProxy's configuration. Pure: text out, nothing touched.

References: HAProxy 2.8 Configuration Manual; sections are named where a choice needs one.
"""

from collections.abc import Iterator, Sequence

from escala.config import Config
from escala.gateway.routing import Placed, placed_routes
from escala.gateway.text import milliseconds, problem, quoted, regex
from escala.gateway.upstream import Backend, Paths

BACK_1, BACK_2 = "\\1", "\\2"  # the groups of a regular expression
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ALGORITHM = "RS256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068, section 2.1
HARD_STOP_SECONDS = 10.0
"""How long requests in flight may take to end when the gateway stops."""

ERRORS = {
    400: "The request is malformed.",
    401: "This needs an access token.",
    403: "The token does not allow this.",
    404: "No route leads there.",
    405: "This method is not known here.",
    408: "The request took too long to arrive.",
    413: "The body is larger than allowed.",
    429: "Too many requests; slow down.",
    500: "The gateway failed to handle this request.",
    502: "The service's answer was broken off or invalid.",
    503: "No replica of the service is ready.",
    504: "The service took too long to answer.",
}
"""Statuses that the gateway answers by itself, with the detail of each."""


def render(config: Config, backends: Sequence[Backend], paths: Paths) -> str:
    """Return the whole configuration."""
    routes = placed_routes(config)
    sections = [
        _global(config, paths),
        _defaults(config),
        _frontend(config, routes, paths),
        _unavailable(paths),
        *(_backend(backend, paths, [r for r in routes if r.service == backend.service]) for backend in backends),
    ]
    return "# Written by Escala from escala.toml; changes made here are lost.\n\n" + "\n".join(sections)


def _section(head: str, lines: Sequence[str]) -> str:
    return "\n".join([head, *(f"    {line}" for line in lines)]) + "\n"


def _global(config: Config, paths: Paths) -> str:
    return _section(
        "global",
        [
            f"maxconn {config.gateway.max_connections}",
            f"stats socket {quoted('unix@' + paths.socket)} mode 600 level admin expose-fd listeners",
            "log stdout format raw local0",
            f"hard-stop-after {milliseconds(HARD_STOP_SECONDS)}",
        ],
    )


def _defaults(config: Config) -> str:
    return _section(
        "defaults",
        [
            "mode http",
            "log global",
            "option dontlognull",
            "option http-keep-alive",
            "option redispatch 1",
            "retries 2",
            # Each backend limits all but connection failures to idempotent methods.
            "retry-on conn-failure empty-response",
            "http-reuse always",
            "timeout http-request 10s",
            "timeout http-keep-alive 60s",
            "timeout client 30s",
            # Also how long a refused connection waits before its next try (at most 1 s; stream turn-around).
            "timeout connect 250ms",
            "timeout queue 5s",
            f"timeout server {milliseconds(config.gateway.timeout)}",
            "timeout check 2s",
            "timeout tunnel 1h",
            *(f"http-error {problem(status, detail)}" for status, detail in ERRORS.items()),
        ],
    )


def _frontend(config: Config, routes: Sequence[Placed], paths: Paths) -> str:
    return _section(
        "frontend gateway",
        [
            f"bind {config.gateway.bind}",
            "unique-id-format %[uuid()]",
            'log-format "%HM %HPO %ST %Ta ms %b/%s %ts %ID"',
            *_hygiene(config),
            *_choose_route(routes),
            *_authenticate(config, paths),
            *_authorize(routes),
            *_rewrite(routes),
            *_tell_service(),
            *_rewrite_back(routes),
            "http-after-response set-header X-Request-ID %[unique-id]",
            # What went well is not a line; the counters have it.
            "http-response set-log-level silent if { status lt 400 }",
            "use_backend %[var(txn.service)]",
        ],
    )


def _hygiene(config: Config) -> Iterator[str]:
    """Refuse what no client sends in good faith, before it is looked at more closely."""
    methods = " ".join(METHODS)
    allow = quoted(", ".join(METHODS))
    yield f"http-request deny {problem(405, ERRORS[405])} hdr Allow {allow} unless {{ method {methods} }}"
    dots = "A path must not contain dot segments."
    yield "http-request set-var(txn.path) path,url_dec"
    for test in ("-m sub /../ /./", "-m end /.. /."):
        yield f"http-request deny {problem(400, dots)} if {{ var(txn.path) {test} }}"
    most = config.gateway.max_body
    too_large = f"The body is larger than the {most} bytes allowed."
    yield f"http-request deny {problem(413, too_large)} if {{ req.hdr(content-length) -m int gt {most} }}"


def _choose_route(routes: Sequence[Placed]) -> Iterator[str]:
    """Set txn.route and txn.service by the longest prefix that matches whole segments of the path."""
    for name, service, route in routes:
        new = "!{ var(txn.route) -m found }"
        tests = (
            [f"{{ path {route.prefix} }}", f"{{ path_beg {route.prefix}/ }}"] if route.prefix else ["{ path_beg / }"]
        )
        for test in tests:
            yield f"http-request set-var(txn.route) str({name}) if {new} {test}"
        yield f"http-request set-var(txn.service) str({service}) if {_is(name)}"
        if route.public:
            yield f"http-request set-var(txn.public) bool(true) if {_is(name)}"
    yield f"http-request deny {problem(404, ERRORS[404])} if !{{ var(txn.service) -m found }}"


def _authenticate(config: Config, paths: Paths) -> Iterator[str]:
    """Verify the access token (RFC 9068, RFC 8725) of requests on routes that are not public."""
    private = "!{ var(txn.public) -m bool }"
    yield "http-request set-var(txn.bearer) http_auth_bearer"
    yield (
        f"http-request deny {problem(401, ERRORS[401])} hdr WWW-Authenticate Bearer"
        f" if {private} !{{ var(txn.bearer) -m len gt 0 }}"
    )
    several = _invalid("The request has more than one token.")
    yield f"http-request deny {several} if {private} {{ req.hdr_cnt(authorization) gt 1 }}"
    yield (
        f"http-request deny {_invalid('The token is not an access token of this system.')} if {private} "
        + " || ".join(
            [
                f"!{{ var(txn.bearer),jwt_header_query('$.alg') -m str {ALGORITHM} }}",
                f"{private} !{{ var(txn.bearer),jwt_header_query('$.typ') -m str {TOKEN_TYPE} }}",
            ]
        )
    )
    yield (
        f"http-request deny {_invalid('The signature of the token is wrong.')}"
        f' if {private} !{{ var(txn.bearer),jwt_verify("{ALGORITHM}",{quoted(paths.public_key)}) -m int 1 }}'
    )
    yield f"http-request set-var(txn.claims) var(txn.bearer),field(2,.),ub64dec if {private}"
    yield "http-request set-var(txn.now) date()"
    for claim, expected in (("iss", config.issuer), ("aud", config.audience)):
        detail = f"The token is for another system ({claim})."
        yield (
            f"http-request deny {_invalid(detail)}"
            f" if {private} !{{ var(txn.claims),json_query('$.{claim}') -m str {quoted(expected)} }}"
        )
    yield (
        f"http-request deny {_invalid('The token has expired.')}"
        f" if {private} !{{ var(txn.claims),json_query('$.exp','int'),sub(txn.now) -m int gt 0 }}"
    )
    yield (
        f"http-request deny {_invalid('The token is not valid yet.')}"
        f" if {private} {{ var(txn.claims),json_query('$.nbf','int'),sub(txn.now) -m int gt 0 }}"
    )


def _authorize(routes: Sequence[Placed]) -> Iterator[str]:
    """Refuse tokens that lack a scope of the route. Blanks around the list make every scope a whole word."""
    if not any(route.scopes for _, _, route in routes):
        return
    yield "http-request set-var(txn.scope) var(txn.claims),json_query('$.scope')"
    yield 'http-request set-var-fmt(txn.scope) " %[var(txn.scope)] "'
    for name, _, route in routes:
        needed = " ".join(route.scopes)
        challenge = quoted(f'Bearer error="insufficient_scope", scope="{needed}"')
        for scope in route.scopes:
            refusal = f"{problem(403, f'This needs the scopes: {needed}.')} hdr WWW-Authenticate {challenge}"
            yield f'http-request deny {refusal} if {_is(name)} !{{ var(txn.scope) -m sub " {scope} " }}'


def _rewrite(routes: Sequence[Placed]) -> Iterator[str]:
    for name, _, route in routes:
        if route.to is None:
            continue
        inner = route.to.rstrip("/")
        if not inner and route.prefix:  # nothing would be left of a path that is the prefix itself
            yield f"http-request set-path / if {_is(name)} {{ path {route.prefix} }}"
        pattern = quoted(f"^{regex(route.prefix)}(/.*)?$" if inner else f"^{regex(route.prefix)}(/.*)$")
        yield f"http-request replace-path {pattern} {quoted(inner + BACK_1)} if {_is(name)}"


def _rewrite_back(routes: Sequence[Placed]) -> Iterator[str]:
    """Let redirects within the service lead to where clients reach it."""
    for name, _, route in routes:
        if route.to is None:
            continue
        inner = route.to.rstrip("/")
        pattern = quoted(f"^([a-z]+://[^/]+)?{regex(inner)}([/?].*)?$")
        replacement = quoted(f"{BACK_1}{route.prefix}{BACK_2}")
        for own in ("{ res.hdr(location) -m beg / }", "{ res.hdr(location),field(3,/),strcmp(txn.host) eq 0 }"):
            yield f"http-response replace-header Location {pattern} {replacement} if {_is(name)} {own}"


def _tell_service() -> Iterator[str]:
    """Replace what clients claim about themselves by what is so."""
    yield "http-request set-header X-Request-ID %[unique-id]"
    yield "http-request set-header X-Forwarded-For %[src]"
    yield "http-request set-header X-Forwarded-Proto http"
    yield "http-request set-header X-Forwarded-Host %[req.hdr(host)]"
    for header in ("Forwarded", "X-Forwarded-Port", "X-Forwarded-Server", "X-Real-IP"):
        yield f"http-request del-header {header}"
    yield "http-request set-var(txn.host) req.hdr(host)"


def _unavailable(paths: Paths) -> str:
    """Answer for services without a replica, as their backup server.

    HAProxy itself answers nothing, and closes, when a retry that began on a reused connection finds no server.
    """
    refusal = problem(503, ERRORS[503], request_id="%[req.hdr(x-request-id)]")
    return _section(
        "frontend unavailable",
        [
            f"bind {quoted('unix@' + paths.unavailable)} mode 600",
            "no log",
            f"http-request return {refusal} hdr Retry-After 1",
        ],
    )


def _backend(backend: Backend, paths: Paths, routes: Sequence[Placed]) -> str:
    lines = [
        "balance leastconn",
        "option httpchk",
        f"http-check send meth GET uri {backend.health} hdr Host health.invalid",
        # 404: the app has no such page, and is well enough to say so.
        f"http-check expect rstatus {quoted('^([23]..|404)$')}",
        # RFC 9110, section 9.2.2
        "http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE PUT DELETE }",
    ]
    lines += [
        f"http-request set-timeout server {milliseconds(route.timeout)} if {_is(name)}"
        for name, _, route in routes
        if route.timeout is not None
    ]
    # A refused connection is a process that is gone: out at the first, not when a check or the supervisor says so.
    lines.append(
        "default-server check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1"
        " observe layer4 error-limit 1 on-error mark-down"
    )
    lines += [
        f"server {server.name} {server.address}{'' if server.ready else ' disabled'}" for server in backend.servers
    ]
    lines.append(f"server none {quoted('unix@' + paths.unavailable)} backup no-check")
    return _section(f"backend {backend.service}", lines)


def _is(name: str) -> str:
    return f"{{ var(txn.route) -m str {name} }}"


def _invalid(detail: str) -> str:
    challenge = quoted(f'Bearer error="invalid_token", error_description="{detail}"')
    return f"{problem(401, detail)} hdr WWW-Authenticate {challenge}"
