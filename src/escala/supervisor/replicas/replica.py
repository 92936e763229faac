"""A replica: one process of a service, as an entry of the supervisor's table."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from escala.config import Endpoint, ServiceSettings
from escala.gateway.topology.servers import FULL_WEIGHT, Server, ServerState
from escala.processes.child import Child
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.endpoints import NOWHERE
from escala.supervisor.replicas.spec import replica_name

HealthState = Literal["healthy", "busy", "unhealthy", "hung"]
"""See `supervisor.replicas.health`."""


@dataclass(eq=False)
class Replica:
    service: str
    number: int
    release: Project
    """The project that it runs, also when it restarts after a crash."""
    child: Child
    endpoint: Endpoint = NOWHERE
    weight: int = FULL_WEIGHT
    drained: bool = False
    """Whether somebody has drained it, so that it gets no new requests."""
    health: HealthState = "healthy"
    """The last finding of the health watch. A process that has just begun to serve counts as healthy."""
    threads: int | None = None
    """How many requests it can handle at a time, if it reports that."""
    spec: ProcessSpec | None = None
    """The command that was started last."""
    left: "asyncio.Future[None] | None" = None
    """A future that is done when the replica is gone; None while it is not being removed."""

    @property
    def name(self) -> str:
        return replica_name(self.service, self.number)

    @property
    def settings(self) -> ServiceSettings:
        return self.release.topology.services[self.service]

    @property
    def leaving(self) -> bool:
        return self.left is not None

    @property
    def state(self) -> ServerState:
        if self.leaving or self.drained:
            return "drain"
        return "ready" if self.child.state in {"ready", "serving"} and self._is_well else "maint"

    @property
    def hangs_after(self) -> float | None:
        """Seconds of silence after which it is replaced.

        None in development, where a debugger may pause it.
        """
        return None if self.release.single else self.settings.hangs_after

    @property
    def serves(self) -> bool:
        """Whether it gets requests, and answers them."""
        return self.child.state == "serving" and self._is_well

    @property
    def server(self) -> Server:
        return Server(self.number, self.endpoint, self.state, self.weight, self.threads)

    def why_not(self) -> str:
        """Say why it does not serve."""
        return f"it is {self.health}" if self.child.state == "serving" else self.child.why()

    @property
    def _is_well(self) -> bool:
        return self.health in {"healthy", "busy"}
