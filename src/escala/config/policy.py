"""How requests are treated: settings for [gateway], a service or a route. The most specific level wins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import (
    MAX_TIMEOUT,
    Duration,
    HeaderName,
    HeaderValue,
    HostPattern,
    Many,
    Method,
    Methods,
    Origin,
    Scope,
    Size,
    Timeout,
)
from escala.http import methods

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}
"""Default security headers for browsers; a value that the service sets itself is kept."""

MOST_LIMITS = 4


class RateLimit(Section):
    """At most `requests` in `period` on average, and `burst` of them at once."""

    requests: int = Field(ge=1, le=1_000_000)
    """How many requests are allowed per period. Further requests get 429."""
    period: Duration = 1.0
    per: Literal["address", "token", "route"] = "address"
    """Which requests are counted together: those of one client address, of one token, or all those of the route."""
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many requests may arrive at once after a pause; the default is `requests`."""

    @model_validator(mode="after")
    def _burst_is_more(self) -> "RateLimit":
        if self.burst is not None and self.burst < self.requests:
            raise ValueError(f"burst ({self.burst}) is below requests ({self.requests})")
        if self.window > MAX_TIMEOUT:
            raise ValueError("burst is too high: burst / requests * period is above 24d")
        return self

    @property
    def most(self) -> int:
        """How many requests are allowed per window."""
        return self.burst or self.requests

    @property
    def window(self) -> float:
        """The window in seconds in which `most` requests may pass, so that the average is `requests` per period."""
        return self.most / self.requests * self.period


class Cors(Section):
    """Which pages of other origins may send requests (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

    origins: Many[Origin] = Field(min_length=1)
    """Origins such as "https://shop.example"; "*" means all."""
    methods: Many[Method] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: Many[HeaderName] = ("Authorization", "Content-Type")
    """Request headers that such a page may set."""
    expose: Many[HeaderName] = ("X-Request-ID",)
    """Response headers that such a page may read."""
    credentials: bool = False
    """Whether such a page may send cookies."""
    max_age: Duration = 600.0
    """How long a browser may cache the preflight response."""

    @model_validator(mode="after")
    def _not_everybodys_cookies(self) -> "Cors":
        if self.credentials and "*" in self.origins:
            raise ValueError('credentials = true needs explicit origins; with "*", every page could act as the user')
        return self


class Policy(Section):
    methods: Methods = methods.DEFAULT
    """The allowed methods as a list, or "any". Other methods get 405."""
    paths: Literal["strict", "as-is"] = "strict"
    """What happens to ambiguous paths, which servers may read in different ways.

    Examples are encoded slashes, empty segments and parameters. With "strict", they get 400. With "as-is", they reach
    the service unchanged if all readings lead to this route.
    """
    public: bool = False
    """Whether requests are allowed without a token."""
    scopes: Many[Scope] = ()
    """Scopes that the token must have. If one of them is missing, the request gets 403."""
    hosts: Many[HostPattern] = ()
    """Host names that the route answers to; "*.example.com" matches one more label. Without any, all hosts match."""
    rate_limits: Many[RateLimit] = Field(default=(), max_length=MOST_LIMITS)
    """Rate limits, which all apply. A request above any of them gets 429."""
    max_body: Size = 10 * 1024**2
    """The maximum size of a request body. A larger one gets 413."""
    timeout: Timeout = 30.0
    """How long the service may take to answer, or pause within an answer. After that, the client gets 504."""
    idle_timeout: Timeout = 3600.0
    """How long a WebSocket may be idle before it is closed."""
    retry: bool = True
    """Whether an idempotent request (RFC 9110, 9.2.2) is retried if its replica disconnects before it answers."""
    cors: Cors | None = None
    compression: bool = False
    """Whether text responses are compressed for clients that accept gzip."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Response headers, in addition to those of the more general levels; "" removes one of those.

    A header that the service sets itself is kept.
    """
    cache: Timeout | None = None
    """How long the gateway caches the service's answers; only for public routes."""

    @model_validator(mode="after")
    def _consistent(self) -> "Policy":
        if self.public and self.scopes:
            raise ValueError("a public route has no token, so it cannot require scopes")
        return self


Percent = Annotated[int, Field(ge=1, le=99)]


@dataclass(frozen=True)
class Effective:
    """The effective policy of a route, and the level that set each of its keys."""

    policy: Policy
    sources: Mapping[str, str]
    """The level by key; a key that no level sets is missing."""


def effective(**levels: Policy) -> Effective:
    """Merge named levels, the most general first: later levels override earlier ones, but headers are combined."""
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    headers: dict[str, str] = dict(SECURITY_HEADERS)
    for level, words in levels.items():
        given = {name: getattr(words, name) for name in words.model_fields_set & Policy.model_fields.keys()}
        # `public` and `scopes` exclude each other. So the one that this level sets cancels the other one from above.
        dropped = {"scopes"} if given.get("public") else {"public"} if given.get("scopes") else set()
        for key in dropped:
            merged.pop(key, None)
            sources.pop(key, None)
        headers |= given.pop("headers", {})
        merged |= given
        sources |= dict.fromkeys(given, level)
    policy = Policy.model_construct(**merged, headers={name: value for name, value in headers.items() if value})
    # General levels may set limits per token and `cache` for all routes. Drop them where they do not apply.
    if policy.public:
        limits = tuple(limit for limit in policy.rate_limits if limit.per != "token")
        return Effective(policy.model_copy(update={"rate_limits": limits}), sources)
    return Effective(policy.model_copy(update={"cache": None}), sources)
