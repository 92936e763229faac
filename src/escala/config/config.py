"""The complete escala.toml."""

from collections import defaultdict
from collections.abc import Iterator

from pydantic import Field, model_validator

from escala.config.address import Address, ListenAddress
from escala.config.auth import AuthSettings
from escala.config.balance import Balance, merged
from escala.config.cache import CacheSettings
from escala.config.database import DatabaseSettings
from escala.config.dev import DevSettings
from escala.config.engines import EnginesSettings
from escala.config.gateway import GatewaySettings
from escala.config.policy import Effective, effective
from escala.config.project import ProjectSettings
from escala.config.route import RouteSettings
from escala.config.section import Section
from escala.config.service import ServiceSettings
from escala.config.types import Name
from escala.http.paths import PLATFORM_PATHS

PLATFORM = "platform"
"""The name of the built-in service behind /jobs and /.well-known. Its name and its paths are reserved."""

WORKER_CONNECTIONS = 7
"""Connections of a worker's duties and of its pages, in addition to the pool that its handlers use."""
OWN_CONNECTIONS = 5
"""Connections of the supervisor: for migrations, the backlog and revocations."""


class Config(Section):
    project: ProjectSettings
    gateway: GatewaySettings = GatewaySettings()
    auth: AuthSettings = AuthSettings()
    engines: EnginesSettings = EnginesSettings()
    cache: CacheSettings = CacheSettings()
    database: DatabaseSettings = DatabaseSettings()
    dev: DevSettings = DevSettings()
    services: dict[Name, ServiceSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _services_agree(self) -> "Config":
        problems = self.disagreements()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def disagreements(self) -> list[str]:
        """Return the conflicts between sections that are each valid on their own."""
        return [*self._names(), *self._ports(), *self._routes(), *self._policies()]

    def _names(self) -> Iterator[str]:
        if PLATFORM in self.services:
            yield f"services.{PLATFORM}: this name is reserved for Escala's built-in service; choose another"

    def _ports(self) -> Iterator[str]:
        wanted: dict[int, list[str]] = defaultdict(list)
        for key, address in self.addresses():
            wanted[address.port].append(key)
        for port, owners in wanted.items():
            if len(owners) > 1:
                yield f"{owners[-1]}: port {port} is already used by {' and '.join(owners[:-1])}"

    def _routes(self) -> Iterator[str]:
        taken: dict[tuple[str, str], str] = {}
        for name, index, route in self._every_route():
            here = f"services.{name}.routes[{index}]"
            for path in PLATFORM_PATHS:
                if route.prefix == path or route.prefix.startswith(f"{path}/"):
                    yield f"{here}: {path} is reserved for Escala's built-in service; choose another path"
            for host in self.effective(name, route).policy.hosts or ("",):
                place = (host, route.prefix)
                if place in taken:
                    yield f"{here}: {host}{route.path} already leads to {taken[place]}"
                taken.setdefault(place, f"services.{name}")

    def _policies(self) -> Iterator[str]:
        for name, index, route in self._every_route():
            here = f"services.{name}.routes[{index}]"
            policy = self.effective(name, route).policy
            if route.cache is not None and not policy.public:
                yield f"{here}: only public routes can be cached; answers that need a token must not be shared"
            if policy.public and any(limit.per == "token" for limit in route.rate_limits):
                yield f"{here}: a public route has no token, so it cannot have a limit per token"
            if route.split is not None and route.split.service not in self.services:
                yield f"{here}.split: there is no service {route.split.service!r}"
            if route.split is not None and route.split.service == name:
                yield f"{here}.split: {name!r} is already the route's own service"

    def _every_route(self) -> Iterator[tuple[str, int, RouteSettings]]:
        for name, service in self.services.items():
            for index, route in enumerate(service.routes):
                yield name, index, route

    def effective(self, service: str, route: RouteSettings) -> Effective:
        """Return the effective policy of a route, merged from the levels "gateway", "services.NAME" and "route"."""
        above = self.services.get(service)
        return effective(
            **{"gateway": self.gateway, **({f"services.{service}": above} if above else {}), "route": route}
        )

    def addresses(self) -> Iterator[ListenAddress]:
        """Yield every listening address that is set in escala.toml."""
        yield ListenAddress("gateway.bind", self.gateway.bind)
        if self.gateway.admin is not None:
            yield ListenAddress("gateway.admin", self.gateway.admin)
        if self.gateway.tls is not None and self.gateway.tls.redirect is not None:
            yield ListenAddress("gateway.tls.redirect", self.gateway.tls.redirect)
        for name, service in self.services.items():
            for index, port in enumerate(service.ports):
                yield ListenAddress(f"services.{name}.ports[{index}]", Address("127.0.0.1", port))

    def balance(self, service: str, route: RouteSettings | None = None) -> Balance:
        """Return how requests are balanced over a service's replicas; for one route only, if `route` is given."""
        own = self.services.get(service)
        balance = merged(self.gateway.balance, own.balance) if own else self.gateway.balance
        return merged(balance, route.balance) if route else balance

    @property
    def database_connections(self) -> int:
        """The maximum number of connections to PostgreSQL that the project holds at a time, even during rollouts."""
        replicas = {name: each.replicas.most + each.rollout.max_surge for name, each in self.services.items()}
        held = (
            replicas[name] * (self.database.pool + (WORKER_CONNECTIONS if each.kind == "tasks" else 0))
            for name, each in self.services.items()
        )
        return sum(held) + self.database.pool + OWN_CONNECTIONS

    @property
    def issuer(self) -> str:
        return self.auth.issuer or self.project.name

    @property
    def audience(self) -> str:
        return self.auth.audience or self.project.name
