"""The gateway and its balancer: HAProxy, rendered, checked, and changed while it runs."""

from escala.gateway.gateway import Gateway
from escala.gateway.upstream import Backend, Server

__all__ = ["Backend", "Gateway", "Server"]
