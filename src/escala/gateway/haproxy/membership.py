"""What the supervisor tells the gateway about replicas, one thing at a time and never during a reload."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from escala.errors import EngineFailed, EscalaError
from escala.events import BalancerUnreachable, Emit, StopWaits
from escala.gateway.haproxy.configuration import Gateway
from escala.gateway.haproxy.runtime_api import Traffic
from escala.gateway.topology.servers import Backend, Server

_LOOK_EVERY = 0.05
_QUIET_SECONDS = 0.5
"""Without a request, after which no client counts as active: who asks within it is told that the connection ends."""
_REVOKE_SECONDS = 20.0
_REMOVE_TRIES = 50
_REMOVE_PAUSE = 0.1


class Balancer:
    """`backends` returns the replicas as they are. While HAProxy is down nothing is told: it is rendered from them."""

    def __init__(self, gateway: Gateway, backends: Callable[[], Sequence[Backend]], emit: Emit) -> None:
        self._gateway = gateway
        self._backends = backends
        self._emit = emit
        self._listening = False
        self._open = asyncio.Event()
        self._turn = asyncio.Lock()

    async def opened(self) -> None:
        """Tell of what changed while HAProxy was starting; from now on each change is told as it happens."""
        async with self._turn:
            self._listening = True
            await self._catch_up()
        self._open.set()

    async def closed(self) -> None:
        self._listening = False
        self._open.clear()

    async def reload(self) -> None:
        """Let the gateway take over a new configuration; raise where it is refused."""
        async with self._turn:
            try:
                await self._gateway.reload()
            except OSError as error:
                raise EngineFailed("HAProxy", f"was not reloaded ({str(error) or type(error).__name__})") from error
            await self._catch_up()

    async def tell(self, service: str, server: Server) -> None:
        """Let the balancer know how a replica is now, also if it has never heard of it."""
        async with self._turn:
            if self._listening:
                with self._reported(service, server.number):
                    if server.state == "ready":
                        await self._gateway.add(service, server)
                    await self._gateway.tell(service, server)

    async def remove(self, service: str, number: int) -> None:
        """Forget a replica that has ended, once the connections to it are gone."""
        for tries_left in reversed(range(_REMOVE_TRIES)):
            async with self._turn:
                if not self._listening:
                    return
                try:
                    await self._gateway.remove(service, number)
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
                    await asyncio.sleep(_LOOK_EVERY)

    async def until_quiet(self, seconds: float) -> None:
        """Return when the gateway, told to stop, has handled no request for a moment, or when time is up.

        It would wait for clients that keep idle connections as well.
        """
        said = False
        quiet_since = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while time.monotonic() < quiet_since + _QUIET_SECONDS:
                    await asyncio.sleep(_LOOK_EVERY)
                    inflight = await self._inflight()
                    if inflight != 0:
                        quiet_since = time.monotonic()
                    if inflight and not said:
                        self._emit(StopWaits(inflight, seconds))
                        said = True

    async def _inflight(self) -> int | None:
        """Return the requests that all services have; None where HAProxy does not say."""
        try:
            return sum(each.inflight for each in await self._gateway.runtime.traffic() if not each.server)
        except (OSError, EscalaError):
            return None

    async def traffic(self) -> list[Traffic]:
        """Return what the balancer counts; nothing while HAProxy is down."""
        if self._listening:
            with contextlib.suppress(OSError, EscalaError):
                return await self._gateway.runtime.traffic()
        return []

    async def _is_busy(self, service: str, number: int) -> bool:
        """Whether a replica has requests, as far as is known: no answer is no reason to end it."""
        async with self._turn:
            try:
                return self._listening and await self._gateway.runtime.inflight(service, str(number)) > 0
            except (OSError, EscalaError):
                return self._listening

    async def revoke(self) -> None:
        """Let what was revoked be refused; raise where HAProxy does not take it, or does not come back in time."""
        async with asyncio.timeout(_REVOKE_SECONDS):
            await self._open.wait()
            async with self._turn:
                await self._gateway.enforce_revocations()

    async def _catch_up(self) -> None:
        """Tell how the replicas are now; revocations wait for the gateway by themselves (`revoke`)."""
        for backend in self._backends():
            for server in backend.servers:
                with self._reported(backend.service, server.number):
                    await self._gateway.tell(backend.service, server)

    @contextlib.contextmanager
    def _reported(self, service: str, number: int) -> Iterator[None]:
        """Report what HAProxy does not take; its own checks find out about replicas."""
        try:
            yield
        except (OSError, EscalaError) as error:
            self._emit(BalancerUnreachable(f"{service}/{number}", str(error) or type(error).__name__))
