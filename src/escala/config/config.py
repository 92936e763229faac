"""The whole of escala.toml."""

from collections import defaultdict
from collections.abc import Iterator

from pydantic import Field, model_validator

from escala.config.auth import AuthSettings
from escala.config.balance import Balance, merged
from escala.config.cache import CacheSettings
from escala.config.dev import DevSettings
from escala.config.engines import EnginesSettings
from escala.config.gateway import GatewaySettings
from escala.config.policy import Policy, effective
from escala.config.project import ProjectSettings
from escala.config.route import RouteSettings
from escala.config.section import Section
from escala.config.service import ServiceSettings
from escala.config.types import Name
from escala.http import methods

PLATFORM = "platform"
"""The built-in service behind /jobs and /.well-known; no other may take its name or its paths."""

JWKS_PATH = "/.well-known/jwks.json"

PLATFORM_PATHS = ("/jobs", "/.well-known", "/auth")


class Config(Section):
    project: ProjectSettings
    gateway: GatewaySettings = GatewaySettings()
    auth: AuthSettings = AuthSettings()
    engines: EnginesSettings = EnginesSettings()
    cache: CacheSettings = CacheSettings()
    dev: DevSettings = DevSettings()
    services: dict[Name, ServiceSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _services_agree(self) -> "Config":
        problems = [*self._names(), *self._ports(), *self._routes(), *self._policies()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _names(self) -> Iterator[str]:
        if PLATFORM in self.services:
            yield f"services.{PLATFORM}: the name belongs to Escala's built-in service; choose another"

    def _ports(self) -> Iterator[str]:
        wanted: dict[int, list[str]] = defaultdict(list)
        wanted[self.gateway.bind.port].append("gateway.bind")
        if self.gateway.admin is not None:
            wanted[self.gateway.admin.port].append("gateway.admin")
        if self.gateway.tls is not None and self.gateway.tls.redirect is not None:
            wanted[self.gateway.tls.redirect.port].append("gateway.tls.redirect")
        for name, service in self.services.items():
            for index, port in enumerate(service.ports):
                wanted[port].append(f"services.{name}.ports[{index}]")
        for port, owners in wanted.items():
            if len(owners) > 1:
                yield f"{owners[-1]}: port {port} is also wanted by {' and '.join(owners[:-1])}"

    def _routes(self) -> Iterator[str]:
        taken: dict[tuple[str, str], str] = {}
        for name, index, route in self._every_route():
            here = f"services.{name}.routes[{index}]"
            for path in PLATFORM_PATHS:
                if route.prefix == path or route.prefix.startswith(f"{path}/"):
                    yield f"{here}: {path} belongs to Escala's built-in service; choose another path"
            for host in self.policy(name, route).hosts or ("",):
                place = (host, route.prefix)
                if place in taken:
                    yield f"{here}: {host}{route.path} already leads to {taken[place]}"
                taken.setdefault(place, f"services.{name}")

    def _policies(self) -> Iterator[str]:
        for name, index, route in self._every_route():
            here = f"services.{name}.routes[{index}]"
            policy = self.policy(name, route)
            if route.cache is not None and not policy.public:
                yield f"{here}: cache is for public routes; what a token is needed for is not everybody's"
            if policy.public and any(limit.per == "token" for limit in route.rate_limits):
                yield f"{here}: a public route has no token, so no limit per token"
            if route.split is not None and route.split.service not in self.services:
                yield f"{here}.split: there is no service {route.split.service!r}"
            if route.split is not None and route.split.service == name:
                yield f"{here}.split: {name!r} is where the route leads already"

    def _every_route(self) -> Iterator[tuple[str, int, RouteSettings]]:
        for name, service in self.services.items():
            for index, route in enumerate(service.routes):
                yield name, index, route

    def policy(self, service: str, route: RouteSettings) -> Policy:
        """Return what holds for a route: its own words, then its service's, then the gateway's."""
        above = self.services.get(service)
        return effective(self.gateway, *([above] if above else []), route)

    def policies(self, service: str) -> list[Policy]:
        """Return what holds for the routes whose requests may reach a service."""
        return [
            self.policy(name, route)
            for name, _, route in self._every_route()
            if name == service or (route.split is not None and route.split.service == service)
        ]

    def max_body(self, service: str) -> int:
        """Return the largest request body that any route lets through to a service."""
        return max((policy.max_body for policy in self.policies(service)), default=self.gateway.max_body)

    def methods(self, service: str) -> list[str]:
        """Return the methods that routes let through to a service, without the usual ones; "*" is any."""
        found = {method for policy in self.policies(service) for method in policy.methods}
        return sorted(found - set(methods.DEFAULT))

    def balance(self, service: str, route: RouteSettings | None = None) -> Balance:
        """Return how requests are spread over the replicas of a service, those of one route where it is named."""
        own = self.services.get(service)
        balance = merged(self.gateway.balance, own.balance) if own else self.gateway.balance
        return merged(balance, route.balance) if route else balance

    @property
    def issuer(self) -> str:
        return self.auth.issuer or self.project.name

    @property
    def audience(self) -> str:
        return self.auth.audience or self.project.name
