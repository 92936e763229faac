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
    │   ├── KeyDamaged
    │   └── PrepareFailed
    ├── AlreadyRunning              4
    ├── NotRunning                  4
    ├── NotConnected                1  the library was used outside `escala.lifespan`
    ├── DatabaseUnavailable         1  PostgreSQL did not answer in time
    ├── CacheUnavailable            1  an invalidation could not be published
    ├── InvalidToken                1
    ├── UnknownKey                  1
    └── TaskError                   1
        ├── UnknownTask
        └── TaskArguments

Each class keeps its facts as attributes; the message says what happened and what to do next. The command line prints
that message as one line and exits with the class's code. A traceback is for bugs only.
"""

from collections.abc import Sequence
from pathlib import Path


class EscalaError(Exception):
    """The root of the tree."""

    exit_code = 1


class ConfigError(EscalaError):
    """The configuration is wrong; `problems` holds every fault found, one line each."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  {problem}" for problem in self.problems))


class ProjectNotFound(EscalaError):
    exit_code = 2

    def __init__(self, where: Path) -> None:
        self.where = where
        super().__init__(f"no escala.toml in {where} or any folder above it; name one with --file")


class AppLoadError(EscalaError):
    exit_code = 2

    def __init__(self, target: str, reason: str) -> None:
        self.target = target
        self.reason = reason
        super().__init__(f"cannot load {target!r}: {reason}")


class StartError(EscalaError):
    exit_code = 3


class PortTaken(StartError):
    def __init__(self, address: str, wanted_by: str, holder: str | None) -> None:
        self.address = address
        self.wanted_by = wanted_by
        self.holder = holder
        held = f"held by {holder}" if holder else "held by a process of another user"
        super().__init__(f"{address}, wanted by {wanted_by}, is {held}; stop it or choose another port")


class EngineMissing(StartError):
    def __init__(self, engine: str, remedy: str) -> None:
        self.engine = engine
        self.remedy = remedy
        super().__init__(f"{engine} was not found; {remedy}")


class EngineFailed(StartError):
    def __init__(self, engine: str, reason: str) -> None:
        self.engine = engine
        self.reason = reason
        super().__init__(f"{engine}: {reason}")


class KeyDamaged(StartError):
    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        super().__init__(
            f"the signing key {path} {what}; put it back, or stop the project and remove {path.parent} to begin with a "
            "new key (tokens made so far end with it)"
        )


class PrepareFailed(StartError):
    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        self.reason = reason
        super().__init__(f"project.prepare ({command}) {reason}; no replica was started")


class AlreadyRunning(EscalaError):
    exit_code = 4

    def __init__(self, project: str, pid: int | None) -> None:
        self.project = project
        self.pid = pid
        by = f" (pid {pid})" if pid else ""
        super().__init__(f"{project} is running already{by}; see `escala status`, or stop it with `escala down`")


class NotRunning(EscalaError):
    exit_code = 4

    def __init__(self, project: str) -> None:
        self.project = project
        super().__init__(f"{project} is not running; start it with `escala up`")


class NotConnected(EscalaError):
    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} used before it was connected; give the app `lifespan=escala.lifespan`, "
            "or wrap a script in `async with escala.running():`"
        )


class DatabaseUnavailable(EscalaError):
    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"PostgreSQL did not answer ({reason}); try again")


class CacheUnavailable(EscalaError):
    def __init__(self, action: str) -> None:
        self.action = action
        super().__init__(f"Valkey did not answer, so {action} could not be carried out; try again")


class InvalidToken(EscalaError):
    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class UnknownKey(EscalaError):
    def __init__(self, kid: str, known: Sequence[str]) -> None:
        self.kid = kid
        super().__init__(
            f"no key {kid!r} can be retired; there are: {', '.join(known) or 'none'} "
            "(the one that signs is replaced by `escala keys rotate`)"
        )


class TaskError(EscalaError):
    pass


class UnknownTask(TaskError):
    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"no task is named {name!r}; there are: {', '.join(known) or 'none'}")


class TaskArguments(TaskError):
    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"arguments of task {name!r}: {reason}")
