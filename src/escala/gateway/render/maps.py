"""The map files next to the configuration: from host and path to a route, and from a route to its backend.

Keys of the routes map are "HOST/PREFIX/", "/PREFIX/" for any host, and ".PARENT/PREFIX/" for "*.PARENT". The value is
the route's name. A slash is appended to a request's path before the lookup, so that prefixes match whole segments.
"""

from escala.gateway.topology.topology import Topology


def routes_map(topology: Topology) -> str:
    """Return the map file from host and path to a route."""
    lines = [
        f"{host.removeprefix('*')}{route.settings.prefix}/ {route.name}"
        for route in topology.routes
        for host in route.policy.hosts or ("",)
    ]
    return "".join(f"{line}\n" for line in sorted(lines))


def backends_map(topology: Topology) -> str:
    """Return the map file from a route to the backend of its service."""
    return "".join(f"{route.name} {topology.backend_for(route, route.service).name}\n" for route in topology.routes)
