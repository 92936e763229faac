"""The replicas of a running project: the table of them, their addresses, and how the balancer sees them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

from escala.config import Address, Service
from escala.gateway import Backend, Server
from escala.process import ProcessSpec
from escala.project import Project
from escala.supervisor import ports
from escala.supervisor.child import Child, Duties
from escala.supervisor.replica import probe, replica_name, replica_spec, services

_NO_ADDRESS = Address("127.0.0.1", 1)
"""Of a replica that never came so far as to have one; HAProxy wants one all the same."""


class Replicas:
    """`environment` gives a replica's variables; `changed` is awaited when one became ready, and when it ended."""

    def __init__(
        self,
        project: Project,
        make_child: Callable[[str, Duties], Child],
        *,
        environment: Callable[[str, str], Mapping[str, str]],
        changed: Callable[[str, Server], Awaitable[None]],
    ) -> None:
        self._project = project
        self._make_child = make_child
        self._environment = environment
        self._changed = changed
        self._services = services(project.config)
        self._addresses: dict[str, Address] = {}
        self.children: dict[str, Child] = {}

    def require_ports(self) -> None:
        """Raise PortTaken where a pinned port is not to be had."""
        for service_name, number, service in self._every():
            if number <= len(service.ports):
                ports.require_free(_pinned(service, number), replica_name(service_name, number))

    def start(self) -> None:
        for service_name, number, service in self._every():
            name = replica_name(service_name, number)
            self.children[name] = self._make_child(name, self._duties(service_name, number, service))
        for child in self.children.values():
            child.start()

    async def wait_first(self) -> None:
        """Wait until every service has a replica that is ready, or none that has not shown that it cannot start."""
        await asyncio.gather(*(self._wait_first_of(service_name) for service_name in self._services))

    def address(self, name: str) -> str:
        return str(self._addresses.get(name, ""))

    def backends(self) -> list[Backend]:
        """Return the replicas as they are now."""
        return [
            Backend(
                service_name,
                service.health,
                tuple(
                    self._server(service_name, number, self._is_ready(service_name, number))
                    for number in _numbers(service)
                ),
            )
            for service_name, service in self._services.items()
        ]

    def _every(self) -> Iterator[tuple[str, int, Service]]:
        for service_name, service in self._services.items():
            for number in _numbers(service):
                yield service_name, number, service

    def _is_ready(self, service_name: str, number: int) -> bool:
        return self.children[replica_name(service_name, number)].state == "ready"

    def _server(self, service_name: str, number: int, ready: bool) -> Server:
        address = self._addresses.get(replica_name(service_name, number), _NO_ADDRESS)
        return Server(str(number), address, ready)

    def _duties(self, service_name: str, number: int, service: Service) -> Duties:
        name = replica_name(service_name, number)

        async def prepare() -> ProcessSpec:
            self._addresses[name] = address = self._address(name, number, service)
            return replica_spec(self._project, service_name, number, address, self._environment(service_name, name))

        async def changed(ready: bool) -> None:
            await self._changed(service_name, self._server(service_name, number, ready))

        return Duties(
            prepare=prepare,
            probe=lambda: probe(self._addresses[name], service.health),
            start_timeout=service.start_timeout,
            on_ready=lambda: changed(True),
            on_end=lambda: changed(False),
        )

    def _address(self, name: str, number: int, service: Service) -> Address:
        """Return the pinned address of a replica, or the one it had, or a free one."""
        if number <= len(service.ports):
            ports.require_free(_pinned(service, number), name)
            return _pinned(service, number)
        before = self._addresses.get(name)
        return before if before and ports.is_free(before) else Address("127.0.0.1", ports.free_port())

    async def _wait_first_of(self, service_name: str) -> None:
        mine = [child for name, child in self.children.items() if name.partition("/")[0] == service_name]
        waiting = {asyncio.create_task(child.wait_tried()) for child in mine}
        try:
            for tried in asyncio.as_completed(waiting):
                if await tried:
                    return
        finally:
            for task in waiting:
                task.cancel()


def _numbers(service: Service) -> range:
    return range(1, service.replicas.min + 1)


def _pinned(service: Service, number: int) -> Address:
    return Address("127.0.0.1", service.ports[number - 1])
