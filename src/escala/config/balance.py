"""[gateway.balance], [services.NAME.balance] and a route's `balance`: how requests are spread over the replicas."""

from typing import Literal

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import HashKey, Sticky, Timeout


class Capacity(Section):
    """The settings that a service has, and that a route can override."""

    inflight: int = Field(default=128, ge=1, le=100_000)
    """How many requests one replica gets at a time. Further requests wait in the gateway, first come, first served.

    For a WSGI app, the default is its number of `threads`.
    """
    queue: int = Field(default=1024, ge=1, le=1_000_000)
    """How many requests may wait while every replica is full. Further requests get 503."""
    queue_timeout: Timeout = 5.0
    """How long a request may wait before it gets 503."""
    connect_timeout: Timeout = 0.25
    """How long a replica may take to accept a connection. After that, another replica is tried."""
    retries: int = Field(default=2, ge=0, le=2)
    """How many times a request is retried on another replica."""


class Balance(Capacity):
    algorithm: Literal["leastconn", "roundrobin", "random", "first", "hash"] = "leastconn"
    """How a replica is chosen.

    leastconn: the one with the fewest requests; roundrobin: each in turn; random: the less busy of two random ones;
    first: fill one before the next; hash: consistent hashing, so the same `hash_on` value goes to the same replica.
    """
    hash_on: HashKey | None = None
    """The part of the request that is hashed: "header:NAME", "cookie:NAME" or "query:NAME"."""
    sticky: Sticky | None = None
    """What keeps a client at the same replica: the name of a cookie, or "header:NAME".

    The gateway sets the cookie itself. In the header, the service sends the name of a session, and the client repeats
    it in its requests. MCP does so, with "header:Mcp-Session-Id".
    """
    websockets: int = Field(default=1024, ge=1, le=100_000)
    """How many WebSockets one replica of an app holds at a time; they are counted separately from requests.

    For a `command`, this applies only if it is set. Otherwise its WebSockets count as requests.
    """
    slow_start: Timeout | None = None
    """How long it takes until a new replica gets its full share of the requests."""

    @model_validator(mode="after")
    def _hash_has_a_key(self) -> "Balance":
        if (self.algorithm == "hash") != (self.hash_on is not None):
            raise ValueError('algorithm = "hash" and hash_on belong together')
        return self


def merged(general: Balance, specific: Capacity) -> Balance:
    """Return the merged settings: the specific ones override the general ones."""
    own = {name: getattr(specific, name) for name in specific.model_fields_set}
    if "algorithm" in own:
        own.setdefault("hash_on", None)
    above = {name: getattr(general, name) for name in general.model_fields_set}
    return Balance.model_construct(**{**above, **own})
