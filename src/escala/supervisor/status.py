"""What runs, as the control socket tells it."""

import contextlib
import time
from collections.abc import Iterable

import msgspec
import psutil

from escala.config import Service
from escala.gateway import Traffic
from escala.supervisor.child import Child


class ProcessStatus(msgspec.Struct, kw_only=True):
    service: str
    replica: str
    """Empty for an engine."""
    address: str
    """Where it listens: host and port, or "unix:PATH" of a replica; of an engine just "Unix socket"."""
    pid: int | None
    state: str
    """starting, ready, serving, draining, waiting, stopping, stopped (`supervisor.child`)"""
    crashing: bool
    """Whether it dies again and again."""
    restarts: int
    uptime: float | None
    """Seconds since it was ready."""
    memory: int | None
    """Bytes (proportional set size) of the process and its children; None in a brief answer."""

    drained: bool = False
    """Whether it gets no new requests."""
    inflight: int | None = None
    """Requests that it is handling; None for what is no replica behind the gateway."""
    queued: int | None = None
    """Requests that wait for it."""
    rate: int | None = None
    """Requests in the last second."""
    requests: int | None = None
    errors: int | None = None
    """Answers 5xx, and connections and answers that failed."""


class ServiceStatus(msgspec.Struct, kw_only=True):
    name: str
    replicas: int
    """How many there are to be."""
    min: int
    max: int
    why: str
    """Why there are so many; empty where the number is fixed."""
    rollout: str
    """How far a rollout is, or why the last one was stopped."""
    inflight: int
    queued: int
    """Requests that wait for any of its replicas."""
    rate: int
    requests: int
    errors: int


class JobsStatus(msgspec.Struct, kw_only=True):
    waiting: int
    running: int
    oldest_seconds: float
    """How long the oldest due job has waited."""


class CacheStatus(msgspec.Struct, kw_only=True):
    """What the shared level of the cache (Valkey) was asked since it started."""

    hits: int
    misses: int


class Status(msgspec.Struct, kw_only=True):
    project: str
    phase: str
    """starting, ready or stopping"""
    pid: int
    url: str
    started_at: float
    """Seconds since the epoch."""
    memory: int | None
    """Bytes of the supervisor itself; None in a brief answer."""
    processes: list[ProcessStatus]
    services: list[ServiceStatus]
    jobs: JobsStatus | None
    """None where PostgreSQL does not answer, where no worker runs, and in a brief answer."""
    cache: CacheStatus | None
    """None where Valkey does not answer, and in a brief answer."""
    metrics: str
    """The URL of the gateway's metrics."""


def describe_service(
    name: str, service: Service, replicas: int, traffic: Traffic | None, *, why: str, rollout: str
) -> ServiceStatus:
    return ServiceStatus(
        name=name,
        replicas=replicas,
        min=service.replicas.min,
        max=service.replicas.most,
        why=why,
        rollout=rollout,
        inflight=traffic.inflight if traffic else 0,
        queued=traffic.queued if traffic else 0,
        rate=traffic.rate if traffic else 0,
        requests=traffic.requests if traffic else 0,
        errors=traffic.errors if traffic else 0,
    )


def describe(child: Child, address: str, *, drained: bool, traffic: Traffic | None) -> ProcessStatus:
    """Return what a child does, without its memory: that takes long to measure (`measure`)."""
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
    """Return the proportional set size of a process, its children included: shared pages are counted once in all."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if with_children else [])]
        return sum(map(_pss, family))
    return None


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):  # not Linux, or not our process: the nearest there is
            return int(process.memory_info().rss)
    return 0
