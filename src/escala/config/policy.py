"""What may stand in [gateway], in a service and in a route: how requests are treated. The most specific word holds."""

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
"""Response headers that a browser wants from everybody; a service's own value stays."""

MOST_LIMITS = 4


class RateLimit(Section):
    """At most `requests` in `period` on average, and `burst` of them at once."""

    requests: int = Field(ge=1, le=1_000_000)
    """How many a period lets through; what is above gets 429."""
    period: Duration = 1.0
    per: Literal["address", "token", "route"] = "address"
    """Whose requests are counted together: one client address's, one token's, or everybody's on the route."""
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many may come at once after a pause; `requests` unless given."""

    @model_validator(mode="after")
    def _burst_is_more(self) -> "RateLimit":
        if self.burst is not None and self.burst < self.requests:
            raise ValueError(f"burst ({self.burst}) is below requests ({self.requests})")
        if self.window > MAX_TIMEOUT:
            raise ValueError("the time in which a burst is earned is above 24d")
        return self

    @property
    def most(self) -> int:
        """How many a window lets through."""
        return self.burst or self.requests

    @property
    def window(self) -> float:
        """Seconds in which at most `most` pass: so long that on average it is `requests` a period."""
        return self.most / self.requests * self.period


class Cors(Section):
    """Which pages of other origins may call (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

    origins: Many[Origin] = Field(min_length=1)
    """Origins such as "https://shop.example"; "*" is all."""
    methods: Many[Method] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: Many[HeaderName] = ("Authorization", "Content-Type")
    """Request headers that such a page may set."""
    expose: Many[HeaderName] = ("X-Request-ID",)
    """Response headers that such a page may read."""
    credentials: bool = False
    """Whether cookies may come along."""
    max_age: Duration = 600.0
    """How long a browser may remember the answer."""

    @model_validator(mode="after")
    def _not_everybodys_cookies(self) -> "Cors":
        if self.credentials and "*" in self.origins:
            raise ValueError('credentials = true needs the origins by name; "*" would lend the user to every page')
        return self


class Policy(Section):
    methods: Methods = methods.DEFAULT
    """What requests may do, as a list, or "any"; other methods get 405."""
    paths: Literal["strict", "as-is"] = "strict"
    """Whether paths that servers read in more than one way (encoded slashes, empty segments, parameters) get 400, or go
    to the service unread, where all readings lead to this route."""
    public: bool = False
    """Whether requests need no token."""
    scopes: Many[Scope] = ()
    """Scopes that the token must hold, all of them; without one 403."""
    hosts: Many[HostPattern] = ()
    """Host names that it answers to, "*.example.com" for all of one level; none is all."""
    rate_limits: Many[RateLimit] = Field(default=(), max_length=MOST_LIMITS)
    """Limits that all have to hold; above one 429."""
    max_body: Size = 10 * 1024**2
    """The largest request body that is let through; above it 413."""
    timeout: Timeout = 30.0
    """How long the service may take to answer, or be silent within an answer; then 504."""
    idle_timeout: Timeout = 3600.0
    """How long a WebSocket may be silent before it is closed."""
    retry: bool = True
    """Whether a request that may be repeated (RFC 9110, 9.2.2) is, where its replica broke off before it answered."""
    cors: Cors | None = None
    compression: bool = False
    """Whether text is compressed for clients that accept gzip."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Response headers added to those of the level above, where the service does not set them; "" takes one away."""
    cache: Timeout | None = None
    """How long the gateway answers a public route by itself with what the service answered before."""

    @model_validator(mode="after")
    def _consistent(self) -> "Policy":
        if self.public and self.scopes:
            raise ValueError("a public route has no token, so it cannot ask for scopes")
        return self


Percent = Annotated[int, Field(ge=1, le=99)]


@dataclass(frozen=True)
class Effective:
    """The policy that holds for a route, and which level set each of its keys."""

    policy: Policy
    sources: Mapping[str, str]
    """A key with its default value is not here."""


def effective(**levels: Policy) -> Effective:
    """Merge named levels, the most general first: a later one replaces what it sets, except headers, which add up."""
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    headers: dict[str, str] = dict(SECURITY_HEADERS)
    for level, words in levels.items():
        given = {name: getattr(words, name) for name in words.model_fields_set & Policy.model_fields.keys()}
        # A level above asked for one of the two, and did not know of this level.
        dropped = {"scopes"} if given.get("public") else {"public"} if given.get("scopes") else set()
        for key in dropped:
            merged.pop(key, None)
            sources.pop(key, None)
        headers |= given.pop("headers", {})
        merged |= given
        sources |= dict.fromkeys(given, level)
    policy = Policy.model_construct(**merged, headers={name: value for name, value in headers.items() if value})
    # What is said above for all routes holds where it can.
    if policy.public:
        limits = tuple(limit for limit in policy.rate_limits if limit.per != "token")
        return Effective(policy.model_copy(update={"rate_limits": limits}), sources)
    return Effective(policy.model_copy(update={"cache": None}), sources)
