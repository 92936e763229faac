"""Routes with the policy that holds for each, and where each part of the policy is written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from escala.config import PLATFORM, Config, Policy, RouteSettings
from escala.http.paths import JWKS_PATH

BUILT_IN = "built in"
"""Where the policy of Escala's own routes is written."""


@dataclass(frozen=True, eq=False)
class ResolvedRoute:
    """A route, the service that it leads to, and its effective policy."""

    name: str
    """What people call it: its path, behind its first host where it has some. No other route has this name."""
    service: str
    settings: RouteSettings
    policy: Policy
    sources: Mapping[str, str]
    """By key of the policy, the table of escala.toml that sets it: "gateway", "services.web" or
    "services.web.routes[/data]"; a key with its default value is not here."""

    @property
    def split_to(self) -> str | None:
        """The service that gets a share of the requests."""
        return self.settings.split.service if self.settings.split else None

    @property
    def where(self) -> str:
        """The route's own table in escala.toml."""
        return BUILT_IN if self.service == PLATFORM else f"services.{self.service}.routes[{self.name}]"

    def reaches(self, service: str) -> bool:
        """Whether its requests may reach `service`."""
        return service in (self.service, self.split_to)


def resolve_routes(config: Config) -> tuple[ResolvedRoute, ...]:
    """Return all routes by name, the built-in ones among them."""
    return tuple(sorted((_resolve(config, *pair) for pair in _pairs(config)), key=lambda route: route.name))


def sources_of(routes: Sequence[ResolvedRoute], key: str) -> str:
    """Say where escala.toml sets a key of the policy for these routes, for a comment in what is made of it."""
    tables = sorted({source for route in routes if (source := route.sources.get(key))})
    return ", ".join(f"{table}.{key}" for table in tables) or f"{key} (default)"


def _resolve(config: Config, service: str, settings: RouteSettings) -> ResolvedRoute:
    found = config.effective(service, settings)
    name = "".join(found.policy.hosts[:1]) + settings.path
    own = BUILT_IN if service == PLATFORM else f"services.{service}.routes[{name}]"
    sources = {key: own if level == "route" else level for key, level in found.sources.items()}
    return ResolvedRoute(name, service, settings, found.policy, sources)


def _pairs(config: Config) -> Iterator[tuple[str, RouteSettings]]:
    # Whatever the gateway's defaults are: jobs need a token, and keys do not.
    yield PLATFORM, RouteSettings(path="/jobs", public=False, hosts=(), cache=None)
    yield PLATFORM, RouteSettings(path=JWKS_PATH, public=True, hosts=())
    for name, service in config.services.items():
        for route in service.routes:
            yield name, route
