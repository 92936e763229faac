"""The table of replicas: which exist, which release they run, and how they are added and removed."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count

from escala.background import report_bug
from escala.config import Endpoint, ServiceSettings
from escala.errors import OperationRefused, ReplicaNotReady, UnknownReplica
from escala.events import Emit, ReplicaLeft
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from escala.processes.child import Child
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.endpoints import NOWHERE, Endpoints, clear
from escala.supervisor.replicas.lifecycle import EnvironmentOf, Members, ReplicaLifecycle
from escala.supervisor.replicas.replica import Replica
from escala.supervisor.replicas.spec import replica_name, replica_spec


class ReplicaTable:
    """All replicas of the running project.

    `project` is the project as it currently runs; only `commit` changes it. `environment` returns a replica's
    environment variables.
    """

    def __init__(
        self,
        project: Project,
        make_child: Callable[[str, Lifecycle], Child],
        *,
        environment: EnvironmentOf,
        members: Members,
        emit: Emit,
    ) -> None:
        self.project = project
        self._make_child = make_child
        self._environment = environment
        self._members = members
        self._emit = emit
        self._table: dict[str, Replica] = {}
        self._releases: dict[str, Project] = {}
        """Per service, the release that its new replicas run."""
        self._leaving: set[asyncio.Future[None]] = set()

    # Queries

    @property
    def services(self) -> Mapping[str, ServiceSettings]:
        """All services, including the built-in one."""
        return self.project.topology.services

    @property
    def children(self) -> dict[str, Child]:
        return {name: replica.child for name, replica in self._table.items()}

    def all(self) -> list[Replica]:
        return list(self._table.values())

    def find(self, name: str) -> Replica | None:
        return self._table.get(name)

    def of(self, service: str) -> list[Replica]:
        """Return the replicas of a service, sorted by number, including those that are leaving."""
        mine = [replica for replica in self._table.values() if replica.service == service]
        return sorted(mine, key=lambda replica: replica.number)

    def staying(self, service: str) -> list[Replica]:
        return [replica for replica in self.of(service) if not replica.leaving]

    def servers(self, topology: Topology | None = None) -> dict[str, Sequence[Server]]:
        """Return the replicas of each service as HAProxy servers.

        The services are those of `topology`, or of the running project if it is None.
        """
        services = (topology or self.project.topology).services
        return {service: [replica.server for replica in self.of(service)] for service in services}

    def why_down(self, service: str) -> str:
        """Return why none of a service's replicas answers requests.

        Return "" if one does, if there are none, or if all are still in their first start.
        """
        mine = self.staying(service)
        fresh = all(replica.child.state == "starting" and not replica.child.restarts for replica in mine)
        if fresh or any(replica.serves for replica in mine):
            return ""
        return "; ".join(f"{replica.name}: {replica.why_not()}" for replica in mine)

    # Releases

    def commit(self, project: Project) -> None:
        """Make `project` the running one. The releases of replicas do not change; `adopt` changes them."""
        self.project = project

    def release_of(self, service: str) -> Project:
        """Return the release that new replicas of a service run."""
        return self._releases.get(service, self.project)

    def adopt(self, service: str, release: Project) -> None:
        """Make `release` the release of a service: for new replicas now, and for existing ones when they restart."""
        for replica in self.staying(service):
            replica.release = release
        self._releases[service] = release

    def would_differ(self, service: str, release: Project) -> bool:
        """Whether replicas of a service would be different if they ran `release`."""
        ports = release.topology.services[service].ports
        return any(
            replica.settings.ports != ports
            or (
                replica.spec is not None
                and replica.spec != self._spec(release, service, replica.number, replica.endpoint)
            )
            for replica in self.staying(service)
        )

    def spec_of(self, service: str) -> ProcessSpec:
        """Return the command of one more replica of a service. Its endpoint is a placeholder."""
        return self._spec(self.release_of(service), service, 1, NOWHERE)

    def _spec(self, release: Project, service: str, number: int, endpoint: Endpoint) -> ProcessSpec:
        environment = self._environment(release, service, replica_name(service, number))
        return replica_spec(release, service, number, endpoint, environment)

    # Adding and removing

    def start(self) -> None:
        for name, service in self.services.items():
            self._releases[name] = self.project
            self.scale(name, service.replicas.min)

    def scale(self, service: str, wanted: int) -> tuple[int, int]:
        """Begin to run `wanted` replicas: start more, or let some finish their requests and end.

        Replicas that do not serve are removed first, then those with the highest numbers. Return how many there were
        and how many there will be.
        """
        staying = self.staying(service)
        for _ in range(wanted - len(staying)):
            self.add(service)
        spared_last = sorted(staying, key=lambda replica: (replica.serves and not replica.drained, -replica.number))
        for replica in spared_last[: max(0, len(staying) - wanted)]:
            self.retire(replica)
        return len(staying), wanted

    def add(self, service: str, release: Project | None = None, number: int | None = None) -> Replica:
        """Begin to run one more replica. Unless `number` is given, it gets the lowest free number."""
        release = release or self.release_of(service)
        number = number or next(each for each in count(1) if self.is_free(service, each))
        name = replica_name(service, number)
        start_timeout = release.topology.services[service].start_timeout
        lifecycle = ReplicaLifecycle(start_timeout, self._members, self._environment)
        # A fixed endpoint is set now, before the replica is prepared. HAProxy may start at any moment, and cannot be
        # told of a socket later.
        endpoint = Endpoints(release).fixed(service, number) or NOWHERE
        replica = Replica(service, number, release, self._make_child(name, lifecycle), endpoint)
        lifecycle.bind(replica)
        self._table[name] = replica
        replica.child.start()
        return replica

    def retire(self, replica: Replica) -> "asyncio.Future[None]":
        """Begin to remove a replica. The returned future is done when it is gone."""
        if replica.left is None:
            replica.left = self._spawn(self._leave(replica))
        return replica.left

    def dismiss(self, service: str) -> None:
        """Begin to remove all replicas of a service that is no longer part of the project."""
        for replica in self.staying(service):
            self.retire(replica)
        self._releases.pop(service, None)

    def is_free(self, service: str, number: int) -> bool:
        return replica_name(service, number) not in self._table

    async def drain(self, name: str, wanted: bool) -> Replica:
        """Stop sending new requests to a replica, or resume sending them."""
        replica = self._table.get(name)
        if replica is None:
            raise UnknownReplica(name, list(self._table))
        if replica.leaving:
            raise OperationRefused(f"{name} is already being removed")
        replica.drained = wanted
        if wanted:
            replica.child.drain()
        else:
            replica.child.serve_again()
        await self._members.update(replica.service, replica.server)
        return replica

    async def weigh(self, replica: Replica, weight: int) -> None:
        """Change a replica's share of the requests."""
        replica.weight = weight
        await self._members.update(replica.service, replica.server)

    # Waiting

    async def wait_first(self) -> None:
        """Wait, for every service, until one replica is ready or the first start of all its replicas has failed."""
        await asyncio.gather(*(self._wait_first_of(service) for service in self.services))

    async def wait_ready(self, service: str) -> None:
        """Wait until a service has a replica that is ready; raise ReplicaNotReady if none could start."""
        await self._wait_first_of(service)
        mine = self.of(service)
        if not any(replica.serves for replica in mine):
            raise ReplicaNotReady(service, mine[0].why_not() if mine else "it has no replica")

    async def stop_leaving(self) -> None:
        """Stop waiting for replicas that are leaving. They are stopped together with all other children."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _wait_first_of(self, service: str) -> None:
        waiting = {asyncio.create_task(replica.child.wait_tried()) for replica in self.of(service)}
        try:
            for tried in asyncio.as_completed(waiting):
                if await tried:
                    return
        finally:
            for task in waiting:
                task.cancel()

    async def _leave(self, replica: Replica) -> None:
        """Remove a replica.

        It gets no new requests, and those in flight finish. Then its process is stopped, and its entry removed.
        """
        began = time.monotonic()
        await self._members.update(replica.service, replica.server)
        if replica.child.state in {"serving", "draining"}:
            replica.child.drain()
            await self._members.until_idle(replica.service, replica.number, replica.settings.drain_timeout)
        await replica.child.stop()
        with contextlib.suppress(OSError):  # the next replica that listens there reports it
            clear(replica.endpoint)
        await self._members.remove(replica.service, replica.number)
        del self._table[replica.name]
        self._emit(ReplicaLeft(replica.name, time.monotonic() - began))

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(work)
        self._leaving.add(task)
        task.add_done_callback(self._left)
        return task

    def _left(self, task: "asyncio.Future[None]") -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report_bug("the removal of a replica was aborted", error)
