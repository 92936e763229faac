"""The status that the control socket reports: from the replica table, HAProxy's counters and the engines."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Mapping

import psutil

from escala.cache.valkey import report
from escala.control.status import CacheStatus, JobsStatus, ProcessStatus, ServiceStatus, Status
from escala.errors import CacheUnavailable
from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.traffic import Traffic
from escala.processes.child import Child
from escala.processes.logs import Logs
from escala.processes.records import Records
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from escala.supervisor.children import Children
from escala.supervisor.engines import Engines
from escala.supervisor.gateway.listeners import PublicListeners
from escala.supervisor.gateway.process import GATEWAY
from escala.supervisor.phase import Phase
from escala.supervisor.replicas.autoscaler import Autoscaler
from escala.supervisor.replicas.backlog import Backlog
from escala.supervisor.replicas.endpoints import NOWHERE
from escala.supervisor.replicas.replica import Replica
from escala.supervisor.replicas.table import ReplicaTable

Counted = Mapping[tuple[str, str], Traffic]


class StatusReport:
    def __init__(
        self,
        *,
        phase: Phase,
        logs: Logs,
        records: Records,
        children: Children,
        engines: Engines,
        replicas: ReplicaTable,
        membership: Membership,
        rollouts: RolloutRegistry,
        autoscaler: Autoscaler,
        backlog: Backlog,
    ) -> None:
        self._phase = phase
        self._logs = logs
        self._records = records
        self._children = children
        self._engines = engines
        self._replicas = replicas
        self._membership = membership
        self._rollouts = rollouts
        self._autoscaler = autoscaler
        self._backlog = backlog
        self.listeners: PublicListeners | None = None
        """None until they are bound."""

    @property
    def url(self) -> str:
        """Where clients on this machine reach the gateway."""
        return self._replicas.project.config.gateway.url

    async def take(self, *, brief: bool) -> Status:
        """Return what runs.

        A brief answer leaves out memory, jobs and cache. It is for callers that ask many times a second.
        """
        traffic = {(each.service, each.server): each for each in await self._membership.traffic()}
        processes = [
            *(describe(child, self._platform_address(child.name)) for child in self._children.platform),
            *(self._replica(replica, traffic) for replica in self._replicas.all()),
        ]
        if not brief:
            await asyncio.to_thread(measure, processes)
        problems = self._problems()
        admin = self.listeners.admin if self.listeners else None
        return Status(
            project=self._replicas.project.name,
            phase="degraded" if problems and self._phase.name == "ready" else self._phase.name,
            problems=problems,
            pid=os.getpid(),
            url=self.url,
            started_at=self._phase.started_at,
            memory=None if brief else memory_of(os.getpid(), with_children=False),
            processes=processes,
            services=[self._service(name, traffic) for name in self._replicas.services],
            jobs=None if brief else await self._jobs(),
            cache=None if brief else await self._cache(),
            metrics=f"{admin.url}/metrics" if admin else "",
        )

    def _service(self, name: str, counted: Counted) -> ServiceStatus:
        rules, traffic = self._replicas.services[name].replicas, counted.get((name, ""))
        return ServiceStatus(
            name=name,
            replicas=len(self._replicas.staying(name)),
            min=rules.min,
            max=rules.most,
            why=self._autoscaler.why(name),
            rollout=self._rollouts.status(name),
            inflight=traffic.inflight if traffic else 0,
            queued=traffic.queued if traffic else 0,
            rate=traffic.rate if traffic else 0,
            requests=traffic.requests if traffic else 0,
            errors=traffic.errors if traffic else 0,
        )

    def _replica(self, replica: Replica, counted: Counted) -> ProcessStatus:
        traffic = counted.get((replica.service, str(replica.number)))
        drained, health = replica.state == "drain", str(replica.health)
        serves = replica.child.state == "serving" and health == "healthy" and not drained
        if serves and traffic is not None and not traffic.up:
            health = "unreachable"
        address = str(replica.endpoint) if replica.endpoint != NOWHERE else ""
        return describe(replica.child, address, drained=drained, health=health, traffic=traffic)

    def _platform_address(self, name: str) -> str:
        return self.url.partition("://")[2] if name == GATEWAY else "Unix socket"

    def _problems(self) -> list[str]:
        """Return the problems that exist although everything was started."""
        unwritten = {**{f"the log of {name}": why for name, why in self._logs.failing.items()}, **self._records.failing}
        down = {name: self._replicas.why_down(name) for name in self._replicas.services}
        return [
            *(f"{what} cannot be written: {reason}" for what, reason in unwritten.items()),
            *(f"{name}: {why}" for name, why in down.items() if why),
        ]

    async def _jobs(self) -> JobsStatus | None:
        workers = any(service.kind == "tasks" for service in self._replicas.services.values())
        counts = await self._backlog.all() if workers and self._phase.name == "ready" else None
        return JobsStatus(**counts._asdict()) if counts else None

    async def _cache(self) -> CacheStatus | None:
        if self._phase.name != "ready":
            return None
        project = self._replicas.project.name
        try:
            async with report.connection(self._engines.valkey_url, project, "the status of the cache") as wire:
                reports = await report.read(wire, project)
        except CacheUnavailable:
            return None
        counts = report.total(reports).values()
        return CacheStatus(
            l1=sum(each.l1 for each in counts),
            l2=sum(each.l2 for each in counts),
            loader=sum(each.loader for each in counts),
            loads=sum(each.loads for each in counts),
            entries=sum(each.entries for each in reports),
            bytes=sum(each.bytes for each in reports),
        )


def describe(
    child: Child, address: str, *, drained: bool = False, health: str = "healthy", traffic: Traffic | None = None
) -> ProcessStatus:
    """Return the status of a child, without its memory, which is slow to measure (`measure`)."""
    service, _, replica = child.name.partition("/")
    return ProcessStatus(
        service=service,
        replica=replica,
        address=address,
        pid=child.pid,
        state=child.state,
        crashing=child.crashing,
        restarts=child.restarts,
        uptime=time.time() - child.ready_at if child.ready_at else None,
        memory=None,
        drained=drained,
        health=health,
        inflight=traffic.inflight if traffic else None,
        queued=traffic.queued if traffic else None,
        rate=traffic.rate if traffic else None,
        requests=traffic.requests if traffic else None,
        errors=traffic.errors if traffic else None,
    )


def measure(processes: Iterable[ProcessStatus]) -> None:
    """Fill in how much memory each process uses."""
    for process in processes:
        process.memory = memory_of(process.pid) if process.pid else None


def memory_of(pid: int, *, with_children: bool = True) -> int | None:
    """Return the proportional set size of a process and its children. Pages that they share are counted only once."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if with_children else [])]
        return sum(map(_pss, family))
    return None


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):  # not Linux, or not our process: RSS is the closest
            return int(process.memory_info().rss)
    return 0
