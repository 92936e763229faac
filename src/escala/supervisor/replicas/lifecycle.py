"""The lifecycle of a replica's process: where it listens, which command runs, and how HAProxy is notified."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from escala.gateway.topology.servers import Server, ServerState
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.endpoints import Endpoints
from escala.supervisor.replicas.probe import probe
from escala.supervisor.replicas.replica import Replica
from escala.supervisor.replicas.spec import replica_spec

EnvironmentOf = Callable[[Project, str, str], Mapping[str, str]]
"""Returns the environment variables of a replica, given its release, its service and its own name."""


class Members(Protocol):
    """The receiver of notifications about replicas that come and go."""

    async def update(self, service: str, server: Server) -> None: ...
    async def remove(self, service: str, number: int) -> None: ...
    async def until_idle(self, service: str, number: int, seconds: float) -> None: ...


class ReplicaLifecycle(Lifecycle):
    """Call `bind` with the replica before its child is started. The constructor cannot take it.

    The child is created with this lifecycle, and the replica with the child.
    """

    def __init__(self, start_timeout: float, members: Members, environment: EnvironmentOf) -> None:
        self.start_timeout = start_timeout
        self._members = members
        self._environment = environment
        self._replica: Replica | None = None

    def bind(self, replica: Replica) -> None:
        self._replica = replica

    @property
    def replica(self) -> Replica:
        assert self._replica is not None
        return self._replica

    async def prepare(self) -> ProcessSpec:
        replica = self.replica
        replica.endpoint = Endpoints(replica.release).claim(replica.service, replica.number, before=replica.endpoint)
        environment = self._environment(replica.release, replica.service, replica.name)
        replica.spec = replica_spec(replica.release, replica.service, replica.number, replica.endpoint, environment)
        return replica.spec

    async def probe(self) -> None:
        replica = self.replica
        replica.threads = await probe(replica.endpoint, replica.settings.page, replica.name)

    async def on_ready(self) -> None:
        await self._announce("ready")

    async def on_end(self) -> None:
        await self._announce("maint")

    async def _announce(self, state: ServerState) -> None:
        replica = self.replica
        replica.health = "healthy"
        if not replica.leaving:
            chosen: ServerState = "drain" if replica.drained and state == "ready" else state
            await self._members.update(replica.service, replace(replica.server, state=chosen))
