"""What runs, as the control socket tells it."""

from typing import Literal

import msgspec


class ProcessStatus(msgspec.Struct, kw_only=True):
    service: str
    replica: str
    """Empty for an engine."""
    address: str
    """Where it listens: host and port, or "unix:PATH" of a replica; of an engine just "Unix socket"."""
    pid: int | None
    state: str
    """starting, ready, serving, draining, waiting, stopping, stopped (`processes.child`)"""
    crashing: bool
    """Whether it dies again and again."""
    restarts: int
    uptime: float | None
    """Seconds since it was ready."""
    memory: int | None
    """Bytes (proportional set size) of the process and its children; None in a brief answer."""

    drained: bool = False
    """Whether it gets no new requests."""
    health: str = "healthy"
    """Of a replica that serves: healthy, busy, unhealthy or hung (`supervisor.replicas.health`).

    "unreachable" where it is healthy, but the gateway cannot connect to it.
    """
    inflight: int | None = None
    """Requests that it is handling; None for what is no replica behind the gateway."""
    queued: int | None = None
    """Requests that wait for it."""
    rate: int | None = None
    """Requests in the last second."""
    requests: int | None = None
    errors: int | None = None
    """Answers 5xx, and connections and answers that failed."""


class RolloutStatus(msgspec.Struct):
    """How far a rollout is, or why the last one was stopped."""

    state: Literal["running", "stopped"]
    replaced: int
    wanted: int
    """Replicas."""
    reason: str
    """Why it was stopped."""

    def __str__(self) -> str:
        if self.state == "running":
            return f"rolling out: {self.replaced} of {self.wanted} replaced"
        return f"the last rollout was stopped: {self.reason}"


class ServiceStatus(msgspec.Struct, kw_only=True):
    name: str
    replicas: int
    """How many there are to be."""
    min: int
    max: int
    why: str
    """Why there are so many; empty where the number is fixed."""
    rollout: RolloutStatus | None
    """None where none is under way, and the last one, if any, was not stopped."""
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
    """starting, ready, degraded (open, with `problems`) or stopping"""
    problems: list[str] = []
    """What is wrong although everything was started: a service without a healthy replica, a full disk."""
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

    @property
    def is_open(self) -> bool:
        """Whether the gateway takes requests."""
        return self.phase in {"ready", "degraded"}
