"""The supervisor: the process of `escala up`. The code follows its phases: claim, start, open, watch, stop."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from escala.background import BackgroundLoop
from escala.control.server import ControlServer
from escala.errors import EngineFailed, EscalaError
from escala.events import (
    Event,
    LeftoverStopped,
    Opened,
    ReloadFailed,
    Stopped,
    Stopping,
)
from escala.gateway.haproxy.configuration import STOP_SECONDS
from escala.processes.child import Child
from escala.processes.logs import Logs
from escala.project.project import Project
from escala.supervisor import prepare
from escala.supervisor.composition import Composition
from escala.supervisor.gateway.access_log import COLLECTOR, CollectorLifecycle, LogPipe
from escala.supervisor.gateway.listeners import PublicListeners
from escala.supervisor.gateway.process import GATEWAY
from escala.supervisor.operations import Operations
from escala.supervisor.replicas.endpoints import Endpoints
from escala.supervisor.signals import Signals
from escala.supervisor.status import StatusReport
from escala.supervisor.systemd import notify

WATCH_SECONDS = 2.0
"""How often the supervisor checks that its own files are still there."""


class StopRequested(Exception):
    """A stop was requested, so the work in progress ends early."""


class Supervisor:
    """Runs a project from start to stop."""

    def __init__(self, project: Project, logs: Logs, narrate: Callable[[Event], None]) -> None:
        self._parts = Composition(project, logs, narrate)
        self._emit = self._parts.events.emit
        self._layout = project.layout
        self._listeners: PublicListeners | None = None
        self._pipe: LogPipe | None = None
        """The pipe of the access log."""
        self._stop_reasons: list[str] = []
        self._wake = asyncio.Event()
        self._signals = Signals(self.ask_to_stop, self._parts.operations.renew)

    @property
    def project(self) -> Project:
        """The project as it currently runs."""
        return self._parts.replicas.project

    @property
    def operations(self) -> Operations:
        return self._parts.operations

    @property
    def status(self) -> StatusReport:
        return self._parts.status

    async def run(self, opened: "asyncio.Event | None" = None) -> None:
        """Start everything, supervise it until a stop is requested, then stop everything.

        `opened` is set when the gateway is open.
        """
        parts = self._parts
        self._layout.create()
        parts.lock.take()
        control = ControlServer(
            self._layout.control_socket,
            operations=parts.operations,
            status=parts.status.take,
            subscribe=parts.events.subscribe,
            stop=self.ask_to_stop,
        )
        parts.orphans.adopt()
        self._signals.listen()
        control.start()
        try:
            await self._unless_stopped(self._start())
            if opened is not None:
                opened.set()
            parts.phase.name = "ready"
            notify("READY=1", f"STATUS=open at {parts.status.url}")
            await self._watch()
        except StopRequested:
            pass
        finally:
            parts.phase.name = "stopping"
            notify("STOPPING=1")
            await self._stop()
            await control.close()
            parts.lock.release()

    def ask_to_stop(self, reason: str) -> None:
        """Begin to stop. On a second call during the stop, end all children without waiting for requests in flight."""
        self._stop_reasons.append(reason)
        self._wake.set()
        if len(self._stop_reasons) > 1 and self._parts.phase.name == "stopping":
            for child in [*self._parts.children.platform, *self._parts.replicas.children.values()]:
                child.kill()

    def say(self, line: str) -> None:
        """Print a line on the console, and write it to the log."""
        self._parts.logs.say(line)

    def flush(self) -> None:
        """Wait briefly until pending console output is written, so that other code can print after it."""
        self._parts.logs.flush()

    # The start, step by step

    async def _start(self) -> None:
        parts, project = self._parts, self.project
        parts.orphans.loop.start()
        for leftover in await asyncio.to_thread(parts.registry.stop_leftovers):
            self._emit(LeftoverStopped(leftover.name, leftover.pid))
        parts.registry.save()
        self._layout.clear_replica_sockets()
        self._listen(project)
        Endpoints(project).require_first()
        await asyncio.to_thread(parts.configuration.require_certificates, project.topology)
        await parts.engines.start()
        await parts.engines.migrate()
        await parts.revocation_sync.load()
        if (command := project.config.project.prepare) is not None:
            environment = parts.environment(project)
            await prepare.run(command, project.root, environment, parts.registry, self._emit)
        await self._start_collector(project)
        parts.replicas.start()
        await parts.replicas.wait_first()
        await self._open_gateway()
        for loop in self._loops:
            loop.start()

    async def _unless_stopped(self, start: Coroutine[Any, Any, None]) -> None:
        """Run the start. If a stop is requested, cancel it and raise StopRequested."""
        working = asyncio.create_task(start)
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

    def _listen(self, project: Project) -> None:
        """Bind the sockets that clients connect to. The supervisor keeps them open while HAProxy restarts."""
        self._listeners = self._parts.status.listeners = PublicListeners(project.config.gateway)
        if project.config.gateway.access_log.enabled:
            self._pipe = LogPipe()
        self._parts.configuration.listen(self._listeners.bindings, self._pipe.writer if self._pipe else None)

    async def _start_collector(self, project: Project) -> None:
        if self._pipe is not None:
            children = self._parts.children
            lifecycle = CollectorLifecycle(project, self._pipe, self._parts.engines.valkey_url)
            children.collector = children.make(COLLECTOR, lifecycle)
            await _started(children.collector, "the access log")

    async def _open_gateway(self) -> None:
        children = self._parts.children
        children.gateway = children.make(GATEWAY, self._parts.gateway)
        await _started(children.gateway, "HAProxy")
        self._emit(Opened(self._parts.status.url, time.monotonic() - self._parts.phase.began))

    # While it runs

    @property
    def _loops(self) -> list[BackgroundLoop]:
        parts = self._parts
        return [parts.revocation_sync.loop, parts.autoscaler.loop, parts.recycler.loop, parts.health.loop]

    async def _watch(self) -> None:
        """Wait until a stop is requested, and check the supervisor's own files meanwhile.

        If the state folder was removed, stop: the control socket and the lock are gone with it.
        """
        while not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._wake.wait()
            notify("WATCHDOG=1")
            self._parts.registry.retry()
            if not self._layout.control_socket.exists():
                self.ask_to_stop("the state folder was removed")
            elif not self._wake.is_set() and self._parts.certificates.changed():
                await self._take_over_certificates()
            else:
                self._require_master_socket()

    async def _take_over_certificates(self) -> None:
        try:
            await self._parts.operations.reload("certificates")
        except EscalaError as error:
            self._emit(ReloadFailed("certificates", str(error)))

    def _require_master_socket(self) -> None:
        """Restart HAProxy if its master socket was removed: without it, HAProxy cannot be told of changes."""
        child = self._parts.children.gateway
        if child is not None and child.state == "serving" and not self._parts.runtime.master.exists():
            self.say("the gateway's control socket was removed, so the gateway is being restarted")
            child.end_process()

    # The stop

    async def _stop(self) -> None:
        """Refuse new connections, let requests in flight finish, stop the replicas, then stop the engines.

        Each step has its own deadline.
        """
        began, parts, children = time.monotonic(), self._parts, self._parts.children
        self._emit(Stopping(self._stop_reasons[0] if self._stop_reasons else "the start failed"))
        stops = [parts.operation_registry.stop, parts.rollouts.stop, *(loop.stop for loop in self._loops)]
        children.report(await asyncio.gather(*(stop() for stop in stops), return_exceptions=True))
        await parts.backlog.close()
        await parts.replicas.stop_leaving()
        if self._listeners is not None:
            self._listeners.shut()
        await self._stop_gateway(children.gateway)
        await children.stop([*parts.replicas.children.values(), *filter(None, [children.collector])])
        self._layout.clear_replica_sockets()
        await parts.job_rescue.stop()
        await children.stop(children.engines.values())
        await parts.orphans.loop.stop()
        parts.orphans.end_all()
        if self._listeners is not None:
            self._listeners.close()
        if self._pipe is not None:
            self._pipe.close()
        self._emit(Stopped(time.monotonic() - began))

    async def _stop_gateway(self, child: Child | None) -> None:
        """Let the gateway finish its requests. Then make it close the connections that clients keep open but idle."""
        if child is None:
            return
        stopping = asyncio.create_task(self._parts.children.stop([child]))
        quiet = asyncio.create_task(self._parts.membership.until_quiet(STOP_SECONDS))
        await asyncio.wait({stopping, quiet}, return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()
        child.hurry()
        await stopping


async def _started(child: Child, name: str) -> None:
    """Start a child and wait until it serves; raise EngineFailed if it does not."""
    child.start()
    if not await child.wait_tried():
        raise child.failure or EngineFailed(name, f"could not start: {child.last_words()}")
