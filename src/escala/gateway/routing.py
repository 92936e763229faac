"""Which route a request takes: a look-up by host and longest prefix, in two maps beside the configuration.

Keys of the routes' map are "HOST/PREFIX/", "/PREFIX/" for any host, and ".PARENT/PREFIX/" for "*.PARENT"; the value is
the route's name. A request's path gets a slash at its end before it is looked up, so prefixes match whole segments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from escala.config import JWKS_PATH, PLATFORM, Config, Policy, Route


@dataclass(frozen=True)
class Placed:
    """A route with the service it leads to, and the policy that holds for it."""

    name: str
    """What people know it by: its path, with its hosts where it has some."""
    service: str
    route: Route
    policy: Policy
    limited_by: str
    """Where its rate limits were written down: all routes that have them from there are counted together."""


def placed_routes(config: Config) -> list[Placed]:
    """Return all routes, the built-in ones among them, by name."""
    placed = []
    for service, route in _pairs(config):
        policy = config.policy(service, route)
        name = ",".join(policy.hosts) + route.path
        placed.append(Placed(name, service, route, policy, _limited_by(config, service, route, name)))
    return sorted(placed, key=lambda placed: placed.name)


def leading_to(routes: Sequence[Placed], service: str) -> list[Placed]:
    """Return the routes whose requests may reach `service`."""
    return [r for r in routes if r.service == service or (r.route.split and r.route.split.service == service)]


def has_hosts(routes: Sequence[Placed]) -> bool:
    return any(placed.policy.hosts for placed in routes)


def routes_map(routes: Sequence[Placed]) -> str:
    """Return the file that leads from host and path to a route."""
    lines = [
        f"{host.removeprefix('*')}{placed.route.prefix}/ {placed.name}"
        for placed in routes
        for host in placed.policy.hosts or ("",)
    ]
    return "".join(f"{line}\n" for line in sorted(lines))


def services_map(routes: Sequence[Placed]) -> str:
    """Return the file that leads from a route to its service."""
    return "".join(f"{placed.name} {placed.service}\n" for placed in routes)


def _limited_by(config: Config, service: str, route: Route, name: str) -> str:
    if "rate_limits" in route.model_fields_set:
        return f"route {name}"
    above = config.services.get(service)
    return f"service {service}" if above and "rate_limits" in above.model_fields_set else "gateway"


def _pairs(config: Config) -> Iterator[tuple[str, Route]]:
    # Whatever the gateway's defaults are: jobs are not for everybody, and keys are.
    yield PLATFORM, Route(path="/jobs", public=False, hosts=(), cache=None)
    yield PLATFORM, Route(path=JWKS_PATH, public=True, hosts=())
    for name, service in config.services.items():
        for route in service.routes:
            yield name, route
