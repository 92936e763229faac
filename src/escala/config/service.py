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
    """An ASGI or WSGI app as "module:attribute"; served by uvicorn, one process a replica."""
    interface: Literal["auto", "asgi", "wsgi"] = "auto"
    """What the app speaks; found out by how it is called unless given."""
    factory: bool = False
    """Whether `app` names a function without arguments that returns the app."""
    command: CommandLine | None = None
    """Any other server. It listens on $PORT, or, where the text has $SOCKET, on that Unix socket. Either is
    replaced in the text, and is in its environment too."""
    tasks: Module | None = None
    """A module with tasks: the service is a worker that runs their jobs."""
    replicas: ReplicasSettings = ReplicasSettings()
    rollout: RolloutSettings = RolloutSettings()
    ports: Many[Port] = ()
    """Ports of 127.0.0.1 for the first replicas, in order. Others listen on Unix sockets, or on free ports where a
    `command` has no $SOCKET."""
    routes: Many[RouteSettings] = ()
    threads: int = Field(default=10, ge=1, le=1000)
    """Requests that a WSGI app works on at a time, each in a thread."""
    health: Health | None = None
    """A page that says whether a replica is well: below 400 says yes, and so does 404 where there is no such page;
    "tcp" is content with a connection. Unless given, an `app` is well when its program answers, and a `command` is
    asked for /health."""
    hang_timeout: Annotated[float | bool, BeforeValidator(_duration_or_false)] | None = None
    """How long a replica may go without answering either that question or any request before it is replaced: 30s
    unless given, and for a `command`, whose threads may all be busy, never; false is never."""
    protocol: Literal["http1", "h2"] = "http1"
    """What the replicas speak; h2 is HTTP/2 without TLS, as gRPC servers do."""
    balance: Balance = Balance()
    directory: str | None = None
    """The replicas' working directory, relative to the project's folder, which it is unless given."""
    env_file: str | None = None
    """A file of NAME=VALUE lines, relative to the project's folder, read at each start of a replica."""
    environment: dict[VariableName, VariableValue] = Field(default_factory=dict, repr=False)
    """Environment variables added for this service's replicas; they win over `env_file`."""
    open_files: int | None = Field(default=None, ge=64, le=1_048_576)
    """How many files and connections a replica may have open; as many as `escala up` unless given."""
    affinity: bool = False
    """Whether each replica keeps to one processor, in turn (Linux)."""
    max_memory: Annotated[Size, Field(ge=16 * 1024**2)] | None = None
    """Above this, a replica is replaced by a new one, which is ready before the old one goes."""
    max_requests: int | None = Field(default=None, ge=1)
    """After so many requests a replica is replaced in the same way."""
    max_age: Duration | None = None
    """After so long a replica is replaced in the same way."""
    start_timeout: Duration = 30.0
    """How long a replica may take until it is ready; then it is stopped and tried again."""
    stop_timeout: Duration = 10.0
    """How long a replica may take to finish what it is doing before it is killed."""
    drain_timeout: Duration = 60.0
    """How long a replica that is taken away may finish requests before it is asked to stop."""
    concurrency: int = Field(default=10, ge=1, le=1000)
    """Jobs that one worker replica runs at a time."""
    access_log: bool = False
    """Whether each request is a line in the replica's log."""

    @model_validator(mode="after")
    def _one_program(self) -> "ServiceSettings":
        given = [name for name in ("app", "command", "tasks") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"exactly one of app, command and tasks says what to run; found {found}")
        if len(self.ports) > self.replicas.most:
            raise ValueError(f"{len(self.ports)} ports for at most {self.replicas.most} replicas")
        if self.command and self.on_socket:
            if self.ports:
                raise ValueError("ports are for servers that listen on $PORT; this command listens on $SOCKET")
            if "PORT" in _named(self.command):
                raise ValueError("a command listens on $PORT or on $SOCKET; this one names both")
        if self.kind != "app" and (self.factory or self.interface != "auto"):
            raise ValueError("factory and interface say how an `app` is called; there is none")
        return self

    @property
    def kind(self) -> Literal["app", "command", "tasks"]:
        return "app" if self.app else "command" if self.command else "tasks"

    @property
    def page(self) -> str | None:
        """What a replica is asked for; None for an app whose own program answers."""
        return self.health or (None if self.kind == "app" else "/health")

    @property
    def hangs_after(self) -> float | None:
        """Seconds of silence after which a replica is replaced."""
        if self.hang_timeout is None:
            return None if self.kind == "command" else _HANG_SECONDS
        return self.hang_timeout or None

    @property
    def on_socket(self) -> bool:
        """Whether a replica without a port of its own listens on a Unix socket."""
        return self.command is None or "SOCKET" in _named(self.command)

    def words(self, where: Mapping[str, str]) -> tuple[str, ...]:
        """Return the words of `command`, with $PORT or $SOCKET as in `where`."""
        words = shlex.split(self.command or "")
        return tuple(_WHERE.sub(lambda found: where.get(found[1] or found[2], found[0]), word) for word in words)

    @property
    def target(self) -> str:
        """What is run, as it was written."""
        return self.app or self.command or self.tasks or ""


def _named(command: str) -> set[str]:
    """Return which of $PORT and $SOCKET a command names."""
    return {found[1] or found[2] for found in _WHERE.finditer(command)}
