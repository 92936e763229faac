"""Replicas as the gateway sees them."""

from dataclasses import dataclass
from typing import Literal

from escala.config import Endpoint

ServerState = Literal["ready", "drain", "maint"]
"""drain: it finishes its current requests; maint: it gets no requests and no health checks."""


FULL_WEIGHT = 100
"""The weight of a replica that gets a normal share of the requests; HAProxy allows 0 to 256."""


@dataclass(frozen=True)
class Server:
    """A replica as the balancer sees it."""

    number: int
    """HAProxy shows it after the service's name, and uses it for consistent hashing."""
    endpoint: Endpoint
    state: ServerState
    weight: int = FULL_WEIGHT
    threads: int | None = None
    """How many requests it can handle at a time, if it reports that."""

    @property
    def name(self) -> str:
        return str(self.number)
