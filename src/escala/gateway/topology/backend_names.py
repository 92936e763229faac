"""The names of HAProxy's backends for one service (`gateway.topology.backends`)."""

_SEPARATOR = ":"  # service names cannot contain it


def backend_name(service: str, number: int) -> str:
    """Return the service's own name for its first backend (0), and a name such as "web:1" for each further one."""
    return f"{service}{_SEPARATOR}{number}" if number else service


def websocket_backend(service: str) -> str:
    """Return the name of the backend for a service's WebSockets."""
    return f"{service}{_SEPARATOR}websockets"


def service_of(backend: str) -> str:
    return backend.partition(_SEPARATOR)[0]
