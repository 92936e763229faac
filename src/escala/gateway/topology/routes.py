"""Routes with their effective policy, and where each part of the policy is set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from escala.config import PLATFORM, Config, Policy, RouteSettings
from escala.http.paths import JWKS_PATH

BUILT_IN = "built in"
"""The source given for the policy of Escala's own routes."""


@dataclass(frozen=True, eq=False)
class ResolvedRoute:
    """A route, the service that it leads to, and its effective policy."""

    name: str
    """The unique name shown to people: its path, preceded by its first host if it has hosts."""
    where: str
    """The route's own table in escala.toml."""
    service: str
    settings: RouteSettings
    policy: Policy
    sources: Mapping[str, str]
    """By policy key, the table of escala.toml that sets it: "gateway", "services.web" or "services.web.routes[/data]".

    A key that is not set anywhere is missing here.
    """

    @property
    def split_to(self) -> str | None:
        """The service that gets a share of the requests."""
        return self.settings.split.service if self.settings.split else None

    def reaches(self, service: str) -> bool:
        """Whether this route's requests may reach `service`."""
        return service in (self.service, self.split_to)


def resolve_routes(config: Config) -> tuple[ResolvedRoute, ...]:
    """Return all routes, including the built-in ones, sorted by name."""
    return tuple(sorted((_resolve(config, *pair) for pair in _pairs(config)), key=lambda route: route.name))


def sources_of(routes: Sequence[ResolvedRoute], key: str) -> str:
    """Return where escala.toml sets a policy key for these routes, for a comment in the rendered configuration."""
    tables = sorted({source for route in routes if (source := route.sources.get(key))})
    return ", ".join(f"{table}.{key}" for table in tables) or f"{key} (default)"


def _resolve(config: Config, service: str, settings: RouteSettings) -> ResolvedRoute:
    found = config.effective(service, settings)
    name = "".join(found.policy.hosts[:1]) + settings.path
    where = BUILT_IN if service == PLATFORM else f"services.{service}.routes[{name}]"
    sources = {key: where if level == "route" else level for key, level in found.sources.items()}
    return ResolvedRoute(name, where, service, settings, found.policy, sources)


def _pairs(config: Config) -> Iterator[tuple[str, RouteSettings]]:
    # These values override the gateway's defaults: jobs always need a token, and the public keys never do.
    yield PLATFORM, RouteSettings(path="/jobs", public=False, hosts=(), cache=None)
    yield PLATFORM, RouteSettings(path=JWKS_PATH, public=True, hosts=())
    for name, service in config.services.items():
        for route in service.routes:
            yield name, route
