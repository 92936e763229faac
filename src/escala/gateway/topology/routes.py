"""Which route a request takes: a look-up by host and longest prefix, in two maps beside the configuration.

Keys of the routes' map are "HOST/PREFIX/", "/PREFIX/" for any host, and ".PARENT/PREFIX/" for "*.PARENT"; the value is
the route's name. A request's path gets a slash at its end before it is looked up, so prefixes match whole segments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from escala.config import JWKS_PATH, PLATFORM, Balance, Config, Policy, RouteSettings
from escala.gateway.topology.lane_names import lane_name, websocket_lane


@dataclass(frozen=True)
class Placed:
    """A route with the service it leads to, and the policy that holds for it."""

    name: str
    """What people know it by: its path, behind its first host where it has some; no other route has this pair."""
    service: str
    route: RouteSettings
    policy: Policy
    limited_by: str
    """Where its rate limits were written down: all routes that have them from there are counted together."""


@dataclass(frozen=True)
class Lane:
    """A backend of HAProxy: a service's replicas, as routes that say the same of `balance` use them.

    HAProxy 2.8 has queue, in-flight limit, retries, queue and connect timeouts by backend. So each replica is a server
    of every lane, with a limit of its own there. WebSockets have a lane too: they last for hours, and must not count
    against the requests that a replica works on.
    """

    name: str
    balance: Balance
    routes: tuple[Placed, ...]


def placed_routes(config: Config) -> list[Placed]:
    """Return all routes, the built-in ones among them, by name."""
    placed = []
    for service, route in _pairs(config):
        policy = config.policy(service, route)
        name = "".join(policy.hosts[:1]) + route.path
        placed.append(Placed(name, service, route, policy, _limited_by(config, service, route, name)))
    return sorted(placed, key=lambda placed: placed.name)


def leading_to(routes: Sequence[Placed], service: str) -> list[Placed]:
    """Return the routes whose requests may reach `service`."""
    return [r for r in routes if r.service == service or (r.route.split and r.route.split.service == service)]


def lanes(config: Config, routes: Sequence[Placed], service: str) -> list[Lane]:
    """Return a service's lanes, its own first, which is there also where no route takes it."""
    general = config.balance(service)
    groups: dict[Balance, list[Placed]] = {general: []}
    for placed in leading_to(routes, service):
        groups.setdefault(config.balance(service, placed.route), []).append(placed)
    found = [
        Lane(lane_name(service, number), balance, tuple(members))
        for number, (balance, members) in enumerate(groups.items())
    ]
    members = leading_to(routes, service)
    if has_websockets(config, service) and members:
        balance = general.model_copy(update={"inflight": general.websockets})
        found.append(Lane(websocket_lane(service), balance, tuple(members)))
    return found


def has_websockets(config: Config, service: str) -> bool:
    """Whether a service's WebSockets have a lane of their own.

    An app's program takes each handshake for a WebSocket. Another server may ignore it and answer as to any request,
    which would get past the limit in flight that way; so for a `command` somebody has to ask for it.
    """
    own = config.services.get(service)
    if own is None or own.protocol != "http1" or own.interface == "wsgi":
        return False
    return own.kind == "app" or (own.kind == "command" and "websockets" in config.balance(service).model_fields_set)


def lane_of(config: Config, routes: Sequence[Placed], placed: Placed, service: str) -> str:
    """Return the name of the lane that a route's requests take to a service."""
    return next(lane.name for lane in lanes(config, routes, service) if placed in lane.routes)


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


def lanes_map(config: Config, routes: Sequence[Placed]) -> str:
    """Return the file that leads from a route to its service's lane."""
    return "".join(f"{placed.name} {lane_of(config, routes, placed, placed.service)}\n" for placed in routes)


def _limited_by(config: Config, service: str, route: RouteSettings, name: str) -> str:
    if "rate_limits" in route.model_fields_set:
        return f"route {name}"
    above = config.services.get(service)
    return f"service {service}" if above and "rate_limits" in above.model_fields_set else "gateway"


def _pairs(config: Config) -> Iterator[tuple[str, RouteSettings]]:
    # Whatever the gateway's defaults are: jobs are not for everybody, and keys are.
    yield PLATFORM, RouteSettings(path="/jobs", public=False, hosts=(), cache=None)
    yield PLATFORM, RouteSettings(path=JWKS_PATH, public=True, hosts=())
    for name, service in config.services.items():
        for route in service.routes:
            yield name, route
