"""The supervisor: the process of `escala up`. It reads as what it does: claim, start, open, watch, stop.

Its table is `Child` objects, made from immutable specs. Signal handlers and the control socket only say why to stop
and wake it.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

from escala.errors import EngineFailed, EscalaError
from escala.events import BalancerUnreachable, Emit, LeftoverStopped, Opened, Prepared, Preparing, Stopped, Stopping
from escala.gateway import Gateway, Server
from escala.process import ProcessSpec
from escala.project import Project
from escala.supervisor import ports, prepare
from escala.supervisor.child import Child, Duties
from escala.supervisor.control import Control
from escala.supervisor.engines import Engines
from escala.supervisor.lock import Lock
from escala.supervisor.logs import Logs
from escala.supervisor.registry import Registry
from escala.supervisor.replica import environment_for, replica_name
from escala.supervisor.replicas import Replicas
from escala.supervisor.status import Status, describe, memory_of

GATEWAY = "gateway"
GATEWAY_START_SECONDS = 10.0
LOOK_SECONDS = 2.0
"""How often the supervisor looks whether its control socket is still there."""


class StopRequested(Exception):
    """Somebody wants the start to end early."""


class Supervisor:
    """Runs a project from start to stop."""

    def __init__(self, project: Project, logs: Logs, emit: Emit) -> None:
        self.project = project
        self._logs = logs
        self._emit = emit
        self._lock = Lock(project)
        self._registry = Registry(project.layout.processes)
        self._engines = Engines(project, self._make_child, emit)
        self._replicas = Replicas(project, self._make_child, environment=self._environment, changed=self._tell_balancer)
        self._gateway = Gateway(project.config, project.layout, self._replicas.backends)
        self._gateway_child: Child | None = None
        self._listening = False
        """Whether HAProxy's Runtime API takes commands."""
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
            await self._watch()
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
            for child in self._children().values():
                child.kill()

    def status(self) -> Status:
        return Status(
            project=self.project.name,
            phase=self._phase,
            pid=os.getpid(),
            url=self._gateway.address.url,
            started_at=self._started_at,
            memory=memory_of(os.getpid(), with_children=False),
            processes=[describe(child, self._address(name)) for name, child in self._children().items()],
        )

    # The start, step by step

    async def _start(self) -> None:
        for leftover in await asyncio.to_thread(self._registry.stop_leftovers):
            self._emit(LeftoverStopped(leftover.name, leftover.pid))
        self._require_gateway_port()
        self._replicas.require_ports()
        self._gateway.find_binary()
        await self._unless_stopped(self._engines.start())
        await self._unless_stopped(self._engines.migrate())
        await self._unless_stopped(self._prepare())
        self._replicas.start()
        await self._unless_stopped(self._replicas.wait_first())
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

    async def _prepare(self) -> None:
        command = self.project.config.project.prepare
        if command is None:
            return
        self._emit(Preparing(command))
        began = time.monotonic()
        await prepare.run(command, self.project.root, self._environment(), self._registry)
        self._emit(Prepared(time.monotonic() - began))

    async def _open_gateway(self) -> None:
        async def prepare_gateway() -> ProcessSpec:
            self._require_gateway_port()
            return await asyncio.to_thread(self._gateway.prepare)

        async def catch_up() -> None:
            """Tell of replicas that came or went while HAProxy was starting; from now on each is told as it happens."""
            self._listening = True
            for backend in self._replicas.backends():
                for server in backend.servers:
                    await self._tell_balancer(backend.service, server)

        async def gone() -> None:
            self._listening = False

        duties = Duties(
            prepare=prepare_gateway,
            probe=self._gateway.probe,
            start_timeout=GATEWAY_START_SECONDS,
            on_ready=catch_up,
            on_end=gone,
        )
        child = self._gateway_child = self._make_child(GATEWAY, duties)
        child.start()
        if not await child.wait_tried():
            raise child.failure or EngineFailed("HAProxy", f"could not start: {child.last_words()}")
        self._emit(Opened(self._gateway.address.url, time.monotonic() - self._began))

    def _require_gateway_port(self) -> None:
        ports.require_free(self._gateway.address, "the gateway (gateway.bind)")

    # While it runs

    async def _watch(self) -> None:
        """Wait until asked to stop; a state folder that was removed takes control socket and lock with it."""
        while not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)
            if not self.project.layout.control_socket.exists():
                self.ask_to_stop("the state folder was removed")

    async def _tell_balancer(self, service: str, server: Server) -> None:
        if not self._listening:
            return  # HAProxy is rendered from the table when it starts
        try:
            await self._gateway.runtime.apply(service, server)
        except (OSError, EscalaError) as error:
            name = replica_name(service, int(server.name))
            self._emit(BalancerUnreachable(name, str(error) or type(error).__name__))

    # The stop

    async def _stop(self) -> None:
        """Close the door, let what is inside finish, then the engines; each step within its own deadline."""
        began = time.monotonic()
        self._emit(Stopping(self._stop_reasons[0] if self._stop_reasons else "the start failed"))
        gateway = [self._gateway_child] if self._gateway_child else []
        for group in (gateway, self._replicas.children.values(), self._engines.children.values()):
            # What goes wrong with one is no reason to leave the others running.
            outcomes = await asyncio.gather(*(child.stop() for child in group), return_exceptions=True)
            for error in outcomes:
                if error is not None:
                    self._logs.say(f"while stopping: {error!r}")
        self._emit(Stopped(time.monotonic() - began))

    # What all of it uses

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.ask_to_stop, number.name)

    def _children(self) -> dict[str, Child]:
        gateway = {GATEWAY: self._gateway_child} if self._gateway_child else {}
        return {**self._engines.children, **gateway, **self._replicas.children}

    def _make_child(self, name: str, duties: Duties) -> Child:
        output = self._logs.sink(name, self._shown(name))
        return Child(name, duties, emit=self._emit, output=output, registry=self._registry)

    def _shown(self, name: str) -> Callable[[str], bool]:
        """Return which lines of a process are for the console: of engines none, of HAProxy only requests."""
        if name == GATEWAY:
            return lambda line: not line.startswith(("[NOTICE]", "[WARNING]", "Proxy ", "Server "))
        return lambda line: "/" in name

    def _environment(self, service: str = "", replica: str = "") -> dict[str, str]:
        return environment_for(
            self.project,
            postgres=self._engines.postgres_url,
            valkey=self._engines.valkey_url,
            service=service,
            replica=replica,
        )

    def _address(self, name: str) -> str:
        if name == GATEWAY:
            return str(self._gateway.address)
        return "Unix socket" if name in self._engines.children else self._replicas.address(name)
