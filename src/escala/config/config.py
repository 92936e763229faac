"""The whole of escala.toml."""

from collections import defaultdict
from collections.abc import Iterator

from pydantic import Field, model_validator

from escala.config.auth import Auth
from escala.config.cache import Cache
from escala.config.engines import Engines
from escala.config.gateway import Gateway
from escala.config.project import Project
from escala.config.section import Name, Section
from escala.config.service import Service

PLATFORM = "platform"
"""The built-in service behind /jobs and /.well-known; no other may take its name or its paths."""

JWKS_PATH = "/.well-known/jwks.json"

PLATFORM_PATHS = ("/jobs", "/.well-known", "/auth")


class Config(Section):
    project: Project
    gateway: Gateway = Gateway()
    auth: Auth = Auth()
    engines: Engines = Engines()
    cache: Cache = Cache()
    services: dict[Name, Service] = Field(min_length=1)

    @model_validator(mode="after")
    def _services_agree(self) -> "Config":
        problems = [*self._names(), *self._ports(), *self._routes()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _names(self) -> Iterator[str]:
        if PLATFORM in self.services:
            yield f"services.{PLATFORM}: the name belongs to Escala's built-in service; choose another"

    def _ports(self) -> Iterator[str]:
        wanted: dict[int, list[str]] = defaultdict(list)
        wanted[self.gateway.bind.port].append("gateway.bind")
        for name, service in self.services.items():
            for index, port in enumerate(service.ports):
                wanted[port].append(f"services.{name}.ports[{index}]")
        for port, owners in wanted.items():
            if len(owners) > 1:
                yield f"{owners[-1]}: port {port} is also wanted by {' and '.join(owners[:-1])}"

    def _routes(self) -> Iterator[str]:
        taken: dict[str, str] = {}
        for name, service in self.services.items():
            for index, route in enumerate(service.routes):
                here = f"services.{name}.routes[{index}]"
                for path in PLATFORM_PATHS:
                    if route.prefix == path or route.prefix.startswith(f"{path}/"):
                        yield f"{here}: {path} belongs to Escala's built-in service; choose another path"
                if route.prefix in taken:
                    yield f"{here}: {route.path} already leads to {taken[route.prefix]}"
                taken.setdefault(route.prefix, f"services.{name}")

    @property
    def issuer(self) -> str:
        return self.auth.issuer or self.project.name

    @property
    def audience(self) -> str:
        return self.auth.audience or self.project.name
