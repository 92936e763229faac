"""The status of a running project, as the control socket reports it."""

from typing import Literal

import msgspec


class ProcessStatus(msgspec.Struct, kw_only=True):
    service: str
    replica: str
    """Empty for an engine."""
    address: str
    """Where it listens. Host and port, or "unix:PATH" for a replica; for an engine only "Unix socket"."""
    pid: int | None
    state: str
    """starting, ready, serving, draining, waiting, stopping, stopped (`processes.child`)"""
    crashing: bool
    """Whether it is in a crash loop."""
    restarts: int
    uptime: float | None
    """Seconds since it was ready."""
    memory: int | None
    """Bytes (proportional set size) of the process and its children; None in a brief answer."""

    drained: bool = False
    """Whether it gets no new requests."""
    health: str = "healthy"
    """The health of a serving replica: healthy, busy, unhealthy or hung (`supervisor.replicas.health`).

    It is "unreachable" if the replica is healthy but the gateway cannot connect to it.
    """
    inflight: int | None = None
    """Requests that it is handling; None if it is not a replica behind the gateway."""
    queued: int | None = None
    """Requests that wait for it."""
    rate: int | None = None
    """Requests in the last second."""
    requests: int | None = None
    errors: int | None = None
    """Answers with a status of 5xx, and failed connections and answers."""


class RolloutStatus(msgspec.Struct):
    """The progress of a rollout, or why the last one was stopped."""

    state: Literal["running", "stopped"]
    replaced: int
    wanted: int
    """How many replicas are to be replaced."""
    reason: str
    """Why it was stopped."""

    def __str__(self) -> str:
        if self.state == "running":
            return f"rolling out: {self.replaced} of {self.wanted} replaced"
        return f"the last rollout was stopped: {self.reason}"


class ServiceStatus(msgspec.Struct, kw_only=True):
    name: str
    replicas: int
    """The wanted number of replicas."""
    min: int
    max: int
    why: str
    """Why there are that many; empty if the number is fixed."""
    rollout: RolloutStatus | None
    """None if no rollout is running and the last one, if any, was not stopped."""
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
    """The figures of the caches of all processes that run, since each started."""

    l1: int
    """Lookups that were answered in the process's memory."""
    l2: int
    """Lookups that Valkey answered."""
    loader: int
    """Lookups that a load answered."""
    loads: int
    entries: int
    bytes: int
    """The size of the entries in memory, about."""


class Status(msgspec.Struct, kw_only=True):
    project: str
    phase: str
    """starting, ready, degraded (open, with `problems`) or stopping"""
    problems: list[str] = []
    """Problems that exist although everything was started: a service without a healthy replica, a full disk."""
    pid: int
    url: str
    started_at: float
    """Seconds since the epoch."""
    memory: int | None
    """Memory of the supervisor itself in bytes; None in a brief answer."""
    processes: list[ProcessStatus]
    services: list[ServiceStatus]
    jobs: JobsStatus | None
    """None if PostgreSQL does not answer, if the project has no worker, and in a brief answer."""
    cache: CacheStatus | None
    """None if Valkey does not answer, and in a brief answer."""
    metrics: str
    """The URL of the gateway's metrics."""

    @property
    def is_open(self) -> bool:
        """Whether the gateway accepts requests."""
        return self.phase in {"ready", "degraded"}
