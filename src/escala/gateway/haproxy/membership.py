"""What HAProxy is told while it runs: which replicas there are, their state, revocations; and what it counts.

One thing at a time, and never during a reload. While HAProxy is down it is told nothing: its next configuration is
rendered from the replicas of that moment.
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
from escala.gateway.render.backend import inflight, server_options
from escala.gateway.topology.servers import Server

_POLL_EVERY = 0.05
_QUIET_SECONDS = 0.5
"""Without a request, after which no client counts as active: who asks within it is told that the connection ends."""
_REVOKE_SECONDS = 20.0
_REMOVE_TRIES = 50
_REMOVE_PAUSE = 0.1


class Membership:
    """`servers` returns the replicas of each service at this moment."""

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

    # HAProxy comes and goes

    async def opened(self) -> None:
        """Announce what changed while HAProxy was starting; from now on each change is announced as it happens."""
        async with self._turn:
            self._listening = True
            await self._catch_up()
        self._open.set()

    async def closed(self) -> None:
        self._listening = False
        self._open.clear()

    async def reload(self, plan: Callable[[], Plan], commit: Callable[[], None] = lambda: None) -> None:
        """Let HAProxy take over a plan; raise EscalaError where it refuses, with everything as it was.

        `plan` is asked when it is this change's turn; `commit` is called in the moment in which the plan holds.
        """
        async with self._turn:
            try:
                await self._configuration.reload(plan(), commit)
            except OSError as error:
                raise EngineFailed("HAProxy", f"was not reloaded ({str(error) or type(error).__name__})") from error
            await self._catch_up()

    # Replicas come and go

    async def update(self, service: str, server: Server) -> None:
        """Announce a replica as it is now, also if HAProxy has never heard of it."""
        async with self._turn:
            if self._listening:
                with self._reported(service, server.number):
                    await self._announce(service, server)

    async def remove(self, service: str, number: int) -> None:
        """Remove a replica that has ended, once the connections to it are gone."""
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
        """Return when a replica has no request any more, or when its time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._is_busy(service, number):  # noqa: ASYNC110 - HAProxy tells nobody
                    await asyncio.sleep(_POLL_EVERY)

    async def until_quiet(self, seconds: float) -> None:
        """Return when the gateway, asked to stop, has handled no request for a moment, or when time is up.

        HAProxy by itself would wait for clients that keep idle connections as well.
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
        """Return what HAProxy counts, with totals that no reload resets; nothing while it is down."""
        if self._listening:
            with contextlib.suppress(OSError, EscalaError):
                return await self._counted()
        return []

    async def _counted(self) -> list[Traffic]:
        async with self._reading:  # in their order: the meter compares each reading with the one before
            return self._meter.add(await self._runtime.traffic())

    async def revoke(self) -> None:
        """Enforce revocations; raise where HAProxy does not take them, or does not come back in time."""
        async with asyncio.timeout(_REVOKE_SECONDS):
            await self._open.wait()
            async with self._turn:
                await self._configuration.enforce_revocations()

    async def _inflight(self) -> int | None:
        """Return the requests that all services have; None where HAProxy does not say."""
        try:
            return sum(each.inflight for each in await self._counted() if not each.server)
        except (OSError, EscalaError):
            return None

    async def _is_busy(self, service: str, number: int) -> bool:
        """Whether a replica has requests, as far as is known: no answer is no reason to end it."""
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
        """Announce all replicas; revocations wait for HAProxy by themselves (`revoke`)."""
        for service, servers in self._servers().items():
            for server in servers:
                with self._reported(service, server.number):
                    await self._announce(service, server)

    async def _announce(self, service: str, server: Server) -> None:
        """Bring HAProxy's view of a replica up to date; a service that it does not have yet comes by a reload."""
        if server.state == "ready":
            await self._add(service, server)
        if (service, server.number) in self._configuration.deployed.known:
            for backend in self._configuration.deployed.backends(service):
                await self._runtime.apply(backend.name, server, inflight(server, backend.balance))

    async def _add(self, service: str, server: Server) -> None:
        """Add a replica to the backends of its service, unless it is there."""
        deployed = self._configuration.deployed
        if deployed.topology is None or service not in deployed.topology.backends:
            return
        before = deployed.known.get((service, server.number))
        if before is not None:
            if before == server.endpoint or (isinstance(before, Address) and isinstance(server.endpoint, Address)):
                return
            await self._remove(service, server.number)  # HAProxy cannot move one from a port to a socket, or back
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

    @contextlib.contextmanager
    def _reported(self, service: str, number: int) -> Iterator[None]:
        """Report what HAProxy refuses about one replica; the others go on."""
        try:
            yield
        except (OSError, EscalaError) as error:
            self._emit(MembershipFailed(f"{service}/{number}", str(error) or type(error).__name__))
