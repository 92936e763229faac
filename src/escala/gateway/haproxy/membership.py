"""Keeps the running HAProxy up to date with replicas, their state and revocations, and reads its counters.

Changes are sent one at a time, and never during a reload. While HAProxy is down, nothing is sent. Its next
configuration is rendered from the replicas that exist at that time.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from escala.config import Address
from escala.errors import EngineFailed, EscalaError
from escala.events import Emit, MembershipFailed, StopWaits
from escala.gateway.haproxy.configuration import Configuration, Plan
from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.gateway.haproxy.traffic import Traffic, TrafficMeter
from escala.gateway.render.backend_section import inflight, server_options
from escala.gateway.topology.servers import Server

_POLL_EVERY = 0.05
_QUIET_SECONDS = 0.5
"""How long no request must arrive before clients count as inactive.

A client that sends a request within this time learns from the answer that the connection is closing.
"""
_REVOKE_SECONDS = 20.0
_REMOVE_TRIES = 50
_REMOVE_PAUSE = 0.1


class Membership:
    """Announces replicas to HAProxy; the callback `servers` returns the current replicas of each service."""

    def __init__(
        self,
        configuration: Configuration,
        runtime: RuntimeApi,
        servers: Callable[[], Mapping[str, Sequence[Server]]],
        emit: Emit,
    ) -> None:
        self._configuration = configuration
        self._runtime = runtime
        self._servers = servers
        self._emit = emit
        self._listening = False
        self._open = asyncio.Event()
        self._turn = asyncio.Lock()
        self._meter = TrafficMeter()
        self._reading = asyncio.Lock()

    # HAProxy starts and stops

    async def opened(self) -> None:
        """Announce the changes since HAProxy began to start; from now on, announce each change as it happens."""
        async with self._turn:
            self._listening = True
            await self._catch_up()
        self._open.set()

    async def closed(self) -> None:
        self._listening = False
        self._open.clear()

    async def reload(self, plan: Callable[[], Plan], commit: Callable[[], None] = lambda: None) -> None:
        """Reload HAProxy with a plan; if it refuses, raise EscalaError and leave everything unchanged.

        `plan` is called once earlier changes are done. `commit` is called as soon as the plan is in effect.
        """
        async with self._turn:
            try:
                await self._configuration.reload(plan(), commit)
            except OSError as error:
                raise EngineFailed("HAProxy", f"was not reloaded ({str(error) or type(error).__name__})") from error
            await self._catch_up()

    # Replicas are added and removed

    async def update(self, service: str, server: Server) -> None:
        """Announce the current state of a replica, even if HAProxy does not know the replica yet."""
        async with self._turn:
            if self._listening:
                with self._reported(service, server.number):
                    await self._announce(service, server)

    async def remove(self, service: str, number: int) -> None:
        """Remove a replica whose process has ended, as soon as all connections to it are closed."""
        for tries_left in reversed(range(_REMOVE_TRIES)):
            async with self._turn:
                if not self._listening:
                    return
                try:
                    await self._remove(service, number)
                except (OSError, EscalaError):
                    if not tries_left:
                        with self._reported(service, number):
                            raise
                else:
                    return
            await asyncio.sleep(_REMOVE_PAUSE)

    async def until_idle(self, service: str, number: int, seconds: float) -> None:
        """Return when a replica has no more requests, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.is_busy(service, number):  # noqa: ASYNC110 - HAProxy sends no event
                    await asyncio.sleep(_POLL_EVERY)

    async def until_quiet(self, seconds: float) -> None:
        """Return when the stopping gateway has had no request for a moment, or after `seconds`.

        HAProxy alone would also wait for clients that keep idle connections open.
        """
        reported = False
        quiet_since = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while time.monotonic() < quiet_since + _QUIET_SECONDS:
                    await asyncio.sleep(_POLL_EVERY)
                    inflight = await self._inflight()
                    if inflight != 0:
                        quiet_since = time.monotonic()
                    if inflight and not reported:
                        self._emit(StopWaits(inflight, seconds))
                        reported = True

    async def traffic(self) -> list[Traffic]:
        """Return HAProxy's counters, with totals that survive reloads; an empty list while HAProxy is down."""
        if self._listening:
            with contextlib.suppress(OSError, EscalaError):
                return await self._counted()
        return []

    async def _counted(self) -> list[Traffic]:
        async with self._reading:  # one reading at a time: the meter compares each with the previous one
            return self._meter.add(await self._runtime.traffic())

    async def revoke(self) -> None:
        """Enforce revocations; raise if HAProxy refuses them, or if it is down and does not restart in time."""
        async with asyncio.timeout(_REVOKE_SECONDS):
            await self._open.wait()
            async with self._turn:
                await self._configuration.enforce_revocations()

    async def _inflight(self) -> int | None:
        """Return the number of in-flight requests of all services; None if HAProxy does not answer."""
        try:
            return sum(each.inflight for each in await self._counted() if not each.server)
        except (OSError, EscalaError):
            return None

    async def is_busy(self, service: str, number: int) -> bool:
        """Whether a replica has requests; without an answer from HAProxy it counts as busy, and is not ended early."""
        where = (service, str(number))
        async with self._turn:
            try:
                return self._listening and any(
                    each.inflight for each in await self._counted() if (each.service, each.server) == where
                )
            except (OSError, EscalaError):
                return self._listening

    # The commands

    async def _catch_up(self) -> None:
        """Announce all replicas. Revocations are not sent here: `revoke` itself waits for HAProxy."""
        present = self._servers()
        for service, servers in present.items():
            for server in servers:
                with self._reported(service, server.number):
                    await self._announce(service, server)
        staying = {(service, server.number) for service, servers in present.items() for server in servers}
        for service, number in self._configuration.deployed.known.keys() - staying:  # it left while nobody listened
            with self._reported(service, number):
                await self._remove(service, number)

    async def _announce(self, service: str, server: Server) -> None:
        """Bring HAProxy's view of a replica up to date. A service that HAProxy does not know yet needs a reload."""
        if server.state == "ready":
            await self._add(service, server)
        if (service, server.number) in self._configuration.deployed.known:
            for backend in self._configuration.deployed.backends(service):
                await self._runtime.apply(backend.name, server, inflight(server, backend.balance))

    async def _add(self, service: str, server: Server) -> None:
        """Add a replica to the backends of its service, unless it is already there."""
        deployed = self._configuration.deployed
        if deployed.topology is None or service not in deployed.topology.backends:
            return
        before = deployed.known.get((service, server.number))
        if before is not None:
            if before == server.endpoint or (isinstance(before, Address) and isinstance(server.endpoint, Address)):
                return
            # HAProxy cannot change a server from a port to a socket, or back.
            await self._remove(service, server.number)
        settings = deployed.topology.services[service]
        for backend in deployed.backends(service):
            await self._runtime.add(backend.name, server, server_options(server, settings, backend.balance))
        deployed.known[service, server.number] = server.endpoint

    async def _remove(self, service: str, number: int) -> None:
        deployed = self._configuration.deployed
        if (service, number) in deployed.known:
            for backend in deployed.backends(service):
                await self._runtime.remove(backend.name, str(number))
            del deployed.known[service, number]
        self._meter.forget(service, str(number))  # another replica may get the number

    @contextlib.contextmanager
    def _reported(self, service: str, number: int) -> Iterator[None]:
        """Report an error with one replica instead of raising it, so that the other replicas are still handled."""
        try:
            yield
        except (OSError, EscalaError) as error:
            self._emit(MembershipFailed(f"{service}/{number}", str(error) or type(error).__name__))
