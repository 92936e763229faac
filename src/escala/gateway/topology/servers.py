"""The live side of the gateway: what it listens on, the keys it trusts, the replicas that it forwards to."""

from dataclasses import dataclass
from typing import Literal

from escala.config import Endpoint

ServerState = Literal["ready", "drain", "maint"]
"""drain: it finishes what it has; maint: nothing goes to it, nor is it checked."""


FULL_WEIGHT = 100
"""Of a replica that gets as many requests as the others; HAProxy knows 0 to 256."""


@dataclass(frozen=True)
class Server:
    """A replica as the balancer sees it."""

    number: int
    """HAProxy writes it behind the service's name, and hashes it."""
    endpoint: Endpoint
    state: ServerState
    weight: int = FULL_WEIGHT
    threads: int | None = None
    """How many requests it can work on at a time, where it says so."""

    @property
    def name(self) -> str:
        return str(self.number)


@dataclass(frozen=True)
class Backend:
    """A service as the balancer sees it."""

    service: str
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Key:
    """A public key that verifies tokens."""

    kid: str
    algorithm: str
    file: str
    """PEM."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the configuration names outside of itself."""

    bind: str
    """Where clients connect: an address, or "fd@N" for a listening socket that HAProxy inherits."""
    redirect: str | None
    """The same for plain HTTP that is sent on to HTTPS."""
    admin: str
    """The same for metrics."""
    socket: str
    """The Runtime API's Unix socket."""
    unavailable: str
    """The Unix socket of the frontend that stands in for a service without replicas."""
    access_log: str | None
    """The pipe for the lines of the access log, as "fd@N"."""
    route_metrics: str
    """The Unix socket on which the collector answers."""
    hold: str
    """The Lua script that lets requests wait for a service that sleeps."""
    routes: str
    lanes: str
    revoked_tokens: str
    revoked_users: str
    """Maps; as keys, relative to the folder that HAProxy runs in, as an argument of a function cannot hold any path."""
    keys: tuple[Key, ...]
    certificates: str | None
