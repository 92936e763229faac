"""What a configuration means, computed once. Only the configuration is read; there are no side effects.

The renderers, the replicas' environment and the command line all take a route's policy, a scope, a limit or an address
from here. None of them derives it again.
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
    """The configuration that it was computed from."""
    services: Mapping[str, ServiceSettings]
    """All services, including the built-in one."""
    routes: tuple[ResolvedRoute, ...]
    """All routes, including the built-in ones, sorted by name."""
    reaching: Mapping[str, tuple[ResolvedRoute, ...]]
    """The routes whose requests may reach each service, by service."""
    backends: Mapping[str, tuple[Backend, ...]]
    """The backends of each service, by service."""
    limits: tuple[Limit, ...]
    scopes: tuple[str, ...]
    """All scopes that routes require, sorted."""
    addresses: tuple[ListenAddress, ...]
    """The addresses that the project listens on, except for replicas without a fixed port."""

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
        """Return the backend through which a route's requests reach a service."""
        return next(backend for backend in self.backends[service] if route in backend.routes)

    def has_websockets(self, service: str) -> bool:
        """Whether a service's WebSockets have a separate backend."""
        return self.backends[service][-1].name == websocket_backend(service)

    @property
    def has_hosts(self) -> bool:
        """Whether any route depends on the request's host."""
        return any(route.policy.hosts for route in self.routes)

    @property
    def limit_counters(self) -> int:
        """How many of HAProxy's sticky counters the limits need."""
        return max((limit.counter for limit in self.limits), default=0)

    @property
    def cache_ages(self) -> list[float]:
        """All cache times of routes in seconds, the shortest first."""
        return sorted({route.policy.cache for route in self.routes if route.policy.cache is not None})

    def max_body(self, service: str) -> int:
        """Return the largest request body, in bytes, that any route to a service allows."""
        bodies = (route.policy.max_body for route in self.reaching[service])
        return max(bodies, default=self.config.gateway.max_body)

    def unusual_methods(self, service: str) -> list[str]:
        """Return the methods that routes to a service allow beyond the default ones; "*" means any."""
        found = {method for route in self.reaching[service] for method in route.policy.methods}
        return sorted(found - set(methods.DEFAULT))

    def public_paths(self, service: str) -> list[str]:
        """Return the path prefixes that need no token, as the service sees them.

        A prefix below one of these that does need a token starts with "!".
        """
        prefixes = [
            ("" if route.policy.public else "!") + (route.settings.to or route.settings.path)
            for route in self.reaching[service]
        ]
        health = self.services[service].health or "/health"
        if health != "tcp":
            prefixes.insert(0, health)
        # A "!" prefix that is not below a public one adds no information. It would only change the environment of the
        # replicas, which causes a rollout of the service.
        public = [prefix for prefix in prefixes if not prefix.startswith("!")]
        return [prefix for prefix in prefixes if any(is_under(prefix.removeprefix("!"), each) for each in public)]
