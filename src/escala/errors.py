"""Everything Escala raises on purpose.

::

    EscalaError                     exit code
    ├── ConfigError                 2  escala.toml, an environment variable or an option is wrong
    ├── ProjectNotFound             2  no escala.toml here
    ├── AppLoadError                2  module:attr does not lead to something that can be run
    ├── StartError                  3  something needed to start is not to be had
    │   ├── PortTaken
    │   ├── EngineMissing
    │   ├── EngineFailed
    │   │   └── ConfigurationRefused
    │   ├── ProcessFailed
    │   ├── KeyDamaged
    │   └── PrepareFailed
    ├── AlreadyRunning              4
    ├── NotRunning                  4
    ├── OperationRefused            1  the running project cannot do what was asked
    │   ├── NotReady
    │   ├── UnknownService
    │   ├── UnknownReplica
    │   ├── ServiceBusy
    │   ├── CountOutOfRange
    │   ├── RolloutStopped
    │   ├── ReplicaNotReady
    │   └── RevocationFailed
    ├── RuntimeRefused              1  HAProxy does not take a command
    ├── ReloadRefused               2  HAProxy does not take a configuration while it runs
    ├── ControlFailed               1  the supervisor does not answer, or in a way that is not understood
    ├── TimedOut                    1  the command line stopped waiting; what it waited for goes on
    ├── NotConnected                1  the library was used outside `escala.lifespan`
    ├── DatabaseUnavailable         1  PostgreSQL did not answer in time
    │   └── PoolExhausted
    ├── NoValkey                    1  a cache needs Valkey, and the process has no URL of one
    ├── CacheUnavailable            1  Valkey did not take an invalidation or a value
    ├── ValueTooLarge               1  a value is larger than cache.value allows
    ├── LoadTimedOut                1  a cached function took too long
    ├── LoadCancelled               1  a cached function was cancelled from inside
    ├── RecursiveLoad               1  a cached function asked for its own result
    ├── CalledOnLoop                1  a plain cached function was called where it would block the event loop
    ├── InvalidToken                1
    ├── UnknownKey                  1
    ├── LeaseLost                   1  another worker has the job
    ├── WorkerWornOut               1  a worker has no place left for a job
    └── TaskError                   1
        ├── TaskClash
        ├── UnknownTask
        └── TaskArguments

Each class keeps its facts as attributes; its docstring is the message, with the facts in braces. The command line
prints that message and exits with the class's code. A traceback is for bugs only.
"""

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _Facts:
    """The attributes of an error, as `str.format_map` asks for them."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, name: str) -> Any:
        return getattr(self._error, name)


class EscalaError(Exception):
    """The root of the tree. Raised itself only where there is nothing to know but the message."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle an error by its facts."""
        facts = getattr(self, "__dataclass_fields__", None)
        return type(self), tuple(getattr(self, name) for name in facts) if facts is not None else self.args

    def __post_init__(self) -> None:
        if sys.flags.optimize >= 2:  # Python has dropped all docstrings
            super().__init__(f"{self.code}: {', '.join(f'{name}={value!r}' for name, value in vars(self).items())}")
            return
        words = inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(re.sub(r"\n(?!\n)", " ", words).format_map(_Facts(self)))

    @property
    def code(self) -> str:
        """The class's name for programs: "port_taken" of PortTaken."""
        return re.sub(r"(?<!^)([A-Z])", r"_\1", type(self).__name__).lower()


