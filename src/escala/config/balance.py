"""[gateway.balance], [services.NAME.balance], and of a route: how requests are spread over a service's replicas."""

from typing import Literal

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import HashKey, Sticky, Timeout


class Capacity(Section):
    """What may be said of a service and of one of its routes."""

    inflight: int = Field(default=128, ge=1, le=100_000)
    """Requests that one replica gets at a time; further ones wait in the gateway, first come, first served. A WSGI app
    gets as many as it has `threads` unless this is given."""
    queue: int = Field(default=1024, ge=1, le=1_000_000)
    """Requests that wait while every replica is full; one more gets 503."""
    queue_timeout: Timeout = 5.0
    """How long a request waits; then 503."""
    connect_timeout: Timeout = 0.25
    """How long a replica may take to accept a connection; then another is tried."""
    retries: int = Field(default=2, ge=0, le=2)
    """How often a request is tried elsewhere."""


class Balance(Capacity):
    algorithm: Literal["leastconn", "roundrobin", "random", "first", "hash"] = "leastconn"
    """leastconn: the replica with the fewest requests; random: the better of two; first: fill one before the next;
    hash: the same replica for the same `hash_on`, consistently."""
    hash_on: HashKey | None = None
    """What is hashed: "header:NAME", "cookie:NAME" or "query:NAME"."""
    sticky: Sticky | None = None
    """What keeps a client at its replica: a cookie's name, which the gateway sets; or "header:NAME" of a header in
    which the service names a session, and the client repeats it (MCP: "header:Mcp-Session-Id")."""
    websockets: int = Field(default=1024, ge=1, le=100_000)
    """WebSockets that one replica of an app holds at a time, apart from its requests; of a `command` too where this is
    given, and otherwise they count as requests."""
    slow_start: Timeout | None = None
    """How long a new replica's share grows to the full one."""

    @model_validator(mode="after")
    def _hash_has_a_key(self) -> "Balance":
        if (self.algorithm == "hash") != (self.hash_on is not None):
            raise ValueError('algorithm = "hash" and hash_on belong together')
        return self


def merged(general: Balance, specific: Capacity) -> Balance:
    """Return what holds: the more specific words, then those of the level above."""
    own = {name: getattr(specific, name) for name in specific.model_fields_set}
    if "algorithm" in own:
        own.setdefault("hash_on", None)
    above = {name: getattr(general, name) for name in general.model_fields_set}
    return Balance.model_construct(**{**above, **own})
