"""The types of values in escala.toml, each with an error message that says what is expected."""

import ipaddress
import re
import shlex
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from escala.config.secrets import Secret
from escala.http import methods
from escala.http.host_names import LABEL
from escala.units import parse_duration, parse_size

MAX_TIMEOUT = 24 * 86400.0
"""The maximum timeout in seconds: HAProxy counts milliseconds in 31 bits."""


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a validator for strings that fully match `pattern`; `expected` describes them in the error message."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
"""A TOML list, stored as a tuple."""

ANY_METHOD = ("*",)
"""The value that `methods = "any"` is converted to."""


def _capitals(method: str) -> str:
    if method == "CONNECT":
        raise ValueError("CONNECT asks for a tunnel to another server, which routes do not provide")
    if method.upper() in methods.PARSED and method != method.upper():
        raise ValueError(f"methods are case-sensitive; write {method.upper()!r}")
    return method


def _methods(value: Any) -> Any:
    if value == "any":
        return ANY_METHOD
    if isinstance(value, list | tuple) and (value == ANY_METHOD or (value and "*" not in value)):
        return tuple(value)
    raise ValueError('expected a list of methods, or "any"')


def _words(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"not a command line: {error}") from None
    if not words:
        raise ValueError("expected a program and its arguments")
    return command


CommandLine = Annotated[str, AfterValidator(_words)]
"""A program and its arguments, split with shell quoting rules, but run without a shell."""


def _no_dot_segment(path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ValueError('a path must not contain "." or ".." segments')
    if "//" in path:
        raise ValueError("a path must not contain empty segments")
    return path


def _not_of_the_connection(name: str) -> str:
    if name.lower() in {"content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"}:
        raise ValueError("this header controls how the response is sent, so it cannot be configured")
    return name


# These strings are written into HAProxy's configuration. So each pattern allows only characters without a special
# meaning there.
UrlPath = Annotated[
    str,
    matching(r"/[A-Za-z0-9._~/-]{0,255}", 'a path such as "/data", of letters, digits and . _ ~ / -'),
    AfterValidator(_no_dot_segment),
]
Health = Annotated[
    str,
    matching(r"tcp|/[A-Za-z0-9._~/-]{0,255}", 'a path such as "/health", or "tcp"'),
    AfterValidator(_no_dot_segment),
]
Scope = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,63}", 'a scope such as "db:write", of letters, digits and : . _ / -'),
]
Identifier = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,127}", "a name or URL of letters, digits and : . _ / -"),
]
Name = Annotated[
    str,
    matching(r"[a-z][a-z0-9_-]{0,39}", "at most 40 small letters, digits, _ and -, starting with a letter"),
]
HeaderName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "a header's name of letters, digits, _ and -"),
    AfterValidator(_not_of_the_connection),
]
HeaderValue = Annotated[str, matching(r"[\x20-\x7e]{0,2048}", "one line of printable ASCII, at most 2,048 characters")]
_NO_SESSIONS = {
    *("host", "authorization", "cookie", "set-cookie", "forwarded", "x-request-id", "x-real-ip", "traceparent"),
    *("content-type", "content-length", "transfer-encoding", "connection", "upgrade", "location"),
}


def _names_a_session(sticky: str) -> str:
    name = sticky.partition(":")[2].lower()
    if name in _NO_SESSIONS or name.startswith(("x-forwarded", "x-escala")):
        raise ValueError("this header cannot carry a session: the gateway or the connection uses it")
    return sticky


Sticky = Annotated[
    str,
    matching(
        r"[A-Za-z][A-Za-z0-9_-]{0,63}|header:[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        'a cookie name of letters, digits, _ and -, starting with a letter; or a header: "header:Mcp-Session-Id"',
    ),
    AfterValidator(_names_a_session),
]
Method = Annotated[
    str,
    matching(r"[A-Za-z][A-Za-z0-9!+.^_~-]{0,39}|\*", "a method such as PROPFIND, of letters, digits and ! + . ^ _ ~ -"),
    AfterValidator(_capitals),
]
Methods = Annotated[tuple[Method, ...], BeforeValidator(_methods), Field(min_length=1)]
"""Method names, which are case-sensitive (RFC 9110, section 9.1), or "any"."""
HashKey = Annotated[
    str,
    matching(r"(header|cookie|query):[A-Za-z0-9][A-Za-z0-9_-]{0,63}", 'what to hash, such as "header:X-Tenant"'),
]
VariableName = Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name of letters, digits and _")]
VariableValue = Annotated[Secret, matching(r"[^\0]*", "a string without NUL characters")]
HostPattern = Annotated[
    str,
    matching(
        rf"(\*\.)?{LABEL}(\.{LABEL}){{0,8}}", 'a host in small letters such as "api.example.com" or "*.example.com"'
    ),
]
Origin = Annotated[
    str,
    matching(
        rf"\*|[a-z][a-z0-9+.-]{{0,20}}://{LABEL}(\.{LABEL}){{0,8}}(:\d{{1,5}})?",
        'an origin such as "https://shop.example"',
    ),
]


def _network(value: str) -> str:
    try:
        if "%" not in value:  # HAProxy does not support zones
            return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    raise ValueError('expected an address or a network such as "10.0.0.0/8"')


Network = Annotated[str, AfterValidator(_network)]
"""An IPv4 or IPv6 address or network, in HAProxy's notation."""

FilePattern = Annotated[str, matching(r"[^\0]{1,255}", 'a file pattern such as "*.py" or "data/*.json"')]


def _within_a_timer(seconds: float) -> float:
    if seconds > MAX_TIMEOUT:
        raise ValueError("expected at most 24d")
    return seconds


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, written with a unit."""

Timeout = Annotated[Duration, AfterValidator(_within_a_timer)]
"""Seconds, at most 24 days, the maximum of HAProxy's timers."""

Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes, written with a unit."""
