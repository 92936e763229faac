"""`escala up` as a user runs it: small projects, real processes, real signals."""

import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import websockets

from escala.processes.ports import free_port
from escala.processes.process import has_ended
from tests.support import Up, client, escala, wait_until, write

APP = """
import asyncio, os
import escala
from escala import auth
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

async def whoami(request):
    return JSONResponse({"replica": os.environ["ESCALA_REPLICA"], "user": auth.current(request).subject,
        "headers": dict(request.headers), "path": request.url.path, "scheme": request.url.scheme,
        "client": request.client.host})

async def slow(request):
    await asyncio.sleep(1.5)
    return JSONResponse({"slow": True})

async def echo(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())

async def hello(request):
    return JSONResponse({"hello": "anybody"})

routes = [
    *(Route("/open/hello", hello), Route("/who", whoami), Route("/inner/who", whoami), Route("/slow", slow)),
    WebSocketRoute("/ws", echo),
]
app = Starlette(routes=routes, lifespan=escala.lifespan)
app.add_middleware(auth.Middleware)
"""

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def project(folder: Path, more: str = "", replicas: int = 2) -> Path:
    write(folder, web__py=APP, server__py=SERVER)
    (folder / "escala.toml").write_text(
        f"""
[project]
name = "small"
[gateway]
bind = "127.0.0.1:{free_port()}"
timeout = "1s"
[services.web]
app = "web:app"
replicas = {replicas}
routes = [
    "/who", "/inner", "/ws",
    {{ path = "/renamed", to = "/inner" }},
    {{ path = "/bare", to = "/" }},
    {{ path = "/open", public = true }},
    {{ path = "/slow", timeout = "5s" }},
    {{ path = "/scoped", to = "/who", scopes = ["a", "b:c"] }},
]
[services.plain]
command = "python server.py $PORT"
routes = [{{ path = "/plain", public = true }}]
{more}
"""
    )
    return folder / "escala.toml"


@pytest.fixture(scope="module")
def up(make_folder: Callable[[], Path]) -> Iterator[Up]:
    with Up(project(make_folder())) as running:
        yield running.wait_open()


@pytest.fixture
def token(up: Up) -> str:
    return escala("token", "--file", str(up.file), "--user", "ana").stdout.strip()


def socket_of(replica: dict[str, Any]) -> Path:
    return Path(replica["address"].removeprefix("unix:"))


def family(up: Up) -> list[psutil.Process]:
    return [psutil.Process(up.process.pid), *psutil.Process(up.process.pid).children(recursive=True)]


