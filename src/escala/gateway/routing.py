"""Routes in the order in which the gateway tries them."""

from collections.abc import Iterator
from typing import NamedTuple

from escala.config import JWKS_PATH, PLATFORM, Config, Route


class Placed(NamedTuple):
    """A route with the service it leads to, and a name of its own."""

    name: str
    service: str
    route: Route


def placed_routes(config: Config) -> list[Placed]:
    """Return all routes, the built-in ones among them, longest prefix first."""
    pairs = sorted(_pairs(config), key=lambda pair: (-len(pair[1].prefix), pair[1].prefix))
    return [Placed(f"r{number}", service, route) for number, (service, route) in enumerate(pairs, start=1)]


def _pairs(config: Config) -> Iterator[tuple[str, Route]]:
    yield PLATFORM, Route(path="/jobs")
    yield PLATFORM, Route(path=JWKS_PATH, public=True)
    for name, service in config.services.items():
        for route in service.routes:
            yield name, route
