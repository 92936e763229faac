"""Replicas as the gateway sees them."""

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
