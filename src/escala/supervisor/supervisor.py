"""The supervisor: the process of `escala up`. It reads as what it does: claim, start, open, watch, stop.

Its table is `Child` objects, made from immutable specs. Signal handlers and the control socket only say why to stop
and wake it.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg

from escala import engines
from escala.config import Address
from escala.database.migrate import migrate
from escala.engines import Engine
from escala.errors import EngineFailed, EscalaError, PrepareFailed
from escala.events import (
    BalancerUnreachable,
    Emit,
    EngineReady,
    LeftoverStopped,
    Migrated,
    Opened,
    Prepared,
    Preparing,
    Stopped,
    Stopping,
)
from escala.gateway import Backend, Gateway, Server
from escala.process import ProcessSpec
from escala.project import Project
from escala.supervisor import ports
from escala.supervisor.child import Child, Duties
from escala.supervisor.control import Control
from escala.supervisor.lock import Lock
from escala.supervisor.logs import Logs
from escala.supervisor.registry import Registry
from escala.supervisor.replica import environment_for, probe, replica_name, replica_spec, services
from escala.supervisor.status import Status, describe, memory_of

ENGINE_START_SECONDS = 60.0
EXTERNAL_ENGINE_SECONDS = 5.0
GATEWAY_START_SECONDS = 10.0


class StopRequested(Exception):
    """Somebody wants the start to end early."""


class Supervisor:
    """Runs a project from start to stop."""

    def __init__(self, project: Project, logs: Logs, emit: Emit) -> None:
        self.project = project
        self._config = project.config
        self._logs = logs
        self._emit = emit
        self._lock = Lock(project)
        self._registry = Registry(project.layout.processes)
        self._engines: dict[str, Engine] = {
            "postgres": engines.postgres_engine(project.config, project.layout),
            "valkey": engines.valkey_engine(project.config, project.layout),
        }
        self._gateway = Gateway(project.config, project.layout, self._backends)
        self._engine_children: dict[str, Child] = {}
        self._replicas: dict[str, Child] = {}
        self._addresses: dict[str, Address] = {}
        self._gateway_child: Child | None = None
        self._phase = "starting"
        self._began = time.monotonic()
        self._started_at = time.time()
        self._stop_reasons: list[str] = []
        self._wake = asyncio.Event()

    async def run(self, opened: "asyncio.Event | None" = None) -> None:
        """Start everything, watch over it until asked to stop, stop everything. Sets `opened` when all is open."""
        self.project.layout.create()
        self._lock.take()
        control = Control(self.project.layout.control_socket, status=self.status, stop=self.ask_to_stop)
        self._listen_to_signals()
        control.start()
        try:
            await self._start()
            if opened is not None:
                opened.set()
            self._phase = "ready"
            await self._wake.wait()
        except StopRequested:
            pass
        finally:
            self._phase = "stopping"
            await self._stop()
            await control.close()
            self._lock.release()

    def ask_to_stop(self, reason: str) -> None:
        """Begin to stop; asked twice, stop without waiting for what is in flight."""
        self._stop_reasons.append(reason)
        self._wake.set()
        if len(self._stop_reasons) > 1 and self._phase == "stopping":
            for child in self._children():
                child.kill()

    def status(self) -> Status:
        processes = [describe(child, self._engine_address(name)) for name, child in self._engine_children.items()]
        if self._gateway_child is not None:
            processes.append(describe(self._gateway_child, str(self._gateway.address)))
        processes += [describe(child, str(self._addresses.get(name, ""))) for name, child in self._replicas.items()]
        return Status(
            project=self.project.name,
            phase=self._phase,
            pid=os.getpid(),
            url=self._gateway.address.url,
            started_at=self._started_at,
            memory=memory_of(os.getpid(), with_children=False),
            processes=processes,
        )

    # Start

    async def _start(self) -> None:
        for leftover in await asyncio.to_thread(self._registry.stop_leftovers):
            self._emit(LeftoverStopped(leftover.name, leftover.pid))
        self._require_ports()
        self._gateway.find_binary()
        await self._unless_stopped(self._start_engines())
        await self._unless_stopped(self._migrate())
        await self._unless_stopped(self._prepare())
        self._start_replicas()
        await self._unless_stopped(self._first_replicas())
        await self._unless_stopped(self._open_gateway())

    async def _unless_stopped(self, step: Coroutine[Any, Any, None]) -> None:
        """Do `step`; give it up when somebody asks to stop."""
        working = asyncio.create_task(step)
        waking = asyncio.create_task(self._wake.wait())
        await asyncio.wait({working, waking}, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            raise StopRequested
        working.result()
        if self._wake.is_set():
            raise StopRequested

    def _require_ports(self) -> None:
        ports.require_free(self._config.gateway.bind, "the gateway (gateway.bind)")
        for name, service in self._config.services.items():
            for number, port in enumerate(service.ports[: service.replicas.min], start=1):
                ports.require_free(Address("127.0.0.1", port), replica_name(name, number))

    async def _start_engines(self) -> None:
        starts = (self._start_engine(name, engine) for name, engine in self._engines.items())
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _start_engine(self, name: str, engine: Engine) -> None:
        began = time.monotonic()
        await asyncio.to_thread(engine.prepare)
        if engine.process() is None:
            await self._require_answer(engine)
            self._emit(EngineReady(name, external=True, seconds=time.monotonic() - began))
            return

        async def prepare() -> ProcessSpec:
            if child.restarts:
                await asyncio.to_thread(engine.prepare)
            spec = engine.process()
            assert spec is not None
            return spec

        duties = Duties(
            prepare=prepare, probe=engine.probe, start_timeout=ENGINE_START_SECONDS, on_ready=_nothing, on_end=_nothing
        )
        child = self._engine_children[name] = self._child(name, duties)
        child.start()
        if not await child.wait_tried():
            tail = child.process.tail if child.process else ()
            words = " / ".join(list(tail)[-3:]) or "it said nothing"
            raise child.failure or EngineFailed(name, f"could not start: {words}")

    async def _require_answer(self, engine: Engine) -> None:
        try:
            async with asyncio.timeout(EXTERNAL_ENGINE_SECONDS):
                await engine.probe()
        except OSError as error:
            key = f"engines.{engine.name}.url"
            raise EngineFailed(engine.name, f"does not answer at {key}: {str(error) or 'no answer in time'}") from None

    async def _migrate(self) -> None:
        connection = await asyncpg.connect(self._engines["postgres"].url)
        try:
            names = await migrate(connection)
        finally:
            await connection.close()
        if names:
            self._emit(Migrated(tuple(names)))

    async def _prepare(self) -> None:
        """Run the project's own preparation; its output is the user's to see as it comes."""
        command = self._config.project.prepare
        if command is None:
            return
        self._emit(Preparing(command))
        began = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                *shlex.split(command), cwd=self.project.root, env=self._environment()
            )
        except OSError as error:
            raise EscalaError(f"project.prepare ({command}): {error.strerror}") from None
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
        if code != 0:
            raise PrepareFailed(command, code)
        self._emit(Prepared(time.monotonic() - began))

    def _start_replicas(self) -> None:
        for service_name, service in services(self._config).items():
            for number in range(1, service.replicas.min + 1):
                name = replica_name(service_name, number)
                self._replicas[name] = self._child(name, self._replica_duties(service_name, number))
        for child in self._replicas.values():
            child.start()

    def _replica_duties(self, service_name: str, number: int) -> Duties:
        name = replica_name(service_name, number)
        service = services(self._config)[service_name]

        async def prepare() -> ProcessSpec:
            self._addresses[name] = address = self._address(service_name, number)
            return replica_spec(self.project, service_name, number, address, self._environment(service_name, name))

        async def joined() -> None:
            if self._is_open:
                await self._tell_balancer(service_name, number, ready=True)

        async def left() -> None:
            if self._is_open:
                await self._tell_balancer(service_name, number, ready=False)

        return Duties(
            prepare=prepare,
            probe=lambda: probe(self._addresses[name], service.health),
            start_timeout=service.start_timeout,
            on_ready=joined,
            on_end=left,
        )

    def _address(self, service_name: str, number: int) -> Address:
        """Return the pinned address of a replica, or the one it had, or a free one."""
        pinned = services(self._config)[service_name].ports
        name = replica_name(service_name, number)
        if number <= len(pinned):
            address = Address("127.0.0.1", pinned[number - 1])
            ports.require_free(address, name)
            return address
        before = self._addresses.get(name)
        return before if before and ports.is_free(before) else Address("127.0.0.1", ports.free_port())

    async def _first_replicas(self) -> None:
        """Wait until every service has a replica that is ready, or none that could still become so."""
        for service_name in services(self._config):
            mine = [child for name, child in self._replicas.items() if name.partition("/")[0] == service_name]
            waiting = {asyncio.create_task(child.wait_tried()) for child in mine}
            good = False
            while waiting and not good:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                good = any(task.result() for task in done)
            for task in waiting:
                task.cancel()

    async def _open_gateway(self) -> None:
        async def prepare() -> ProcessSpec:
            ports.require_free(self._gateway.address, "the gateway (gateway.bind)")
            return await asyncio.to_thread(self._gateway.prepare)

        duties = Duties(
            prepare=prepare,
            probe=self._gateway.probe,
            start_timeout=GATEWAY_START_SECONDS,
            on_ready=self._tell_balancer_all,
            on_end=_nothing,
        )
        self._gateway_child = self._child("gateway", duties)
        self._gateway_child.start()
        if not await self._gateway_child.wait_tried():
            tail = self._gateway_child.process.tail if self._gateway_child.process else ()
            raise self._gateway_child.failure or EngineFailed("HAProxy", " / ".join(list(tail)[-3:]))
        self._emit(Opened(self._gateway.address.url, time.monotonic() - self._began))

    # While it runs

    @property
    def _is_open(self) -> bool:
        return self._gateway_child is not None and self._gateway_child.state == "ready"

    async def _tell_balancer_all(self) -> None:
        """Catch up on replicas that came or went while HAProxy was starting."""
        for backend in self._backends():
            for server in backend.servers:
                await self._tell_balancer(backend.service, int(server.name), ready=server.ready)

    async def _tell_balancer(self, service: str, number: int, *, ready: bool) -> None:
        name = replica_name(service, number)
        try:
            if ready:
                await self._gateway.runtime.enable(service, str(number), self._addresses[name])
            else:
                await self._gateway.runtime.disable(service, str(number))
        except (OSError, EscalaError) as error:
            self._emit(BalancerUnreachable(name, str(error) or type(error).__name__))

    def _backends(self) -> Sequence[Backend]:
        """Return the replicas as they are now."""
        return [
            Backend(
                service_name,
                service.health,
                tuple(self._server(service_name, number) for number in range(1, service.replicas.min + 1)),
            )
            for service_name, service in services(self._config).items()
        ]

    def _server(self, service: str, number: int) -> Server:
        name = replica_name(service, number)
        # A replica that never came so far has no address yet; HAProxy wants one all the same.
        address = self._addresses.get(name, Address("127.0.0.1", 1))
        return Server(str(number), address, self._replicas[name].state == "ready")

    # Stop

    async def _stop(self) -> None:
        """Close the door, let what is inside finish, then the engines; each step within its own deadline."""
        began = time.monotonic()
        self._emit(Stopping(self._stop_reasons[0] if self._stop_reasons else "the start failed"))
        if self._gateway_child is not None:
            await self._gateway_child.stop()
        await asyncio.gather(*(child.stop() for child in self._replicas.values()))
        await asyncio.gather(*(child.stop() for child in self._engine_children.values()))
        self._emit(Stopped(time.monotonic() - began))

    # Helpers

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.ask_to_stop, number.name)

    def _child(self, name: str, duties: Duties) -> Child:
        output = self._logs.sink(name, self._shown(name))
        return Child(name, duties, emit=self._emit, output=output, registry=self._registry)

    def _shown(self, name: str) -> Callable[[str], bool]:
        """Return which lines of a process are for the console: of engines none, of HAProxy only requests."""
        if name in self._engines:
            return lambda line: False
        if name == "gateway":
            return lambda line: not line.startswith(("[NOTICE]", "[WARNING]", "Proxy "))
        return lambda line: True

    def _children(self) -> list[Child]:
        gateway = [self._gateway_child] if self._gateway_child else []
        return [*gateway, *self._replicas.values(), *self._engine_children.values()]

    def _environment(self, service: str = "", replica: str = "") -> dict[str, str]:
        postgres, valkey = self._engines["postgres"].url, self._engines["valkey"].url
        return environment_for(self.project, postgres=postgres, valkey=valkey, service=service, replica=replica)

    def _engine_address(self, name: str) -> str:
        return "Unix socket" if name in self._engine_children else "external"


async def _nothing() -> None:
    pass
