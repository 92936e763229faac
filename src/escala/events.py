"""Every event of a running project, with its fields. `supervisor.narrator` turns them into text for people."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    pass


@dataclass(frozen=True)
class LeftoverStopped(Event):
    """A process was still running that belonged to an earlier supervisor, which had died."""

    name: str
    pid: int


State = Literal["starting", "ready", "serving", "draining", "waiting", "stopping", "stopped"]
"""The state of a process. The diagram in `processes.child` shows the transitions."""


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
    """How long it took from its start."""
    restarts: int


@dataclass(frozen=True)
class ProcessEnded(Event):
    """A process ended although nobody had asked it to."""

    name: str
    reason: str
    tail: tuple[str, ...]
    """Its last lines of output."""
    was_ready: bool
    next_try: float
    """Seconds until it is started again."""
    crashing: bool = False
    """Whether the process is in a crash loop: it has ended too often in a short time."""


@dataclass(frozen=True)
class StartFailed(Event):
    """A process could not even be started."""

    name: str
    reason: str
    next_try: float


@dataclass(frozen=True)
class HealthChanged(Event):
    """The health of a serving replica has changed (`supervisor.replicas.health`)."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class WriteFailed(Event):
    """A record, such as a log, cannot be written. The work that it records continues."""

    what: str
    reason: str


@dataclass(frozen=True)
class WriteRecovered(Event):
    what: str


@dataclass(frozen=True)
class LeftBehind(Event):
    """A replica's own child processes outlived it and were killed."""

    name: str
    """The replica's name; empty if it is unknown."""
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
    """The gateway accepts requests."""

    url: str
    seconds: float
    """How long it took from the supervisor's start."""


@dataclass(frozen=True)
class MembershipFailed(Event):
    """HAProxy did not accept a change to one of its servers (a replica)."""

    replica: str
    reason: str


@dataclass(frozen=True)
class RevocationsUnread(Event):
    """New revocations cannot be read from PostgreSQL. Those already known stay in force."""

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
    """The autoscaler changed the number of replicas to match the load."""

    service: str
    before: int
    after: int
    why: str


@dataclass(frozen=True)
class Recycling(Event):
    """A replica is being replaced because it is too large, too old or unreachable."""

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
    """An operation began, reached its next step, or ended."""

    id: str
    kind: str
    state: str
    """running, succeeded or failed"""
    step: str
    done: int
    total: int


@dataclass(frozen=True)
class CanaryJudged(Event):
    """The canary (the first new replica) has handled its share of the requests, and was judged by them."""

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
    """A rollout was stopped. The service continues to run as before."""

    service: str
    reason: str


@dataclass(frozen=True)
class ReplicaLeft(Event):
    """A replica that was being removed has finished its requests and ended."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Drained(Event):
    """Somebody drained a replica, so it gets no new requests, or resumed it, so it gets them again."""

    name: str
    drained: bool


@dataclass(frozen=True)
class ConfigurationApplied(Event):
    """A changed configuration was applied."""

    changes: int


@dataclass(frozen=True)
class Reloaded(Event):
    """The gateway loaded changed certificates or keys."""

    what: str


@dataclass(frozen=True)
class JobsRescued(Event):
    """A worker ended without giving its jobs back."""

    worker: str
    again: int
    """So many wait again."""
    poison: int
    """So many are set aside, as they ended every process that ran them."""


@dataclass(frozen=True)
class ReloadFailed(Event):
    """A reload failed. The gateway continues with what it had loaded before."""

    what: str
    reason: str


@dataclass(frozen=True)
class Stopping(Event):
    reason: str


@dataclass(frozen=True)
class StopWaits(Event):
    """The stop waits for requests in flight."""

    requests: int
    seconds: float
    """The longest that the stop waits."""


@dataclass(frozen=True)
class Stopped(Event):
    seconds: float


Emit = Callable[[Event], None]
