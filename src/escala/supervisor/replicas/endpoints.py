"""Where replicas listen: on a pinned port, a Unix socket of their own, or a free port."""

from dataclasses import dataclass
from pathlib import Path

from escala.config import Address, Endpoint, UnixSocket
from escala.errors import StartError
from escala.processes import ports
from escala.project.project import Project
from escala.supervisor.replicas.spec import replica_name

MAX_REPLICAS = 256
"""The maximum number of replicas of one service."""

HOST = "127.0.0.1"
"""The interface that replicas with a port listen on."""

NOWHERE = Address(HOST, 1)
"""A placeholder address for a replica that does not listen yet. HAProxy needs an address for every server."""


@dataclass(frozen=True)
class Endpoints:
    """Where the replicas of a project listen."""

    project: Project

    def fixed(self, service_name: str, number: int) -> Endpoint | None:
        """Return the fixed endpoint of a replica; None if it may listen on any free port."""
        service = self.project.topology.services[service_name]
        if number <= len(service.ports):
            return Address(HOST, service.ports[number - 1])
        if service.on_socket:
            return UnixSocket(str(self.project.layout.replica_socket(service_name, number)))
        return None

    def claim(self, service_name: str, number: int, before: Endpoint = NOWHERE) -> Endpoint:
        """Return the endpoint that a replica is to listen on; raise PortTaken or StartError if it is not free.

        If the port is not pinned, the replica keeps the one that it had `before`, if possible.
        """
        fixed = self.fixed(service_name, number)
        if isinstance(fixed, UnixSocket):
            try:
                clear(fixed)  # left by a replica that was killed
            except OSError as error:
                name = replica_name(service_name, number)
                raise StartError(f"{fixed.path} blocks {name}'s socket; remove it ({error.strerror})") from None
            return fixed
        if fixed is not None:
            ports.require_free(fixed, replica_name(service_name, number))
            return fixed
        if isinstance(before, Address) and before != NOWHERE and ports.is_free(before):
            return before
        return Address(HOST, ports.free_port(HOST))

    def require_sockets(self) -> None:
        """Raise StartError if the path of a replica's socket would be too long, even with the maximum of replicas."""
        for name, service in self.project.topology.services.items():
            if service.on_socket:
                self.project.layout.require_replica_sockets(name, MAX_REPLICAS)

    def require_first(self) -> None:
        """Raise PortTaken or StartError if one of the first replicas could not listen, before anything is started."""
        self.require_sockets()
        for name, service in self.project.topology.services.items():
            for number in range(1, service.replicas.min + 1):
                self.claim(name, number)


def clear(endpoint: Endpoint) -> None:
    """Remove the socket that a replica left behind."""
    if isinstance(endpoint, UnixSocket):
        Path(endpoint.path).unlink(missing_ok=True)
