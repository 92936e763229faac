"""[services.NAME]: a named unit, run as N replicas."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from escala.config.address import Port
from escala.config.balance import Balance
from escala.config.policy import Policy
from escala.config.route import Route
from escala.config.section import CommandLine, Health, Many, Section, matching
from escala.config.units import Duration

Target = Annotated[
    str, matching(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", 'a module and an attribute such as "shop.main:app"')
]
Module = Annotated[str, matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", 'a module such as "shop.tasks"')]


class Replicas(Section):
    min: int = Field(default=1, ge=1, le=256)
    """How many are started."""
    max: int | None = Field(default=None, ge=1, le=256)
    """How far the service may grow; `min` unless given."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"min": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _ordered(self) -> "Replicas":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        return self

    @property
    def most(self) -> int:
        return self.max or self.min


class Service(Policy):
    app: Target | None = None
    """An ASGI app as "module:attribute"; served by uvicorn, one process a replica."""
    command: CommandLine | None = None
    """Any other server, started with $PORT in its environment; $PORT in the text is replaced too."""
    tasks: Module | None = None
    """A module with tasks: the service is a worker that runs their jobs."""
    replicas: Replicas = Replicas()
    ports: Many[Port] = ()
    """Ports of the first replicas, in order; further ones take free ports."""
    routes: Many[Route] = ()
    health: Health = "/health"
    """Where a replica is asked whether it is well: below 400 says yes, and so does 404 where there is no such page;
    "tcp" is content with a connection."""
    protocol: Literal["http1", "h2"] = "http1"
    """What the replicas speak; h2 is HTTP/2 without TLS, as gRPC servers do."""
    balance: Balance = Balance()
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables added for this service's replicas."""
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
    def _one_program(self) -> "Service":
        given = [name for name in ("app", "command", "tasks") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"exactly one of app, command and tasks says what to run; found {found}")
        if len(self.ports) > self.replicas.most:
            raise ValueError(f"{len(self.ports)} ports for at most {self.replicas.most} replicas")
        return self

    @property
    def kind(self) -> Literal["app", "command", "tasks"]:
        return "app" if self.app else "command" if self.command else "tasks"

    @property
    def target(self) -> str:
        """What is run, as it was written."""
        return self.app or self.command or self.tasks or ""
