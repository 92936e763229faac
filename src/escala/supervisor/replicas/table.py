"""The replicas of a running project: the table of them, where they listen, how many there are, and who leaves."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal, Protocol

from escala.config import Address, Endpoint, ServiceSettings, UnixSocket
from escala.errors import EscalaError, StartError
from escala.events import Emit, ReplicaLeft
from escala.gateway.topology.servers import FULL_WEIGHT, Backend, Server, ServerState
from escala.processes import ports
from escala.processes.child import Child, Duties
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.spec import probe, replica_name, replica_spec, services

MOST = 256
"""Replicas of one service."""

_GONE_SECONDS = 60.0
"""How long replicas of a service that is no longer there may finish their requests."""

_NOWHERE = Address("127.0.0.1", 1)
"""Where a replica listens that never came so far as to listen; HAProxy wants to know all the same."""


HealthState = Literal["well", "busy", "unwell", "hung"]
"""See `supervisor.replicas.health`."""


class Balancing(Protocol):
    """What the table tells the balancer."""

    async def tell(self, service: str, server: Server) -> None: ...
    async def remove(self, service: str, number: int) -> None: ...
    async def until_idle(self, service: str, number: int, seconds: float) -> None: ...


@dataclass
class Replica:
    """A row of the table."""

    service: str
    number: int
    release: Project
    """What it is made from, also when it is started again after a death."""
    child: Child
    endpoint: Endpoint = _NOWHERE
    weight: int = FULL_WEIGHT
    drained: bool = False
    """Whether somebody asked that no new requests go to it."""
    health: HealthState = "well"
    """What the health watch found last; of a process that has just begun to serve, well."""
    threads: int | None = None
    """How many requests it can work on at a time, where it says so."""
    spec: ProcessSpec | None = None
    """What was started last."""
    left: "asyncio.Future[None] | None" = None
    """Done when it is gone; None for one that is there to stay."""

    @property
    def leaving(self) -> bool:
        return self.left is not None

    @property
    def name(self) -> str:
        return replica_name(self.service, self.number)

    @property
    def state(self) -> ServerState:
        if self.leaving or self.drained:
            return "drain"
        return "ready" if self.child.state in {"ready", "serving"} and self.is_well else "maint"

    @property
    def _settings(self) -> ServiceSettings:
        return services(self.release.config)[self.service]

    @property
    def page(self) -> str | None:
        """What it is asked for."""
        return self._settings.page

    @property
    def hangs_after(self) -> float | None:
        """Seconds of silence after which it is replaced; never in development, where a debugger may hold it."""
        return None if self.release.single else self._settings.hangs_after

    @property
    def is_well(self) -> bool:
        return self.health in {"well", "busy"}

    @property
    def serves(self) -> bool:
        """Whether it gets requests, and answers them."""
        return self.child.state == "serving" and self.is_well

    @property
    def server(self) -> Server:
        return Server(self.number, self.endpoint, self.state, self.weight, self.threads)

    def why(self) -> str:
        """Say why it does not serve."""
        return f"it is {self.health}" if self.child.state == "serving" else self.child.why()


class Replicas:
    """`environment` gives a replica's variables."""

    def __init__(
        self,
        project: Project,
        make_child: Callable[[str, Duties], Child],
        *,
        environment: Callable[[Project, str, str], Mapping[str, str]],
        balancer: Balancing,
        emit: Emit,
    ) -> None:
        self.project = project
        self._make_child = make_child
        self._environment = environment
        self._balancer = balancer
        self._emit = emit
        self._table: dict[str, Replica] = {}
        self._releases: dict[str, Project] = {}
        """What new replicas of a service are made from, where that is not the project as it is."""
        self._leaving: set[asyncio.Future[None]] = set()

    @property
    def services(self) -> dict[str, ServiceSettings]:
        """All services, the built-in one among them."""
        return services(self.project.config)

    @property
    def children(self) -> dict[str, Child]:
        return {name: replica.child for name, replica in self._table.items()}

    def require_endpoints(self) -> None:
        """Raise PortTaken where a pinned port is not to be had, StartError where a socket cannot be.

        What the first replicas would do first, so that nothing is started in vain.
        """
        require_sockets(self.project)
        for service_name, service in self.services.items():
            for number in range(1, service.replicas.min + 1):
                _endpoint(self.project, service_name, number)

    def start(self) -> None:
        for service_name, service in self.services.items():
            self.scale(service_name, service.replicas.min)

    async def wait_first(self) -> None:
        """Wait until every service has a replica that is ready, or none that has not shown that it cannot start."""
        await asyncio.gather(*(self._wait_first_of(service_name) for service_name in self.services))

    def address(self, name: str) -> str:
        replica = self._table.get(name)
        return str(replica.endpoint) if replica and replica.endpoint != _NOWHERE else ""

    def gets_no_requests(self, name: str) -> bool:
        """Whether a replica was drained, or is leaving."""
        return name in self._table and self._table[name].state == "drain"

    def health(self, name: str) -> HealthState:
        return self._table[name].health if name in self._table else "well"

    def why_down(self, service_name: str) -> str:
        """Say why none of a service's replicas answers requests; nothing where one does, or none is wanted."""
        mine = self.staying(service_name)
        fresh = all(replica.child.state == "starting" and not replica.child.restarts for replica in mine)
        if fresh or any(replica.serves for replica in mine):
            return ""
        return "; ".join(f"{replica.name}: {replica.why()}" for replica in mine)

    def backends(self) -> list[Backend]:
        """Return the replicas as they are now."""
        return [
            Backend(service_name, tuple(replica.server for replica in self.of(service_name)))
            for service_name in self.services
        ]

    def all(self) -> list[Replica]:
        return list(self._table.values())

    def of(self, service_name: str) -> list[Replica]:
        """Return the replicas of a service, those that leave among them."""
        mine = [replica for replica in self._table.values() if replica.service == service_name]
        return sorted(mine, key=lambda replica: replica.number)

    def staying(self, service_name: str) -> list[Replica]:
        return [replica for replica in self.of(service_name) if not replica.leaving]

    def release_of(self, service_name: str) -> Project:
        """Return what new replicas of a service are made from."""
        return self._releases.get(service_name, self.project)

    def release(self, service_name: str, project: Project) -> None:
        """Say what a service's replicas are made from: new ones, and those that are there, which would be the same."""
        for replica in self.staying(service_name):
            replica.release = project
        if project is self.project:
            self._releases.pop(service_name, None)
        else:
            self._releases[service_name] = project

    def hold(self, service_name: str) -> None:
        """Go on making a service's replicas from what they are made from now, whatever becomes of the project."""
        self._releases[service_name] = self.release_of(service_name)

    def dismiss(self, service_name: str) -> None:
        """Take away all replicas of a service that is no longer there."""
        self.scale(service_name, 0)
        self._releases.pop(service_name, None)

    def scale(self, service_name: str, count: int) -> tuple[int, int]:
        """Begin to run `count` replicas: further ones start, or the last ones finish their requests and go.

        Return how many there were and how many there will be.
        """
        staying = self.staying(service_name)
        for _ in range(count - len(staying)):
            self.add(service_name)
        for replica in sorted(staying, key=lambda replica: -replica.number)[: max(0, len(staying) - count)]:
            self.retire(replica)
        return len(staying), count

    def would_differ(self, service_name: str, project: Project) -> bool:
        """Whether replicas of a service would be others than they are if they were made from `project`."""
        ports = services(project.config)[service_name].ports
        return any(
            services(replica.release.config)[service_name].ports != ports
            or (
                replica.spec is not None
                and replica.spec != self._spec(project, service_name, replica.number, replica.endpoint)
            )
            for replica in self.staying(service_name)
        )

    def spec_of(self, service_name: str) -> ProcessSpec:
        """Return what a further replica of a service would be, wherever it listens."""
        return self._spec(self.release_of(service_name), service_name, 1, _NOWHERE)

    def _spec(self, project: Project, service_name: str, number: int, endpoint: Endpoint) -> ProcessSpec:
        environment = self._environment(project, service_name, replica_name(service_name, number))
        return replica_spec(project, service_name, number, endpoint, environment)

    def count(self, service_name: str) -> int:
        """Return how many replicas a service has that are there to stay."""
        return len(self.staying(service_name))

    async def drain(self, name: str, wanted: bool) -> None:
        """Send no new requests to a replica, or send them again."""
        replica = self._table.get(name)
        if replica is None:
            raise EscalaError(f"there is no replica {name!r}; there are: {', '.join(self._table)}")
        if replica.leaving:
            raise EscalaError(f"{name} is leaving already")
        replica.drained = wanted
        if wanted:
            replica.child.drain()
        else:
            replica.child.serve_again()
        await self._balancer.tell(replica.service, replica.server)

    async def wait_ready(self, service_name: str) -> None:
        """Wait until a service has a replica that is ready; raise the reason where it cannot have one."""
        await self._wait_first_of(service_name)
        mine = self.of(service_name)
        if not any(replica.serves for replica in mine):
            words = mine[0].child.last_words() if mine else "it has no replica"
            raise EscalaError(f"{service_name} does not become ready: {words}")

    def add(self, service_name: str, release: Project | None = None, number: int | None = None) -> Replica:
        """Begin to run one more replica, with the lowest number that is free unless one is given."""
        release = release or self.release_of(service_name)
        number = number or self._free_number(service_name)
        name = replica_name(service_name, number)
        service = services(release.config)[service_name]

        async def prepare() -> ProcessSpec:
            replica.endpoint = _endpoint(replica.release, service_name, number, before=replica.endpoint)
            replica.spec = self._spec(replica.release, service_name, number, replica.endpoint)
            return replica.spec

        async def probe_it() -> None:
            replica.threads = await probe(replica.endpoint, replica.page, name)

        async def changed(state: ServerState) -> None:
            replica.health = "well"
            if not replica.leaving:
                chosen: ServerState = "drain" if replica.drained and state == "ready" else state
                await self._balancer.tell(service_name, replace(replica.server, state=chosen))

        duties = Duties(
            prepare=prepare,
            probe=probe_it,
            start_timeout=service.start_timeout,
            on_ready=lambda: changed("ready"),
            on_end=lambda: changed("maint"),
        )
        # Known before it is prepared: HAProxy, which may be started at any moment, cannot be told of a socket later.
        endpoint = _own_endpoint(release, service_name, number) or _NOWHERE
        replica = Replica(service_name, number, release, self._make_child(name, duties), endpoint)
        self._table[name] = replica
        replica.child.start()
        return replica

    def retire(self, replica: Replica) -> "asyncio.Future[None]":
        """Begin to take a replica away; what is returned is done when it is gone."""
        if replica.left is None:
            replica.left = self._spawn(self._leave(replica))
        return replica.left

    async def weigh(self, replica: Replica, weight: int) -> None:
        """Change a replica's share of the requests."""
        replica.weight = weight
        await self._balancer.tell(replica.service, replica.server)

    def is_free(self, service_name: str, number: int) -> bool:
        return replica_name(service_name, number) not in self._table

    def _free_number(self, service_name: str) -> int:
        return next(number for number in count(1) if self.is_free(service_name, number))

    async def _leave(self, replica: Replica) -> None:
        """Take a replica away: no new requests, those in flight end, then the process, then its place."""
        began = time.monotonic()
        service = self.services.get(replica.service)  # none where the service itself is gone, and its backend with it
        if service is not None:
            await self._balancer.tell(replica.service, replica.server)
        if replica.child.state in {"serving", "draining"}:
            replica.child.drain()
            seconds = service.drain_timeout if service else _GONE_SECONDS
            await self._balancer.until_idle(replica.service, replica.number, seconds)
        await replica.child.stop()
        with contextlib.suppress(OSError):  # whoever wants to listen there says so
            _clear(replica.endpoint)
        if service is not None:
            await self._balancer.remove(replica.service, replica.number)
        del self._table[replica.name]
        self._emit(ReplicaLeft(replica.name, time.monotonic() - began))

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(work)
        self._leaving.add(task)
        task.add_done_callback(self._left)
        return task

    def _left(self, task: "asyncio.Future[None]") -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug here, not of the replica
            message = {"message": "a replica's leaving broke off", "exception": error}
            asyncio.get_running_loop().call_exception_handler(message)

    async def stop_leaving(self) -> None:
        """Give up waiting for those that leave; whoever stops all children stops them too."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _wait_first_of(self, service_name: str) -> None:
        waiting = {asyncio.create_task(replica.child.wait_tried()) for replica in self.of(service_name)}
        try:
            for tried in asyncio.as_completed(waiting):
                if await tried:
                    return
        finally:
            for task in waiting:
                task.cancel()


def require_sockets(project: Project) -> None:
    """Raise StartError where a replica's socket would have too long a path, however many there come to be."""
    for service_name, service in services(project.config).items():
        if service.on_socket:
            project.layout.require_replica_sockets(service_name, MOST)