@dataclass(eq=False)
class ConfigError(EscalaError):
    """{source}: {listed}"""

    exit_code = 2
    source: str
    problems: Sequence[str]
    """Every fault that was found, one line each."""

    @property
    def listed(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([count, *(f"  {problem}" for problem in self.problems)])


@dataclass(eq=False)
class ProjectNotFound(EscalaError):
    """there is no escala.toml in {where} or any folder above it; name one with --file, or begin with `escala init`"""

    exit_code = 2
    where: Path


@dataclass(eq=False)
class AppLoadError(EscalaError):
    """cannot load {target!r}: {reason}"""

    exit_code = 2
    target: str
    reason: str


class StartError(EscalaError):
    """Something needed to start is not to be had."""

    exit_code = 3


@dataclass(eq=False)
class PortTaken(StartError):
    """{address}, wanted by {wanted_by}, is held by {holding}; stop that process, or choose another port"""

    address: str
    wanted_by: str
    holder: str | None
    """Name and pid; None for a process of another user."""

    @property
    def holding(self) -> str:
        return self.holder or "a process of another user"


@dataclass(eq=False)
class EngineMissing(StartError):
    """{engine} was not found; {remedy}"""

    engine: str
    remedy: str


@dataclass(eq=False)
class EngineFailed(StartError):
    """{engine}: {reason}"""

    engine: str
    reason: str


@dataclass(eq=False)
class ConfigurationRefused(EngineFailed):
    """{engine}: {reason}"""

    alerts: Sequence[str]
    """HAProxy's own words."""

    @classmethod
    def by_haproxy(cls, alerts: Sequence[str]) -> "ConfigurationRefused":
        return cls("HAProxy", f"refuses its configuration: {' / '.join(alerts)}", tuple(alerts))


@dataclass(eq=False)
class ProcessFailed(StartError):
    """{name}: {reason}"""

    name: str
    reason: str


@dataclass(eq=False)
class KeyDamaged(StartError):
    """the signing key {path} {what}; put it back, or stop the project and remove {folder} to begin with a new key
    (this invalidates all existing tokens)"""

    path: Path
    what: str

    @property
    def folder(self) -> Path:
        return self.path.parent


@dataclass(eq=False)
class PrepareFailed(StartError):
    """project.prepare ({command}) {reason}; no replica was started"""

    command: str
    reason: str


@dataclass(eq=False)
class AlreadyRunning(EscalaError):
    """{project} is running already{by}; see `escala status`, or stop it with `escala down`"""

    exit_code = 4
    project: str
    pid: int | None

    @property
    def by(self) -> str:
        return f" (pid {self.pid})" if self.pid else ""


@dataclass(eq=False)
class NotRunning(EscalaError):
    """{project} is not running; start it with `escala up`"""

    exit_code = 4
    project: str


class OperationRefused(EscalaError):
    """The running project cannot do what was asked."""


@dataclass(eq=False)
class NotReady(OperationRefused):
    """{project} is {phase}; try again when it is open"""

    project: str
    phase: str


@dataclass(eq=False)
class UnknownService(OperationRefused):
    """there is no service {service!r}; there are: {listed}"""

    service: str
    known: Sequence[str]

    @property
    def listed(self) -> str:
        return ", ".join(self.known)


@dataclass(eq=False)
class UnknownReplica(OperationRefused):
    """there is no replica {replica!r}; there are: {listed}"""

    replica: str
    known: Sequence[str]

    @property
    def listed(self) -> str:
        return ", ".join(self.known) or "none"


@dataclass(eq=False)
class ServiceBusy(OperationRefused):
    """{service} is busy: {by} is under way; try again when it is over (see `escala status`)"""

    service: str
    by: str


@dataclass(eq=False)
class CountOutOfRange(OperationRefused):
    """{service} can have from {least} to {most} replicas, not {count}"""

    service: str
    count: int
    least: int
    most: int


@dataclass(eq=False)
class RolloutStopped(OperationRefused):
    """{reason}"""

    reason: str


@dataclass(eq=False)
class ReplicaNotReady(OperationRefused):
    """{replica} did not become ready: {reason}"""

    replica: str
    reason: str


@dataclass(eq=False)
class RevocationFailed(OperationRefused):
    """{outcome}: {reason}; try again"""

    outcome: str
    """What became of the revocation: nothing, or it is stored but not enforced."""
    reason: str


@dataclass(eq=False)
class RuntimeRefused(EscalaError):
    """HAProxy refused {command!r}: {answer}"""

    command: str
    answer: str


@dataclass(eq=False)
class ReloadRefused(EscalaError):
    """HAProxy kept the old configuration; of the new one it says: {words}"""

    exit_code = 2
    words: str


@dataclass(eq=False)
class ControlFailed(EscalaError):
    """the supervisor of {project} {reason}"""

    project: str
    reason: str


@dataclass(eq=False)
class TimedOut(EscalaError):
    """timed out after {seconds:g} s, waiting for: {what}. It goes on; see `escala status`"""

    what: str
    seconds: float


@dataclass(eq=False)
class NotConnected(EscalaError):
    """{what} used before it was connected; give the app `lifespan=escala.lifespan`, or wrap a script in
    `async with escala.running():`"""

    what: str


@dataclass(eq=False)
class DatabaseUnavailable(EscalaError):
    """PostgreSQL did not answer ({reason}); try again"""

    reason: str


@dataclass(eq=False)
class PoolExhausted(DatabaseUnavailable):
    """all {size} connections of this process to PostgreSQL were in use for {seconds:g} s; hold them for a shorter time,
    or raise database.pool in escala.toml"""

    reason: str
    size: int
    seconds: float


@dataclass(eq=False)
class CacheUnavailable(EscalaError):
    """{action} failed (Valkey: {reason}); try again"""

    action: str
    reason: str


@dataclass(eq=False)
class NoValkey(EscalaError):
    """no Valkey URL is configured in this process, and the cache {cache} needs one; set ESCALA_ENGINES__VALKEY__URL, or
    declare the cache as one of this process alone (levels="l1")"""

    cache: str


@dataclass(eq=False)
class ValueTooLarge(EscalaError):
    """the value of {what} is too large to cache ({size} bytes before compression; the limit is {largest} after it);
    cache less, or raise cache.value in escala.toml"""

    what: str
    size: int
    largest: int


@dataclass(eq=False)
class LoadTimedOut(EscalaError):
    """loading {what} took longer than {seconds:g} s; speed it up, or raise its timeout"""

    what: str
    seconds: float


@dataclass(eq=False)
class LoadCancelled(EscalaError):
    """{what} was cancelled while its result was being loaded; call it again"""

    what: str


@dataclass(eq=False)
class RecursiveLoad(EscalaError):
    """{what} asked for its own result while loading it, with the same arguments; it would wait forever"""

    what: str


@dataclass(eq=False)
class CalledOnLoop(EscalaError):
    """{what} waits for its result, and would block the event loop here; call it in a thread, or make it async"""

    what: str


@dataclass(eq=False)
class InvalidToken(EscalaError):
    """{reason}"""

    reason: str


@dataclass(eq=False)
class UnknownKey(EscalaError):
    """there is no key {kid!r} that can be retired; there are: {listed} (the one that signs is replaced by
    `escala keys rotate`)"""

    kid: str
    known: Sequence[str]

    @property
    def listed(self) -> str:
        return ", ".join(self.known) or "none"


@dataclass(eq=False)
class LeaseLost(EscalaError):
    """job {job} is not this worker's any more, so the step {step!r} was not recorded; its lease has ended"""

    job: str
    step: str


@dataclass(eq=False)
class WorkerWornOut(EscalaError):
    """the worker has no place left for a job: {reason}"""

    reason: str


class TaskError(EscalaError):
    """A task cannot be enqueued."""


@dataclass(eq=False)
class TaskClash(TaskError):
    """two tasks are named {name!r}: {function} and {other_function} of the service {service}; rename one of them"""

    name: str
    function: str
    other_function: str
    service: str


@dataclass(eq=False)
class UnknownTask(TaskError):
    """there is no task named {name!r}; there are: {listed}"""

    name: str
    known: Sequence[str]

    @property
    def listed(self) -> str:
        return ", ".join(self.known) or "none"


@dataclass(eq=False)
class TaskArguments(TaskError):
    """arguments of task {name!r}: {reason}"""

    name: str
    reason: str
