"""The supervisor: the process of `escala up`. It reads as what it does: claim, start, open, watch, stop.

Its table is `Child` objects, made from immutable specs. Signal handlers and the control socket only say why to stop
and wake it.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from escala.control.messages import Applied, Canary
from escala.control.server import Control
from escala.control.status import CacheStatus, JobsStatus, Status
from escala.engines.valkey import lookups
from escala.errors import EngineFailed, EscalaError
from escala.events import (
    ConfigurationApplied,
    Drained,
    Emit,
    LeftoverStopped,
    Opened,
    Prepared,
    Preparing,
    Reloaded,
    ReloadFailed,
    Revoked,
    Scaled,
    Stopped,
    Stopping,
)
from escala.gateway.haproxy.configuration import STOP_SECONDS, Gateway, Plan
from escala.gateway.haproxy.membership import Balancer
from escala.gateway.haproxy.revocation_maps import Revocations
from escala.processes.child import Child, Duties
from escala.processes.logs import Logs
from escala.processes.orphans import Orphans
from escala.processes.process import ProcessSpec
from escala.processes.records import Records
from escala.processes.registry import Registry
from escala.project.lock import Lock
from escala.project.project import Project
from escala.supervisor import prepare
from escala.supervisor.changes.apply import Application
from escala.supervisor.changes.rollout_registry import Rollouts
from escala.supervisor.engines import Engines
from escala.supervisor.gateway.access_log import COLLECTOR, Lines, collector_duties
from escala.supervisor.gateway.certificate_watch import Certificates
from escala.supervisor.gateway.listeners import Doors
from escala.supervisor.gateway.revocation_sync import RevocationKeeper, never_later_than
from escala.supervisor.replicas.autoscaler import Autoscaler
from escala.supervisor.replicas.backlog import Backlog
from escala.supervisor.replicas.health import HealthWatch
from escala.supervisor.replicas.recycler import Recycler
from escala.supervisor.replicas.spec import environment_for
from escala.supervisor.replicas.table import MOST, Replicas
from escala.supervisor.status import describe, describe_service, measure, memory_of
from escala.supervisor.systemd import notify

GATEWAY = "gateway"
GATEWAY_START_SECONDS = 10.0
LOOK_SECONDS = 2.0
"""How often the supervisor looks whether its control socket is still there."""


Result = TypeVar("Result")


class StopRequested(Exception):
    """Somebody wants what is under way to end early."""


class Supervisor:
    """Runs a project from start to stop."""

    def __init__(self, project: Project, logs: Logs, emit: Emit) -> None:
        self.project = project
        self._logs = logs
        self._emit = emit
        self._lock = Lock(project)
        self._records = Records(emit)
        self._registry = Registry(project.layout.processes, self._records)
        self._orphans = Orphans(emit)
        self._engines = Engines(project, self._make_child, emit)
        self._revocations = Revocations()
        self._gateway = Gateway(project.root, project.layout, self._plan, self._revocations)
        self._balancer = Balancer(self._gateway, lambda: self._replicas.backends(), emit)
        self._replicas = Replicas(
            project, self._make_child, environment=self._environment, balancer=self._balancer, emit=emit
        )
        self._rollouts = Rollouts(self._replicas, self._balancer, emit)
        self._backlog = Backlog(lambda: self._engines.postgres_url)
        self._autoscaler = Autoscaler(self._replicas, self._balancer, self._rollouts, self._backlog, emit)
        self._health = HealthWatch(self._replicas, self._balancer, emit)
        self._recycler = Recycler(self._replicas, self._balancer, self._rollouts, emit)
        self._application = Application(self._gateway, self._balancer, self._replicas, self._rollouts, self._adopt)
        self._keeper = RevocationKeeper(
            self._revocations,
            url=lambda: self._engines.postgres_url,
            enforce=self._balancer.revoke,
            emit=emit,
        )
        self._certificates = Certificates(project)
        self._collector: Child | None = None
        self._lines: Lines | None = None
        """Of the access log."""
        self._gateway_child: Child | None = None
        self._doors: Doors | None = None
        self._phase = "starting"
        self._began = time.monotonic()
        self._started_at = time.time()
        self._stop_reasons: list[str] = []
        self._wake = asyncio.Event()
        self._hanging_up: asyncio.Task[None] | None = None
        self._had_terminal = _has_terminal()

    async def run(self, opened: "asyncio.Event | None" = None) -> None:
        """Start everything, watch over it until asked to stop, stop everything. Sets `opened` when all is open."""
        self.project.layout.create()
        self._lock.take()
        control = Control(self.project.layout.control_socket, self)
        self._orphans.adopt()
        self._listen_to_signals()
        control.start()
        try:
            await self._start()
            if opened is not None:
                opened.set()
            self._phase = "ready"
            notify("READY=1", f"STATUS=open at {self._url}")
            await self._watch()
        except StopRequested:
            pass
        finally:
            self._phase = "stopping"
            notify("STOPPING=1")
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

    async def status(self, *, brief: bool = False) -> Status:
        """Return what runs; a brief answer leaves out memory, jobs and cache, for whoever asks many times a second."""
        traffic = {(each.service, each.server): each for each in await self._balancer.traffic()}
        processes = []
        for name, child in self._children().items():
            service, _, number = name.partition("/")
            counted = traffic.get((service, number)) if number else None
            drained, health = self._replicas.gets_no_requests(name), self._replicas.health(name)
            processes.append(describe(child, self._address(name), drained=drained, health=health, traffic=counted))
        if not brief:
            await asyncio.to_thread(measure, processes)
        admin = self._doors.admin if self._doors else None
        problems = self._problems()
        return Status(
            project=self.project.name,
            phase="degraded" if problems and self._phase == "ready" else self._phase,
            problems=problems,
            pid=os.getpid(),
            url=self._url,
            started_at=self._started_at,
            memory=None if brief else memory_of(os.getpid(), with_children=False),
            processes=processes,
            services=[
                describe_service(
                    name,
                    service,
                    self._replicas.count(name),
                    traffic.get((name, "")),
                    why=self._autoscaler.why(name),
                    rollout=self._rollouts.words(name),
                )
                for name, service in self._replicas.services.items()
            ],
            jobs=None if brief else await self._jobs(),
            cache=None if brief else await self._cache(),
            metrics=f"{admin.url}/metrics" if admin else "",
        )

    def _problems(self) -> list[str]:
        """Return what is wrong although everything was started."""
        logs = {f"the log of {name}": reason for name, reason in self._logs.failing.items()}
        unwritten = {**logs, **self._records.failing}
        return [
            *(f"{what} cannot be written: {reason}" for what, reason in unwritten.items()),
            *(f"{name}: {why}" for name in self._replicas.services if (why := self._replicas.why_down(name))),
        ]

    async def _jobs(self) -> JobsStatus | None:
        workers = any(service.kind == "tasks" for service in self._replicas.services.values())
        counts = await self._backlog.all() if workers and self._phase == "ready" else None
        return JobsStatus(**counts._asdict()) if counts else None

    async def _cache(self) -> CacheStatus | None:
        found = await lookups(self._engines.valkey_url) if self._phase == "ready" else None
        return CacheStatus(hits=found[0], misses=found[1]) if found else None

    # What may be asked of it while it runs

    def scale(self, service: str, count: int) -> None:
        """Begin to run another number of replicas."""
        self._require_ready()
        self._require_known(service)
        self._rollouts.require_none(service)
        least = min(1, self.project.config.services[service].replicas.min)
        if not least <= count <= MOST:
            raise EscalaError(f"{service} has between {least} and {MOST} replicas, not {count}")
        self._autoscaler.begin_anew(service)
        before, after = self._replicas.scale(service, count)
        self._emit(Scaled(service, before, after))

    async def drain(self, replica: str, drained: bool) -> None:
        """Send no new requests to a replica, or send them again."""
        self._require_ready()
        await self._replicas.drain(replica, drained)
        self._emit(Drained(replica, drained))

    async def apply(self, *, dry: bool) -> Applied:
        """Take over what the project's file says now; with `dry` only tell what is different."""
        self._require_ready()
        if dry:
            return (await asyncio.to_thread(self._application.read, self.project))[1]
        try:
            applied = await self._unless_stopped(self._application.apply(self.project))
        except StopRequested:
            raise EscalaError(f"{self.project.name} is stopping; what was not taken over yet is not any more") from None
        if applied.changes:
            self._emit(ConfigurationApplied(len(applied.changes)))
        return applied

    def roll(self, services: Sequence[str] | None, canary: Canary | None = None) -> list[str]:
        """Begin to replace the replicas of services, of all for None; return which."""
        self._require_ready()
        chosen = list(dict.fromkeys(self.project.config.services if services is None else services))
        for service in chosen:
            self._require_known(service)
        for service in chosen:
            self._rollouts.require_none(service)
        for service in chosen:
            self._rollouts.start(service, self._replicas.release_of(service), canary)
        return chosen

    async def wait_rolled(self) -> None:
        """Wait until no service is being rolled out."""
        await self._rollouts.wait()

    def say(self, line: str) -> None:
        """Print and keep a line for whoever watches."""
        self._logs.say(line)

    async def revoke(self, kind: str, value: str, expires_at: float | None) -> None:
        """Refuse a token, or all tokens that a user has; returns when the gateway does."""
        self._require_ready()
        await self._keeper.add(kind, value, expires_at or never_later_than(self.project.config.auth.max_ttl))
        self._emit(Revoked(kind))

    async def reload(self, what: str) -> None:
        """Let the gateway read keys and certificates again."""
        self._require_ready()
        await self._balancer.reload()
        self._emit(Reloaded(what))

    def _require_known(self, service: str) -> None:
        known = self.project.config.services
        if service not in known:
            raise EscalaError(f"there is no service {service!r}; there are: {', '.join(known)}")

    def _require_ready(self) -> None:
        if self._phase != "ready":
            raise EscalaError(f"{self.project.name} is {self._phase}; try again when it is open")

    def _adopt(self, project: Project) -> None:
        self.project = self._replicas.project = project
        self._certificates = Certificates(project)

    # The start, step by step

    async def _start(self) -> None:
        self._orphans.loop.start()
        for leftover in await asyncio.to_thread(self._registry.stop_leftovers):
            self._emit(LeftoverStopped(leftover.name, leftover.pid))
        self.project.layout.clear_replica_sockets()
        self._doors = Doors(self.project.config.gateway)
        if self.project.config.gateway.access_log.enabled:
            self._lines = Lines()
        self._gateway.listen(self._doors.listeners, self._lines.writer if self._lines else None)
        self._replicas.require_endpoints()
        self._gateway.find_binary()
        await self._unless_stopped(asyncio.to_thread(self._gateway.require_certificates))
        await self._unless_stopped(self._engines.start())
        await self._unless_stopped(self._engines.migrate())
        await self._unless_stopped(self._keeper.load())
        await self._unless_stopped(self._prepare())
        await self._unless_stopped(self._start_collector())
        self._replicas.start()
        await self._unless_stopped(self._replicas.wait_first())
        await self._unless_stopped(self._open_gateway())
        self._keeper.start()
        self._autoscaler.loop.start()
        self._recycler.loop.start()
        self._health.loop.start()

    async def _unless_stopped(self, step: Coroutine[Any, Any, Result]) -> Result:
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
        result = working.result()
        if self._wake.is_set():
            raise StopRequested
        return result

    async def _prepare(self) -> None:
        command = self.project.config.project.prepare
        if command is None:
            return
        self._emit(Preparing(command))
        began = time.monotonic()
        await prepare.run(command, self.project.root, self._environment(self.project), self._registry)
        self._emit(Prepared(time.monotonic() - began))

    async def _start_collector(self) -> None:
        if self._lines is None:
            return
        child = self._collector = self._make_child(COLLECTOR, collector_duties(self.project, self._lines))
        child.start()
        if not await child.wait_tried():
            raise child.failure or EngineFailed("the access log", f"could not start: {child.last_words()}")

    async def _open_gateway(self) -> None:
        async def prepare_gateway() -> ProcessSpec:
            return await asyncio.to_thread(self._gateway.prepare)

        duties = Duties(
            prepare=prepare_gateway,
            probe=self._gateway.probe,
            start_timeout=GATEWAY_START_SECONDS,
            on_ready=self._balancer.opened,
            on_end=self._balancer.closed,
        )
        child = self._gateway_child = self._make_child(GATEWAY, duties)
        child.start()
        if not await child.wait_tried():
            raise child.failure or EngineFailed("HAProxy", f"could not start: {child.last_words()}")
        self._emit(Opened(self._url, time.monotonic() - self._began))

    # While it runs

    async def _watch(self) -> None:
        """Wait until asked to stop; a state folder that was removed takes control socket and lock with it."""
        while not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
            notify("WATCHDOG=1")
            self._registry.retry()
            child = self._gateway_child
            if not self.project.layout.control_socket.exists():
                self.ask_to_stop("the state folder was removed")
            elif not self._wake.is_set() and self._certificates.changed():
                await self._take_over_certificates()
            elif child is not None and child.state == "serving" and not self._gateway.reachable:
                self._logs.say("somebody removed the gateway's control socket: it is started again")
                child.end_process()

    async def _take_over_certificates(self) -> None:
        try:
            await self.reload("certificates")
        except EscalaError as error:
            self._emit(ReloadFailed("certificates", str(error)))

    # The stop

    async def _stop(self) -> None:
        """Close the door, let what is inside finish, then the engines; each step within its own deadline."""
        began = time.monotonic()
        self._emit(Stopping(self._stop_reasons[0] if self._stop_reasons else "the start failed"))
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        loops = (self._autoscaler.loop, self._recycler.loop, self._health.loop)
        working = (self._keeper, *loops, self._rollouts)
        self._say_failures(await asyncio.gather(*(each.stop() for each in working), return_exceptions=True))
        await self._backlog.close()
        await self._replicas.stop_leaving()
        if self._doors is not None:
            self._doors.shut()
        collector = [self._collector] if self._collector else []
        await self._stop_gateway()
        await self._stop_all([*self._replicas.children.values(), *collector])
        self.project.layout.clear_replica_sockets()
        await self._stop_all(self._engines.children.values())
        await self._orphans.loop.stop()
        self._orphans.end_all()
        if self._doors is not None:
            self._doors.close()
        if self._lines is not None:
            self._lines.close()
        self._emit(Stopped(time.monotonic() - began))

    async def _stop_gateway(self) -> None:
        """Let it finish what it has, and then close the connections that clients keep idle."""
        child = self._gateway_child
        if child is None:
            return
        stopping = asyncio.create_task(self._stop_all([child]))
        quiet = asyncio.create_task(self._balancer.until_quiet(STOP_SECONDS))
        await asyncio.wait({stopping, quiet}, return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()
        child.hurry()
        await stopping

    async def _stop_all(self, group: Iterable[Child]) -> None:
        """Stop them; what goes wrong with one is no reason to leave the others running."""
        self._say_failures(await asyncio.gather(*(child.stop() for child in group), return_exceptions=True))

    def _say_failures(self, outcomes: Iterable[BaseException | None]) -> None:
        for error in outcomes:
            if error is not None:
                self._logs.say(f"while stopping: {error!r}")

    # What all of it uses

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, self.ask_to_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        """Take over the file and replace every replica, as SIGHUP asks for; stop where the terminal has gone."""
        if self._had_terminal and not _has_terminal():
            self.ask_to_stop("the terminal was closed")
            return

        async def renew() -> None:
            try:
                rolling = (await self.apply(dry=False)).rolling
                self.roll([service for service in self.project.config.services if service not in rolling])
            except (EscalaError, OSError) as error:
                self._emit(ReloadFailed("files (SIGHUP)", str(error)))

        if self._hanging_up is not None and not self._hanging_up.done():
            self._emit(ReloadFailed("files (SIGHUP)", "the SIGHUP before is still being followed"))
            return
        self._hanging_up = asyncio.create_task(renew(), name="SIGHUP")

    @property
    def _url(self) -> str:
        gateway = self.project.config.gateway
        bound = self._doors.bind if self._doors else gateway.bind  # not what an `apply` may have changed since
        return bound.url.replace("http://", "https://") if gateway.tls else bound.url

    def _plan(self) -> Plan:
        return Plan(self.project.config, self._replicas.services, self._replicas.backends())

    def _children(self) -> dict[str, Child]:
        gateway = {GATEWAY: self._gateway_child} if self._gateway_child else {}
        collector = {COLLECTOR: self._collector} if self._collector else {}
        return {**self._engines.children, **gateway, **collector, **self._replicas.children}

    def _make_child(self, name: str, duties: Duties) -> Child:
        output = self._logs.sink(name, self._shown(name))
        return Child(
            name,
            duties,
            emit=self._emit,
            output=output,
            registry=self._registry,
            clean_up=self._orphans.end_of,  # which finds nothing of what is no replica
        )

    def _shown(self, name: str) -> Callable[[str], bool]:
        """Return which lines of a process are for the console: of engines none, of HAProxy only requests."""
        if name == GATEWAY:
            usual = ("[NOTICE]", "[WARNING]", "Proxy ", "Server ", "Paused ")
            # A command to a worker that ends after a reload; a worker that was told to end at a stop.
            ending = ("Cannot transfer the fd", "exited with code 143 (Terminated)")
            return lambda line: not line.startswith(usual) and not any(words in line for words in ending)
        return lambda line: "/" in name

    def _environment(self, project: Project, service: str = "", replica: str = "") -> dict[str, str]:
        return environment_for(
            project,
            postgres=self._engines.postgres_url,
            valkey=self._engines.valkey_url,
            service=service,
            replica=replica,
        )

    def _address(self, name: str) -> str:
        if name == GATEWAY:
            return self._url.partition("://")[2]
        return self._replicas.address(name) if "/" in name else "Unix socket"


def _has_terminal() -> bool:
    """Whether there is a controlling terminal, whose end is told by SIGHUP (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
