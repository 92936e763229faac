"""[services.NAME]: a named unit, run as N replicas."""

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from escala.config.address import Port
from escala.config.balance import Balance
from escala.config.policy import Policy
from escala.config.replicas import ReplicasSettings, RolloutSettings
from escala.config.route import RouteSettings
from escala.config.types import CommandLine, Duration, Health, Many, Size, VariableName, VariableValue, matching
from escala.units import parse_duration

Target = Annotated[
    str, matching(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", 'a module and an attribute such as "shop.main:app"')
]
Module = Annotated[str, matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", 'a module such as "shop.tasks"')]

_HANG_SECONDS = 30.0

_WHERE = re.compile(r"\$(?:(PORT|SOCKET)\b|\{(PORT|SOCKET)\})")


def _duration_or_false(value: Any) -> float | bool:
    if value is False:
        return False
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError('expected a duration such as "30s", or false') from None


class ServiceSettings(Policy):
    app: Target | None = None
    """An ASGI or WSGI app as "module:attribute". Uvicorn serves it, in one process per replica."""
    interface: Literal["auto", "asgi", "wsgi"] = "auto"
    """The app's interface; by default it is detected from the app's signature."""
    factory: bool = False
    """Whether `app` is a function without arguments that returns the app."""
    command: CommandLine | None = None
    """The command line of any other server.

    It listens on $PORT, or on the Unix socket $SOCKET if the command line contains it. The value is substituted in the
    command line, and is also set in the server's environment.
    """
    tasks: Module | None = None
    """A module with tasks. It makes the service a worker, which runs their jobs."""
    replicas: ReplicasSettings = ReplicasSettings()
    rollout: RolloutSettings = RolloutSettings()
    ports: Many[Port] = ()
    """Ports of 127.0.0.1 for the first replicas, in order.

    The other replicas listen on Unix sockets. If a `command` has no $SOCKET, they listen on free ports.
    """
    routes: Many[RouteSettings] = ()
    threads: int = Field(default=10, ge=1, le=1000)
    """How many requests a replica of a WSGI app handles at a time, each in its own thread."""
    health: Health | None = None
    """The path of the health check, or "tcp".

    A replica is healthy if the path answers with a status below 400. 404 counts as healthy too, as there may be no such
    page. With "tcp", a successful connection is enough. By default, an `app` is healthy if its server process answers,
    and a `command` is checked at /health.
    """
    hang_timeout: Annotated[float | bool, BeforeValidator(_duration_or_false)] | None = None
    """How long a replica may answer neither a health check nor any request before it is replaced.

    The default is 30s. By default a `command` is never replaced for this reason, because its threads may all be busy.
    With false, no replica is.
    """
    protocol: Literal["http1", "h2"] = "http1"
    """The protocol of the replicas; h2 is HTTP/2 without TLS, as used by gRPC servers."""
    balance: Balance = Balance()
    directory: str | None = None
    """The replicas' working directory, relative to the project's folder, which is the default."""
    env_file: str | None = None
    """A file of NAME=VALUE lines, relative to the project's folder. It is read whenever a replica starts."""
    environment: dict[VariableName, VariableValue] = Field(default_factory=dict, repr=False)
    """Additional environment variables for this service's replicas; they override `env_file`."""
    open_files: int | None = Field(default=None, ge=64, le=1_048_576)
    """How many files and connections a replica may have open; by default the limit of `escala up`."""
    affinity: bool = False
    """Whether each replica is pinned to one processor, assigned in turn (Linux)."""
    max_memory: Annotated[Size, Field(ge=16 * 1024**2)] | None = None
    """The memory above which a replica is replaced. The new replica is ready before the old one stops."""
    max_requests: int | None = Field(default=None, ge=1)
    """The number of requests after which a replica is replaced in the same way."""
    max_age: Duration | None = None
    """The age at which a replica is replaced in the same way."""
    start_timeout: Duration = 30.0
    """How long a replica may take to become ready. After that it is stopped and started again."""
    stop_timeout: Duration = 10.0
    """How long a replica may take to finish its work after it is asked to stop. After that it is killed."""
    drain_timeout: Duration = 60.0
    """How long a replica that is being removed may finish its requests before it is asked to stop."""
    concurrency: int = Field(default=10, ge=1, le=1000)
    """How many jobs one worker replica runs at a time."""
    queues: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """The queues that a worker serves, with weights: how often each has the first turn.

    By default, the queues of its tasks, all alike.
    """
    access_log: bool = False
    """Whether the replica's log has a line for each request."""

    @model_validator(mode="after")
    def _one_program(self) -> "ServiceSettings":
        given = [name for name in ("app", "command", "tasks") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"set exactly one of app, command and tasks; found {found}")
        if len(self.ports) > self.replicas.most:
            raise ValueError(f"{len(self.ports)} ports for at most {self.replicas.most} replicas")
        if self.command and self.on_socket:
            if self.ports:
                raise ValueError("ports need a command that listens on $PORT; this one listens on $SOCKET")
            if "PORT" in _named(self.command):
                raise ValueError("a command must use either $PORT or $SOCKET; this one uses both")
        if self.kind != "tasks" and self.queues:
            raise ValueError("queues are only for services with `tasks`")
        if self.kind != "app" and (self.factory or self.interface != "auto"):
            raise ValueError("factory and interface are only for services with an `app`")
        return self

    @property
    def kind(self) -> Literal["app", "command", "tasks"]:
        return "app" if self.app else "command" if self.command else "tasks"

    @property
    def page(self) -> str | None:
        """The path of the health check, or "tcp"; None for an app whose server process answers the check itself."""
        return self.health or (None if self.kind == "app" else "/health")

    @property
    def hangs_after(self) -> float | None:
        """Seconds without any answer after which a replica is replaced; None means never."""
        if self.hang_timeout is None:
            return None if self.kind == "command" else _HANG_SECONDS
        return self.hang_timeout or None

    @property
    def on_socket(self) -> bool:
        """Whether a replica without a fixed port listens on a Unix socket."""
        return self.command is None or "SOCKET" in _named(self.command)

    def words(self, where: Mapping[str, str]) -> tuple[str, ...]:
        """Return the arguments of `command`, with $PORT or $SOCKET substituted from `where`."""
        words = shlex.split(self.command or "")
        return tuple(_WHERE.sub(lambda found: where.get(found[1] or found[2], found[0]), word) for word in words)

    @property
    def target(self) -> str:
        """What the service runs, as written in escala.toml."""
        return self.app or self.command or self.tasks or ""


def _named(command: str) -> set[str]:
    """Return which of $PORT and $SOCKET a command uses."""
    return {found[1] or found[2] for found in _WHERE.finditer(command)}
