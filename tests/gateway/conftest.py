"""One project with every kind of policy, running, for the tests that only send requests."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from escala.processes.ports import free_port
from tests.support import REPOSITORY, Up, client, token_for

PROJECT = """
[project]
name = "gate"

[gateway]
bind = "127.0.0.1:{port}"
threads = 2
forwarded = ["127.0.0.9", "10.0.0.0/8"]

[auth]
remember_for = "10s"
wrong_tokens = 100000

[services.web]
app = "tests.gateway.app:app"
replicas = 2
routes = [
    "/echo", "/slow", "/events", "/upload", "/talk", "/dies",
    {{ path = "/public", public = true }},
    {{ path = "/public/inner", scopes = ["a"] }},
    {{ path = "/scoped", scopes = ["a", "b:write"] }},
    {{ path = "/read", methods = ["GET", "HEAD"] }},
    {{ path = "/small", max_body = "100B" }},
    {{ path = "/piecemeal", to = "/upload", max_body = "100B" }},
    {{ path = "/quick", to = "/slow", timeout = "300ms" }},
    {{ path = "/once", to = "/dies", retry = false }},
    {{ path = "/limited/address", rate_limits = [{{ requests = 5, period = "1h" }}] }},
    {{ path = "/limited/early", rate_limits = [{{ requests = 5, period = "1h" }}] }},
    {{ path = "/limited/token", rate_limits = [{{ requests = 3, period = "1h", per = "token", burst = 4 }}] }},
    {{ path = "/limited/route", rate_limits = [{{ requests = 6, period = "1h", per = "route" }}], public = true }},
    {{ path = "/cors", cors = {{ origins = ["https://shop.example"], credentials = true }} }},
    {{ path = "/open", public = true, cors = {{ origins = ["*"] }} }},
    {{ path = "/large", compression = true }},
    {{ path = "/plain", to = "/large" }},
    {{ path = "/headers", headers = {{ X-Frame-Options = "", X-Team = "100 % ours" }} }},
    {{ path = "/cached", public = true, cache = "1m" }},
    {{ path = "/hosted", hosts = ["a.example", "*.b.example"] }},
    {{ path = "/canary", split = {{ service = "next", percent = 30 }} }},
    {{ path = "/outer", to = "/inner/deep" }},
    {{ path = "/dav", methods = "any" }},
    {{ path = "/ask", methods = ["GET", "QUERY", "PROPFIND"] }},
    {{ path = "/files", paths = "as-is" }},
    {{ path = "/files/secret", scopes = ["a"] }},
]

[services.fast]
app = "tests.gateway.mounted:fast"
routes = [{{ path = "/fast", to = "/" }}, {{ path = "/open-fast", to = "/", public = true, cache = "1m" }}]

[services.flask]
app = "tests.gateway.mounted:wsgi"
threads = 3
balance = {{ queue_timeout = "10s" }}
routes = [{{ path = "/flask", to = "/" }}]

[services.named]
app = "tests.gateway.sessions:plain"
replicas = 3
balance = {{ sticky = "header:X-Session", algorithm = "roundrobin" }}
routes = ["/named", {{ path = "/named-open", to = "/named", public = true, cache = "1m" }}]

[services.mcp]
app = "tests.gateway.sessions:mcp"
replicas = 3
balance = {{ sticky = "header:Mcp-Session-Id", algorithm = "roundrobin" }}
routes = ["/mcp"]

[services.cookied]
app = "tests.gateway.app:app"
replicas = 2
balance = {{ sticky = "replica" }}
routes = [{{ path = "/cookied", public = true, cache = "1m" }}]

[services.closing]
command = "{python} -m tests.gateway.closing $PORT"
health = "tcp"
routes = ["/closing"]

[services.next]
app = "tests.gateway.app:app"

[services.busy]
app = "tests.gateway.app:app"
balance = {{ inflight = 1, queue = 2, queue_timeout = "1s" }}
routes = [
    {{ path = "/busy", to = "/slow" }},
    {{ path = "/apart", to = "/slow", balance = {{ queue_timeout = "100ms" }} }},
]

[services.rpc]
command = "{python} -m tests.gateway.rpc $PORT"
health = "tcp"
protocol = "h2"
routes = ["/tests.Rpc"]

[services.sticky]
app = "tests.gateway.app:app"
replicas = 3
balance = {{ sticky = "replica" }}
routes = ["/sticky"]

[services.even]
command = "{python} -m tests.gateway.small $PORT"
replicas = 3
balance = {{ algorithm = "roundrobin" }}
routes = ["/even"]

[services.drawn]
command = "{python} -m tests.gateway.small $SOCKET"
replicas = 3
balance = {{ algorithm = "random" }}
routes = ["/drawn"]

[services.filled]
command = "{python} -m tests.gateway.small $PORT"
replicas = 2
balance = {{ algorithm = "first", inflight = 2 }}
routes = ["/filled"]

[services.eased]
command = "{python} -m tests.gateway.small $PORT"
balance = {{ algorithm = "roundrobin", slow_start = "1h" }}
routes = ["/eased"]

[services.hashed]
app = "tests.gateway.app:app"
replicas = 3
balance = {{ algorithm = "hash", hash_on = "header:X-Tenant" }}
routes = ["/hashed"]
"""


@pytest.fixture(scope="session")
def gate(make_folder: Callable[[], Path], seed: Callable[[Path], Path]) -> Iterator[Up]:
    folder = seed(make_folder())
    (folder / "escala.toml").write_text(PROJECT.format(port=free_port(), python=sys.executable))
    with Up(folder / "escala.toml", environ={"PYTHONPATH": str(REPOSITORY)}) as up:
        yield up.wait_open()


@pytest.fixture(scope="session")
def make_token(gate: Up) -> Callable[..., str]:
    def make(*options: str) -> str:
        return token_for(gate.project, *options)

    return make


@pytest.fixture
def http(gate: Up, make_token: Callable[..., str]) -> Iterator[httpx.Client]:
    """A client with a token of its own that may do everything."""
    with client(gate.url, make_token()) as made:
        yield made
