"""What a configuration means, worked out once. Pure: nothing is read but the configuration.

Whoever needs a route's policy, a scope, a limit or an address asks here and derives nothing again: the renderers, the
replicas' environment, the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from escala.config import PLATFORM, Config, ListenAddress, ServiceSettings
from escala.environment import is_under
from escala.gateway.topology.backend_names import websocket_backend
from escala.gateway.topology.backends import Backend, backends_of
from escala.gateway.topology.limits import Limit, limits_of
from escala.gateway.topology.routes import ResolvedRoute, resolve_routes
from escala.http import methods

PLATFORM_SERVICE = ServiceSettings(app="escala.services.platform:app")


@dataclass(frozen=True, eq=False, kw_only=True)
class Topology:
    config: Config
    """What it was worked out from."""
    services: Mapping[str, ServiceSettings]
    """All services, the built-in one among them."""
    routes: tuple[ResolvedRoute, ...]
    """All routes by name, the built-in ones among them."""
    reaching: Mapping[str, tuple[ResolvedRoute, ...]]
    """By service, the routes whose requests may reach it."""
    backends: Mapping[str, tuple[Backend, ...]]
    """By service."""
    limits: tuple[Limit, ...]
    scopes: tuple[str, ...]
    """All scopes that routes require, sorted."""
    addresses: tuple[ListenAddress, ...]
    """Where the project listens, besides the replicas without a port of their own."""

    @classmethod
    def of(cls, config: Config) -> "Topology":
        services = {**config.services, PLATFORM: PLATFORM_SERVICE}
        routes = resolve_routes(config)
        reaching = {name: tuple(route for route in routes if route.reaches(name)) for name in services}
        return cls(
            config=config,
            services=services,
            routes=routes,
            reaching=reaching,
            backends={name: backends_of(config, reaching[name], name) for name in services},
            limits=limits_of(routes),
            scopes=tuple(sorted({scope for route in routes for scope in route.policy.scopes})),
            addresses=tuple(config.addresses()),
        )

    def backend_for(self, route: ResolvedRoute, service: str) -> Backend:
        """Return the backend that a route's requests take to a service."""
        return next(backend for backend in self.backends[service] if route in backend.routes)

    def has_websockets(self, service: str) -> bool:
        """Whether a service's WebSockets have a backend of their own."""
        return self.backends[service][-1].name == websocket_backend(service)

    @property
    def has_hosts(self) -> bool:
        """Whether any route depends on the request's host."""
        return any(route.policy.hosts for route in self.routes)

    @property
    def limit_counters(self) -> int:
        """How many sticky counters of HAProxy the limits need."""
        return max((limit.counter for limit in self.limits), default=0)

    @property
    def cache_ages(self) -> list[float]:
        """For how many seconds answers are cached: every value that a route has, the shortest first."""
        return sorted({route.policy.cache for route in self.routes if route.policy.cache is not None})

    def max_body(self, service: str) -> int:
        """Return the largest request body in bytes that any route lets through to a service."""
        bodies = (route.policy.max_body for route in self.reaching[service])
        return max(bodies, default=self.config.gateway.max_body)

    def unusual_methods(self, service: str) -> list[str]:
        """Return the methods that routes let through to a service beyond the default ones; "*" is any."""
        found = {method for route in self.reaching[service] for method in route.policy.methods}
        return sorted(found - set(methods.DEFAULT))

    def public_paths(self, service: str) -> list[str]:
        """Return the path prefixes that need no token, as the service sees them.

        A prefix below them that does need one begins with "!".
        """
        prefixes = [
            ("" if route.policy.public else "!") + (route.settings.to or route.settings.path)
            for route in self.reaching[service]
        ]
        health = self.services[service].health or "/health"
        if health != "tcp":
            prefixes.insert(0, health)
        # Another prefix with "!" says nothing, and it would change the environment: a reason to roll the service out.
        public = [prefix for prefix in prefixes if not prefix.startswith("!")]
        return [prefix for prefix in prefixes if any(is_under(prefix.removeprefix("!"), each) for each in public)]
