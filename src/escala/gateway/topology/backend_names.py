"""The names of HAProxy's backends for one service (`gateway.topology.backends`)."""

_SEPARATOR = ":"  # no service has it in its name


def backend_name(service: str, number: int) -> str:
    """Return the service's own name for its first backend, 0, and such as "web:1" for further ones."""
    return f"{service}{_SEPARATOR}{number}" if number else service


def websocket_backend(service: str) -> str:
    """Return the name of the backend for a service's WebSockets."""
    return f"{service}{_SEPARATOR}websockets"


def service_of(backend: str) -> str:
    return backend.partition(_SEPARATOR)[0]
