"""HAProxy's backends: which backends a service has, and which routes lead to each."""

from collections.abc import Sequence
from dataclasses import dataclass

from escala.config import Balance, Config, ServiceSettings
from escala.gateway.topology.backend_names import backend_name, websocket_backend
from escala.gateway.topology.routes import ResolvedRoute


@dataclass(frozen=True, eq=False)
class Backend:
    """A service's replicas, as used by all routes with the same `balance`.

    HAProxy 2.8 sets the queue, the in-flight limit, the retries and the timeouts per backend. So each replica is a
    server in every backend of its service, with a separate limit in each. WebSockets also have a separate backend:
    they last for hours, and must not count against the requests that a replica is working on.
    """

    name: str
    service: str
    balance: Balance
    routes: tuple[ResolvedRoute, ...]


def backends_of(config: Config, routes: Sequence[ResolvedRoute], service: str) -> tuple[Backend, ...]:
    """Return a service's backends; `routes` are those that reach it. The first backend exists even without routes."""
    general = config.balance(service)
    groups: dict[Balance, list[ResolvedRoute]] = {general: []}
    for route in routes:
        groups.setdefault(config.balance(service, route.settings), []).append(route)
    found = [
        Backend(backend_name(service, number), service, balance, tuple(members))
        for number, (balance, members) in enumerate(groups.items())
    ]
    if routes and _has_websockets(config.services.get(service), general):
        balance = general.model_copy(update={"inflight": general.websockets})
        found.append(Backend(websocket_backend(service), service, balance, tuple(routes)))
    return tuple(found)


def _has_websockets(service: ServiceSettings | None, balance: Balance) -> bool:
    """Whether a service's WebSockets have a separate backend.

    The server that Escala runs for an app treats each handshake as a WebSocket. Another server may ignore the
    handshake and answer it like any other request. Such a request would bypass the in-flight limit. So a `command` has
    a backend for WebSockets only if `balance.websockets` is set.
    """
    if service is None or service.protocol != "http1" or service.interface == "wsgi":
        return False
    return service.kind == "app" or (service.kind == "command" and "websockets" in balance.model_fields_set)
