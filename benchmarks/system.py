"""Compare the laboratory's `/data` with the same service without Escala.

- Escala: the token is checked at the gateway and again in the replica; two replicas; rows come from the cache.
- Escala, whole answers: the same app with `Cache.response`, which keeps what FastAPI makes of the rows.
- By hand: nginx, two uvicorn workers, FastAPI, redis-py with hiredis, PyJWT, the same endpoint and SQL.
- Flask: the reference's form, a gateway and two microservices that talk with `requests`, under gunicorn with threads.

All use the same PostgreSQL and Valkey, and are measured in turn by wrk with 64 connections, warm. Processor time is
that of all processes of a system without the engines. `pip install -e '.[bench]'` and `apt-get install wrk nginx`.

    python -m benchmarks.system [--rounds 3] [--seconds 5]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.load import Measured, measure
from benchmarks.processes import escala_up, required, running, scratch_folder, token
from escala.control.client import Client
from escala.engines import postgres_engine, valkey_engine
from escala.processes.ports import free_port
from escala.project.project import Project

LABORATORY = Path(__file__).parents[1] / "examples" / "laboratorio"
QUERY = "/data?origin=JFK&month=1"
ANSWERS = "/answers?origin=JFK&month=1"
THREADS = 8

ANSWERS_APP = """
from laboratorio.caches import flights
from laboratorio.microservice import app
from starlette.middleware import Middleware

# The innermost middleware: it comes after the check of the token.
app.user_middleware.append(Middleware(flights.response(ttl="5m", paths=["/data"], tags=["flights"], shared=True)))
"""
ANSWERS_SERVICE = """
[services.answers]
app = "answers:app"
replicas = 2
routes = [{ path = "/answers", to = "/data" }]
"""


@dataclass(frozen=True)
class System:
    name: str
    url: str
    pids: Callable[[], list[int]]
    """The processes whose time counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each round")
    options = parser.parse_args()
    with scratch_folder() as folder, ExitStack() as stack:
        project = stack.enter_context(laboratory(folder))
        secret = token(project)
        systems = [
            System("escala", f"{project.config.gateway.url}{QUERY}", lambda: _own_pids(project, "microservice")),
            System("answers", f"{project.config.gateway.url}{ANSWERS}", lambda: _own_pids(project, "answers")),
            stack.enter_context(by_hand(project, folder)),
            stack.enter_context(flask(project)),
        ]
        for system in systems:
            answer = httpx.get(system.url, headers={"Authorization": f"Bearer {secret}"}, timeout=30)
            assert len(answer.raise_for_status().json()["flights"]) == 20, system.name
            assert httpx.get(system.url, headers={"Authorization": "Bearer x"}).status_code == 401, system.name
        found: dict[str, list[Measured]] = {system.name: [] for system in systems}
        for _ in range(options.rounds):
            for system in systems:
                found[system.name].append(_measured(system, secret, options.seconds))
    print(f"{options.rounds} rounds of {options.seconds} s, in turn, 64 connections\n")
    print(f"{'':10} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8} {'failed':>7}")
    for name, rounds in found.items():
        values = (
            statistics.median(getattr(each, what) for each in rounds) for what in ("rps", "p50_ms", "p99_ms", "cpu_us")
        )
        rps, p50, p99, cpu = values
        print(f"{name:10} {rps:11.0f} {p50:8.1f} {p99:8.1f} {cpu:8.0f} {sum(each.failed for each in rounds):7}")
    print()
    print(json.dumps(_figures(found)))


def _figures(found: dict[str, list[Measured]]) -> dict[str, float]:
    def ratio(peer: str, what: str) -> float:
        pairs = zip(found["escala"], found[peer], strict=True)
        return float(round(statistics.median(getattr(own, what) / getattr(other, what) for own, other in pairs), 2))

    return {
        "rps": round(statistics.median(each.rps for each in found["escala"])),
        "rps_vs_by_hand": ratio("by hand", "rps"),
        "answers_rps_vs_by_hand": round(
            statistics.median(a.rps / b.rps for a, b in zip(found["answers"], found["by hand"], strict=True)), 2
        ),
        "rps_vs_flask": ratio("flask", "rps"),
        "p99_vs_by_hand": ratio("by hand", "p99_ms"),
        "cpu_vs_by_hand": ratio("by hand", "cpu_us"),
        "failed": sum(each.failed for each in found["escala"]),
    }


