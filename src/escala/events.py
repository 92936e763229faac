"""Every event of a running project, with its fields. What people read of them is worded in `supervisor.narrator`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    pass


@dataclass(frozen=True)
class LeftoverStopped(Event):
    """A process of an earlier supervisor that died was still there."""

    name: str
    pid: int


State = Literal["starting", "ready", "serving", "draining", "waiting", "stopping", "stopped"]
"""Of a process; `processes.child` draws how they follow each other."""


@dataclass(frozen=True)
class StateChanged(Event):
    name: str
    before: State
    after: State


@dataclass(frozen=True)
class ProcessReady(Event):
    name: str
    pid: int
    seconds: float
    """From its start."""
    restarts: int


@dataclass(frozen=True)
class ProcessEnded(Event):
    """A process ended that nobody asked to end."""

    name: str
    reason: str
    tail: tuple[str, ...]
    """Its last lines of output."""
    was_ready: bool
    next_try: float
    """Seconds until it is started again."""
    crashing: bool = False
    """Whether this has happened so often lately that something is wrong with it."""


@dataclass(frozen=True)
class StartFailed(Event):
    """A process could not even be started."""

    name: str
    reason: str
    next_try: float


@dataclass(frozen=True)
class HealthChanged(Event):
    """The health of a replica that serves has changed (`supervisor.replicas.health`)."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class WriteFailed(Event):
    """Something that is only recorded cannot be written; what it is about goes on."""

    what: str
    reason: str


@dataclass(frozen=True)
class WriteRecovered(Event):
    what: str


@dataclass(frozen=True)
class LeftBehind(Event):
    """Processes that a replica had started outlived it, and were ended."""

    name: str
    """Of the replica; empty where nobody can tell."""
    pids: tuple[int, ...]


@dataclass(frozen=True)
class EngineReady(Event):
    name: str
    external: bool
    seconds: float


@dataclass(frozen=True)
class Migrated(Event):
    names: tuple[str, ...]


@dataclass(frozen=True)
class Preparing(Event):
    command: str


@dataclass(frozen=True)
class Prepared(Event):
    seconds: float


@dataclass(frozen=True)
class Opened(Event):
    """The gateway takes requests."""

    url: str
    seconds: float
    """From the supervisor's start."""


@dataclass(frozen=True)
class MembershipFailed(Event):
    """HAProxy did not take what it was told of a replica."""

    replica: str
    reason: str


@dataclass(frozen=True)
class RevocationsUnread(Event):
    """New revocations cannot be read from PostgreSQL; those known already hold."""

    reason: str


@dataclass(frozen=True)
class Revoked(Event):
    kind: str
    """token or user"""


@dataclass(frozen=True)
class Scaled(Event):
    service: str
    before: int
    after: int


@dataclass(frozen=True)
class Rescaled(Event):
    """The number of replicas followed the load."""

    service: str
    before: int
    after: int
    why: str


@dataclass(frozen=True)
class Recycling(Event):
    """A replica is replaced because it is too large, too old or out of reach."""

    name: str
    why: str


@dataclass(frozen=True)
class RolloutStarted(Event):
    service: str
    replicas: int


@dataclass(frozen=True)
class RolloutProgressed(Event):
    service: str
    replaced: int
    wanted: int


@dataclass(frozen=True)
class OperationChanged(Event):
    """An operation began, made a step, or ended."""

    id: str
    kind: str
    state: str
    """running, succeeded or failed"""
    step: str
    done: int
    total: int


@dataclass(frozen=True)
class CanaryJudged(Event):
    """The first new replica had its share of the requests for a while."""

    service: str
    good: bool
    why: str


@dataclass(frozen=True)
class RolloutEnded(Event):
    service: str
    replaced: int
    seconds: float


@dataclass(frozen=True)
class RolloutFailed(Event):
    """A rollout was stopped; the service runs on as it did before."""

    service: str
    reason: str


@dataclass(frozen=True)
class ReplicaLeft(Event):
    """A replica that was taken away has finished its requests and ended."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Drained(Event):
    """Somebody asked that a replica get no new requests, or that it get them again."""

    name: str
    drained: bool


@dataclass(frozen=True)
class ConfigurationApplied(Event):
    """A changed configuration was taken over."""

    changes: int


@dataclass(frozen=True)
class Reloaded(Event):
    """The gateway took over changed certificates or keys."""

    what: str


@dataclass(frozen=True)
class ReloadFailed(Event):
    """The gateway kept what it had."""

    what: str
    reason: str


@dataclass(frozen=True)
class Stopping(Event):
    reason: str


@dataclass(frozen=True)
class StopWaits(Event):
    """Requests in flight hold up the stop."""

    requests: int
    seconds: float
    """At most."""


@dataclass(frozen=True)
class Stopped(Event):
    seconds: float


Emit = Callable[[Event], None]