def test_requests_reach_all_replicas_with_what_the_gateway_adds(up: Up, token: str) -> None:
    with client(up.url, token) as http:
        answers = [http.get("/who", headers={"X-Forwarded-For": "6.6.6.6", "X-Request-ID": "mine"}) for _ in range(8)]
    bodies = [answer.json() for answer in answers]
    assert {body["replica"] for body in bodies} == {"web/1", "web/2"}
    assert {body["user"] for body in bodies} == {"ana"}
    headers = bodies[0]["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["host"] == up.url.removeprefix("http://")
    assert headers["x-request-id"] == answers[0].headers["x-request-id"] != "mine"
    assert len({answer.headers["x-request-id"] for answer in answers}) == 8
    assert bodies[0]["client"] == "127.0.0.1"


def test_routes(up: Up, token: str) -> None:
    with client(up.url, token) as http:
        assert http.get("/renamed/who").json()["path"] == "/inner/who"
        assert http.get("/inner/who?x=1").status_code == 200
        assert http.get("/whoever").status_code == 404
        assert http.get("/plain").text == "ok"
        assert http.get("/scoped").json()["path"] == "/who"
    narrow = escala("token", "--file", str(up.file), "-s", "a", "-s", "b:cd").stdout.strip()
    with client(up.url, narrow) as http:
        refused = http.get("/scoped")
    assert refused.status_code == 403
    assert refused.json()["detail"] == "The token needs these scopes: a b:c."
    assert httpx.get(f"{up.url}/plain").status_code == 200


@pytest.mark.parametrize(
    ("asked", "seen"), [("/bare/who", "/bare/who"), ("/bare/who?x=1", "/bare/who"), ("/renamed/who", "/inner/who")]
)
def test_rewrites(up: Up, token: str, asked: str, seen: str) -> None:
    with client(up.url, token) as http:
        assert http.get(asked).json()["path"] == seen


@pytest.mark.parametrize("asked", ["/bare", "/bare/", "/bare?x=1"])
def test_a_prefix_that_becomes_nothing_is_the_root(up: Up, token: str, asked: str) -> None:
    with client(up.url, token) as http:
        assert http.get(asked).text == "Not Found"  # the app's own words for /


def test_a_public_route_is_public_in_the_replica_too(up: Up) -> None:
    assert httpx.get(f"{up.url}/open/hello").json() == {"hello": "anybody"}
    transport = httpx.HTTPTransport(uds=str(socket_of(up.replicas("web")[0])))
    with httpx.Client(transport=transport, base_url="http://replica") as replica:
        assert replica.get("/open/hello").status_code == 200
        assert replica.get("/who").status_code == 401


async def test_websockets_pass_through_the_gateway(up: Up, token: str) -> None:
    url = up.url.replace("http", "ws") + "/ws"
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "HELLO"
        await socket.send("x" * 100_000)
        assert await socket.recv() == "X" * 100_000
    with pytest.raises(websockets.InvalidStatus, match="401"):
        async with websockets.connect(url, proxy=None):
            pass


def test_a_service_that_takes_too_long(up: Up, token: str) -> None:
    with client(up.url, token) as http:
        assert http.get("/slow").json() == {"slow": True}  # its route allows 5 s; the gateway 1 s


def test_status(up: Up) -> None:
    found = json.loads(escala("status", "--json", "--file", str(up.file)).stdout)
    assert (found["project"], found["phase"], found["pid"]) == ("small", "ready", up.process.pid)
    names = {(p["service"], p["replica"]) for p in found["processes"]}
    engines_and_gateway = {("postgres", ""), ("valkey", ""), ("gateway", ""), ("access-log", "")}
    assert names == engines_and_gateway | {("web", "1"), ("web", "2"), ("plain", "1"), ("platform", "1")}
    for process in found["processes"]:
        assert process["state"] == "serving"
        assert process["pid"]
        assert process["memory"] > 1_000_000
    table = escala("status", cwd=up.file.parent).stdout
    assert "SERVICE" in table
    assert "127.0.0.1:" in table


def test_a_second_up_in_the_same_project(up: Up) -> None:
    second = escala("up", "--file", str(up.file))
    assert second.returncode == 4
    assert second.stderr.strip().splitlines()[-1].startswith("error: small is running already (pid ")
    assert escala("up", "-d", "--file", str(up.file)).returncode == 4
    assert up.status()["phase"] == "ready"


def test_sockets_and_keys_are_private(up: Up) -> None:
    layout = up.project.layout
    for path in (
        layout.control_socket,
        layout.run / "haproxy.sock",
        layout.signing_key,
        layout.gateway / "haproxy.cfg",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (layout.run, layout.keys, layout.log, layout.postgres):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    sockets = [socket_of(replica) for service in ("web", "platform") for replica in up.replicas(service)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    listening = {c.laddr.port for p in family(up) for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    gateway = up.project.config.gateway.bind.port
    (plain,) = up.replicas("plain")  # a command, which was given $PORT
    admin = int(urlsplit(up.status()["metrics"]).port or 0)
    assert listening == {gateway, admin, int(plain["address"].rpartition(":")[2])}


def test_no_secret_in_any_command_line_or_log(up: Up, token: str) -> None:
    httpx.get(f"{up.url}/who", headers={"Authorization": f"Bearer {token}x"})
    titles = " ".join(" ".join(p.cmdline()) for p in family(up))
    logs = "".join(file.read_text(errors="replace") for file in up.project.layout.log.rglob("*.*"))
    for secret in (token, token.split(".")[2], "PRIVATE"):
        assert secret not in titles
        assert secret not in logs
        assert secret not in up.said()


@pytest.mark.parametrize("service", ["web", "plain", "platform", "gateway", "valkey", "postgres"])
def test_whatever_is_killed_comes_back(up: Up, token: str, service: str) -> None:
    (victim, *_) = up.replicas(service)
    os.kill(victim["pid"], signal.SIGKILL)

    def back() -> bool:
        (now, *_) = up.replicas(service)
        return bool(now["state"] == "serving" and now["pid"] not in (None, victim["pid"]))

    wait_until(back, f"{service} is back")

    def answers() -> bool:
        try:
            return httpx.get(f"{up.url}/who", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "the gateway answers")


def test_a_gateway_whose_worker_is_killed_comes_back(up: Up) -> None:
    (gateway,) = up.replicas("gateway")
    (worker,) = psutil.Process(gateway["pid"]).children()
    worker.kill()
    wait_until(lambda: up.replicas("gateway")[0]["pid"] not in (None, gateway["pid"]), "the gateway is back")
    wait_until(lambda: up.replicas("gateway")[0]["state"] == "serving", "the gateway is ready")
    assert has_ended(worker.pid)


def test_logs_are_kept_by_replica(up: Up) -> None:
    names = {path.name for path in up.project.layout.log.iterdir()}
    assert {"escala.log", "gateway.log", "postgres.log", "valkey.log"} <= names
    assert "web/1 ready in" in (up.project.layout.log / "escala.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_stops_everything(folder: Path, number: signal.Signals) -> None:
    with Up(project(folder, replicas=1)) as running:
        running.wait_open()
        everything = family(running)
        os.kill(running.process.pid, number)
        assert running.wait_ended() == 0
        assert f"stopping: {number.name}" in running.said()
        wait_until(lambda: all(has_ended(p.pid) for p in everything), "no process is left", 5)
        assert not running.project.layout.control_socket.exists()


def test_a_client_that_keeps_its_connection_holds_up_no_stop(folder: Path) -> None:
    with Up(project(folder, replicas=1)) as running, httpx.Client(timeout=20) as http:
        running.wait_open()
        assert http.get(f"{running.url}/plain").text == "ok"
        with socket.create_connection(("127.0.0.1", running.project.config.gateway.bind.port)) as half:
            half.sendall(b"GET /plain HTTP/1.1\r\nHost")
            running.process.send_signal(signal.SIGTERM)
            assert running.wait_ended(8) == 0  # HAProxy alone would wait for them, and be killed after 11 s
        assert "in flight" not in running.said()
        assert "[ALERT]" not in running.said()


def test_down_lets_a_request_in_flight_finish(folder: Path) -> None:
    with Up(project(folder, replicas=1)) as running:
        running.wait_open()
        token = escala("token", "--file", str(running.file)).stdout.strip()
        with httpx.Client(timeout=20) as http:
            request = http.build_request("GET", f"{running.url}/slow", headers={"Authorization": f"Bearer {token}"})
            answers: list[httpx.Response] = []
            asking = threading.Thread(target=lambda: answers.append(http.send(request)))
            asking.start()
            port = running.project.config.gateway.bind.port
            wait_until(lambda: _established(port), "the request is on its way")
            stopped = escala("down", "--file", str(running.file))
            asking.join()
        assert stopped.returncode == 0, stopped.stderr
        assert "small stopped in" in stopped.stdout
        assert answers[0].json() == {"slow": True}
        assert running.wait_ended() == 0
        assert "waiting up to 10.0 s for 1 request in flight" in running.said()


def _established(port: int) -> bool:
    return any(c.raddr and c.raddr.port == port and c.status == "ESTABLISHED" for c in psutil.net_connections("tcp"))


def test_after_a_crash_of_the_supervisor_the_next_start_is_clean(folder: Path) -> None:
    file = project(folder, replicas=1)
    with Up(file) as first:
        first.wait_open()
        children = family(first)[1:]
        first.process.kill()
        first.wait_ended()
        assert escala("status", "--file", str(file)).returncode == 4
        with Up(file) as second:
            second.wait_open()
            assert all(has_ended(process.pid) for process in children)
            assert httpx.get(f"{second.url}/plain").text == "ok"


def test_one_service_that_cannot_start_does_not_take_the_others_down(folder: Path) -> None:
    broken = """
[services.broken]
app = "absent:app"
routes = [{ path = "/broken", public = true }]
"""
    with Up(project(folder, broken, replicas=1)) as running:
        running.wait_open()
        said = running.said()
        assert "broken/1 could not start: exit code 2" in said
        assert "error: cannot load 'absent:app': there is no module 'absent'" in said
        refused = httpx.get(f"{running.url}/broken")
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        assert httpx.get(f"{running.url}/plain").text == "ok"


def test_a_taken_port(folder: Path) -> None:
    file = project(folder)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        for setting, owner in (
            (f"gateway.bind=127.0.0.1:{port}", "the gateway"),
            (f"services.web.ports=[{port}]", "web/1"),
        ):
            refused = escala("up", "--file", str(file), "--set", setting)
            assert refused.returncode == 3
            (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
            assert f"127.0.0.1:{port}, wanted by {owner}" in line
            assert f"(pid {os.getpid()})" in line


def test_prepare_runs_before_the_replicas_with_their_environment(folder: Path) -> None:
    file = project(folder, replicas=1)
    write(folder, prepare__py="import os; open('prepared', 'w').write(os.environ['ESCALA_ENGINES__POSTGRES__URL'])")
    with Up(file, "--set", "project.prepare=python prepare.py") as running:
        running.wait_open()
        assert (folder / "prepared").read_text().startswith("postgresql://")
    failed = escala("up", "--file", str(file), "--set", "project.prepare=python -c 'raise SystemExit(9)'")
    assert failed.returncode == 3
    assert "failed: exit code 9; no replica was started" in failed.stderr
    missing = escala("up", "--file", str(file), "--set", "project.prepare=no-such-program")
    assert missing.returncode == 3
    assert "project.prepare (no-such-program) c" in missing.stderr


def test_a_stubborn_preparation_is_killed_when_its_time_is_up(folder: Path) -> None:
    file = project(folder, replicas=1)
    ignores = "import os, signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\n"
    write(folder, prepare__py=ignores + "open('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    with Up(file, "--set", "project.prepare=python prepare.py") as running:
        wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "it prepares")
        preparing = int((folder / "pid").read_text())
        running.process.send_signal(signal.SIGINT)
        assert running.wait_ended(20) == 0
        assert has_ended(preparing)


def test_the_state_folder_removed_while_it_runs(folder: Path) -> None:
    with Up(project(folder, replicas=1)) as running:
        running.wait_open()
        everything = family(running)
        running.project.layout.control_socket.unlink()
        assert running.wait_ended() == 0
        assert "the state folder was removed" in running.said()
        wait_until(lambda: all(has_ended(p.pid) for p in everything), "no process is left", 5)


def test_detached(folder: Path) -> None:
    file = project(folder, replicas=1)
    started = escala("up", "-d", "--file", str(file))
    assert started.returncode == 0, started.stderr + started.stdout
    assert "is open at" in started.stdout
    pid = json.loads(escala("status", "--json", "--file", str(file)).stdout)["pid"]
    assert escala("down", "--file", str(file)).returncode == 0
    assert has_ended(pid)
    failed = escala("up", "-d", "--file", str(file), "--set", "engines.postgres.url=postgresql://x@127.0.0.1:1/x")
    assert failed.returncode == 3
    assert "postgres: does not answer at engines.postgres.url" in failed.stdout


def test_external_engines(folder: Path, engines: dict[str, str]) -> None:
    urls = {f"ESCALA_ENGINES__{name.upper()}__URL": url for name, url in engines.items()}
    with Up(project(folder, replicas=1), environ=urls) as running:
        running.wait_open()
        assert {p["service"] for p in running.status()["processes"]} == {
            "gateway",
            "access-log",
            "web",
            "plain",
            "platform",
        }
        assert not (running.project.layout.postgres).exists()