def _measured(system: System, secret: str, seconds: int) -> Measured:
    pids = system.pids()
    before = _seconds_of(pids)
    load = measure(system.url, secret, pids[0], seconds=seconds)
    used = _seconds_of(pids) - before
    # `measure` warms up for a second first, whose work is in `used`, too.
    share = seconds / (seconds + 1)
    return Measured(
        load.requests, load.seconds, load.failed, load.p50_ms, load.p99_ms, used * share / load.requests * 1e6
    )


def _seconds_of(pids: list[int]) -> float:
    return float(sum(times.user + times.system for times in (psutil.Process(pid).cpu_times() for pid in pids)))


@contextmanager
def laboratory(folder: Path, service: str = ANSWERS_SERVICE, **modules: str) -> Iterator[Project]:
    """Run the laboratory, with two replicas, and with another service beside it, whose modules are given."""
    home = folder / "laboratorio"
    shutil.copytree(LABORATORY, home)
    for name, text in (modules or {"answers": ANSWERS_APP}).items():
        (home / f"{name}.py").write_text(text)
    with (home / "escala.toml").open("a") as file:
        file.write(service)
    settings = [f"project.state={folder / 's'}", f"gateway.bind=127.0.0.1:{free_port()}"]
    settings += ["services.microservice.replicas=2", "services.microservice.ports=[]"]
    settings += [f"services.{name}.ports=[]" for name in ("database", "analytics", "worker")]
    with escala_up(home, settings) as project:
        yield project


def _own_pids(project: Project, service: str) -> list[int]:
    status = Client(project).status()
    wanted = {"gateway", "haproxy", "access-log", service}
    pids = [each.pid for each in status.processes if each.service in wanted and each.pid]
    family = [child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)]
    return [*pids, *family, status.pid]


def _environment(project: Project) -> dict[str, str]:
    return {
        "POSTGRES": postgres_engine(project.config, project.layout).url,
        "REDIS": valkey_engine(project.config, project.layout).url,
        "JWKS": str(project.layout.jwks),
        "AUDIENCE": project.config.audience,
        "ISSUER": project.config.issuer,
        "PYTHONPATH": os.pathsep.join([str(LABORATORY), str(LABORATORY.parents[1])]),
    }


NGINX = """
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream app {{
        server 127.0.0.1:{upstream};
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""


@contextmanager
def by_hand(project: Project, folder: Path) -> Iterator[System]:
    port, upstream = free_port(), free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    command = [
        *(sys.executable, "-m", "uvicorn", "benchmarks.system_by_hand:app", "--workers", "2", "--port", str(upstream)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]
    with ExitStack() as stack:
        workers = stack.enter_context(running(command, upstream, **_environment(project)))
        nginx = stack.enter_context(running([required("nginx"), "-c", configuration, "-p", folder], port))
        yield System("by hand", f"http://127.0.0.1:{port}{QUERY}", lambda: _families(workers, nginx))


@contextmanager
def flask(project: Project) -> Iterator[System]:
    ports = [free_port(), free_port(), free_port()]
    upstreams = " ".join(f"http://127.0.0.1:{port}" for port in ports[1:])
    with ExitStack() as stack:
        pids = []
        for role, port in zip(("microservice", "microservice", "gateway"), (*ports[1:], ports[0]), strict=True):
            command = [
                *(sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", str(THREADS), "--log-level", "error"),
                *("--keep-alive", "75", "--bind", f"127.0.0.1:{port}", "benchmarks.system_flask:app"),
            ]
            environment = {**_environment(project), "ROLE": role, "UPSTREAMS": upstreams}
            pids.append(stack.enter_context(running(command, port, **environment)))
        yield System("flask", f"http://127.0.0.1:{ports[0]}{QUERY}", lambda: _families(*pids))


def _families(*pids: int) -> list[int]:
    return [*pids, *(child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True))]


if __name__ == "__main__":
    main()