def _endpoint(project: Project, service_name: str, number: int, before: Endpoint = _NOWHERE) -> Endpoint:
    """Return where a replica is to listen, free to be listened on: its pinned port, its socket, or a port.

    A port that is not pinned is the one it had `before`, if possible.
    """
    own = _own_endpoint(project, service_name, number)
    if isinstance(own, UnixSocket):
        try:
            _clear(own)  # of one that was killed
        except OSError as error:
            name = replica_name(service_name, number)
            raise StartError(f"{own.path} is in the way of {name}'s socket: {error.strerror}") from None
        return own
    if own is not None:
        ports.require_free(own, replica_name(service_name, number))
        return own
    if isinstance(before, Address) and before != _NOWHERE and ports.is_free(before):
        return before
    return Address("127.0.0.1", ports.free_port())


def _own_endpoint(project: Project, service_name: str, number: int) -> Endpoint | None:
    """Return where a replica always listens; None where any port will do."""
    service = services(project.config)[service_name]
    if number <= len(service.ports):
        return Address("127.0.0.1", service.ports[number - 1])
    if service.on_socket:
        return UnixSocket(str(project.layout.replica_socket(service_name, number)))
    return None


def _clear(endpoint: Endpoint) -> None:
    if isinstance(endpoint, UnixSocket):
        Path(endpoint.path).unlink(missing_ok=True)
