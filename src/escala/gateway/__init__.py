"""The gateway and its balancer: HAProxy, rendered, checked, and changed while it runs."""

from escala.gateway.gateway import STOP_SECONDS, Gateway, Listeners, Plan
from escala.gateway.revocations import Revocations
from escala.gateway.runtime import Traffic
from escala.gateway.upstream import FULL_WEIGHT, Backend, Server, ServerState

__all__ = [
    "FULL_WEIGHT",
    "STOP_SECONDS",
    "Backend",
    "Gateway",
    "Listeners",
    "Plan",
    "Revocations",
    "Server",
    "ServerState",
    "Traffic",
]
