"""A configuration with everything in it, and what the gateway needs beside it."""

from collections.abc import Sequence
from typing import Any

from escala.config import Address, Config, UnixSocket
from escala.gateway.render.context import Key, RenderContext
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from tests.support import minimal_config


def plain() -> Config:
    return minimal_config(
        services={
            "web": {"app": "web:app", "replicas": 2, "routes": ["/data", {"path": "/data/fine", "timeout": "5s"}]},
            "db": {"app": "db:app", "routes": [{"path": "/db", "scopes": ["db", "db:write"]}]},
            "pages": {"app": "p:app", "routes": [{"path": "/", "to": "/pages", "public": True}]},
        },
    )


def everything() -> Config:
    """Return a configuration that uses every kind of policy."""
    return minimal_config(
        gateway={
            "bind": "0.0.0.0:8443",
            "threads": 2,
            "tls": {"certificates": "certs", "redirect": "0.0.0.0:8080", "hsts": "365d"},
            "rate_limits": [{"requests": 100, "burst": 200}],
            "headers": {"X-Frame-Options": "", "X-Powered-By": '100 % "quoted" $HOME'},
            "balance": {"inflight": 10, "queue": 20, "queue_timeout": "2s", "slow_start": "5s"},
        },
        services={
            "web": {
                "app": "web:app",
                "replicas": 2,
                "compression": True,
                "balance": {"sticky": "replica"},
                "routes": [
                    {
                        "path": "/shop",
                        "split": {"service": "next", "percent": 10},
                        "compression": False,
                        "balance": {"inflight": 2, "retries": 1, "connect_timeout": "1s"},
                    },
                    {"path": "/static", "public": True, "cache": "60s", "methods": ["GET", "HEAD"]},
                    {"path": "/api", "cors": {"origins": ["https://a.example", "https://b.example:8443"]}},
                    {"path": "/api", "hosts": ["api.example.com", "*.example.org"], "max_body": "1KiB"},
                    {
                        "path": "/orders",
                        "scopes": ["orders", "orders:write"],
                        "retry": False,
                        "idle_timeout": "10m",
                        "rate_limits": [
                            {"requests": 10, "period": "1m", "per": "token"},
                            {"requests": 1000, "per": "route"},
                        ],
                    },
                ],
            },
            "rare": {
                "app": "rare:app",
                "replicas": {"min": 0, "max": 2},
                "routes": ["/rare", {"path": "/rare/own", "balance": {"queue": 5}}],
            },
            "next": {"app": "next:app", "balance": {"algorithm": "hash", "hash_on": "header:X-Tenant"}},
            "rpc": {
                "command": "rpc",
                "protocol": "h2",
                "health": "tcp",
                "balance": {"algorithm": "random", "retries": 0},
                "routes": [{"path": "/rpc.Echo", "timeout": "5m"}],
            },
        },
    )


def servers(topology: Topology) -> dict[str, Sequence[Server]]:
    """Return replicas for every service, the first of each ready."""
    return {
        name: [
            Server(
                number,
                UnixSocket(f"/state/{name}.{number}.sock")
                if service.on_socket
                else Address("127.0.0.1", 5000 + 10 * index + number),
                "ready" if number == 1 else "maint",
            )
            for number in range(1, service.replicas.min + 1)
        ]
        for index, (name, service) in enumerate(topology.services.items())
    }


def render_context(folder: str = "/state", **changes: Any) -> RenderContext:
    values: dict[str, Any] = {
        "bind": "127.0.0.1:8000",
        "redirect": None,
        "admin": "127.0.0.1:8404",
        "socket": f"{folder}/haproxy.sock",
        "unavailable": f"{folder}/unavailable.sock",
        "access_log": "fd@2",
        "route_metrics": f"{folder}/metrics.sock",
        "hold": f"{folder}/hold.lua",
        "routes": f"{folder}/routes.map",
        "backends": f"{folder}/backends.map",
        "revoked_tokens": f"{folder}/revoked-tokens.map",
        "revoked_users": f"{folder}/revoked-users.map",
        "keys": (Key("-first", "RS256", f"{folder}/0.pem"), Key("second", "ES256", f"{folder}/1.pem")),
        "certificates": None,
    }
    return RenderContext(**{**values, **changes})
