"""The names of lanes: HAProxy's backends for one service (`gateway.topology.routes.Lane`)."""

_SEPARATOR = ":"  # no service has it in its name


def lane_name(service: str, number: int) -> str:
    """Return the service's own name for its first lane, 0, and such as "web:1" for further ones."""
    return f"{service}{_SEPARATOR}{number}" if number else service


def websocket_lane(service: str) -> str:
    """Return the name of the lane of a service's WebSockets."""
    return f"{service}{_SEPARATOR}websockets"


def service_of(lane: str) -> str:
    return lane.partition(_SEPARATOR)[0]
