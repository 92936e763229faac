"""The live side of the gateway: the replicas that it forwards to."""

from dataclasses import dataclass

from escala.config import Address


@dataclass(frozen=True)
class Server:
    """A replica as the balancer sees it."""

    name: str
    """Its number, such as "1"; HAProxy writes it behind the service's name."""
    address: Address
    ready: bool


@dataclass(frozen=True)
class Backend:
    """A service as the balancer sees it."""

    service: str
    health: str
    """Path of the health check."""
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Paths:
    """Files that the configuration names."""

    socket: str
    """The Runtime API's Unix socket."""
    unavailable: str
    """The Unix socket of the frontend that stands in for a service without replicas."""
    public_key: str
    """PEM."""
