"""What all sections of escala.toml share."""

import re
import shlex
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from escala.hosts import LABEL


class Section(BaseModel):
    """A table of escala.toml: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a validator for texts that match `pattern` whole; `expected` is its words for people."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
"""A TOML list, frozen."""


def _words(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"not a command line: {error}") from None
    if not words:
        raise ValueError("expected a program and its arguments")
    return command


CommandLine = Annotated[str, AfterValidator(_words)]
"""A program and its arguments, split as a shell does; no shell runs it."""


def _no_dot_segment(path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ValueError('a path must not contain "." or ".." segments')
    if "//" in path:
        raise ValueError("a path must not contain empty segments")
    return path


def _not_of_the_connection(name: str) -> str:
    if name.lower() in {"content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"}:
        raise ValueError("this header says how the answer is sent, which is not for the configuration to say")
    return name


# These texts end up in HAProxy's configuration, so each pattern admits only characters that mean nothing there.
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
    matching(r"[a-z][a-z0-9_-]{0,39}", "a name of small letters, digits, _ and -, at most 40, the first a letter"),
]
HeaderName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "a header's name of letters, digits, _ and -"),
    AfterValidator(_not_of_the_connection),
]
HeaderValue = Annotated[str, matching(r"[\x20-\x7e]{0,2048}", "one line of printable ASCII, at most 2,048 characters")]
CookieName = Annotated[
    str, matching(r"[A-Za-z][A-Za-z0-9_-]{0,63}", "a cookie's name of letters, digits, _ and -, the first a letter")
]
HashKey = Annotated[
    str,
    matching(r"(header|cookie|query):[A-Za-z0-9][A-Za-z0-9_-]{0,63}", 'what to hash, such as "header:X-Tenant"'),
]
VariableName = Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name of letters, digits and _")]
VariableValue = Annotated[str, matching(r"[^\0]*", "a text without a NUL")]
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
