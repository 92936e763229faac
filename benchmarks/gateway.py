"""Compare the cost of a request in the gateway, with all features on, with bare proxies and with Envoy's JWT filter.

All proxies forward to the same two replicas (nginx, one process each, a JSON body of 100 bytes). Each has one thread
and gets 64 keep-alive connections. Escala has all features on: JWT RS256, revocation, scopes, rate limit, request id,
headers, access log, metrics. Bare HAProxy, nginx and Caddy do not verify tokens. "envoy all" adds scopes, rate limit
and log to "envoy jwt". Escala connects to the replicas over Unix sockets, the other proxies over TCP, as is usual.
"haproxy sockets" and "envoy sockets" are the same proxies over the Unix sockets that Escala uses. Proxies that are not
installed are skipped.

Processor time is that of the proxy's own processes. The collector of the access log is a separate process, and its time
is shown separately.

    python -m benchmarks.gateway [--rounds 5] [--seconds 4]
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.load import Measured, measure
from benchmarks.peers import PEERS, Upstreams
from benchmarks.processes import escala_up, processor_seconds, required, running, scratch_folder, token
from escala.config import Address, UnixSocket
from escala.control.client import Client
from escala.processes.ports import free_port
from escala.project.project import Project

BODY = json.dumps({"flights": [{"from": "JFK", "to": "LAX", "delay": 12}, {"from": "EWR", "to": "SFO"}], "n": 2})
SIZES = {"/files/1mb": 10**6, "/files/10mb": 10**7}
EVENTS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load in each round")
    options = parser.parse_args()
    with scratch_folder() as folder:
        compare(folder, options.rounds, options.seconds)


@dataclass(frozen=True)
class Contestant:
    name: str
    port: int
    pid: int


def compare(folder: Path, rounds: int, seconds: int) -> None:
    ports, stream = (free_port(), free_port()), free_port()
    write_project(folder, ports, stream)
    with contextlib.ExitStack() as stack:
        project = stack.enter_context(escala_up(folder))
        key = token(project)
        contestants = list(start_all(stack, folder, project, ports, stream))
        print(f"\n{rounds} rounds of {seconds} s, in turn, 64 connections\n")
        found: dict[str, list[Measured]] = {each.name: [] for each in contestants}
        collector = processor_seconds(pid_of(project, "access-log"))
        for _ in range(rounds):
            for each in contestants:
                found[each.name].append(measure(f"http://127.0.0.1:{each.port}/data", key, each.pid, seconds=seconds))
        collector = processor_seconds(pid_of(project, "access-log")) - collector
        figures = table(found)
        mine = sum(each.requests for each in found["escala"]) * (seconds + 1) / seconds  # includes the warm-up second
        figures["collector_us"] = round(collector / mine * 1e6, 1)
        figures["lost_lines"] = lost_lines(project)
        print(f"\nthe access log's collector, beside it: {figures['collector_us']} µs a request,", end=" ")
        print(f"{figures['lost_lines']} lines lost\n")
        pair = {each.name: each for each in contestants if each.name in {"escala", "bare haproxy"}}
        for path in (*SIZES, "/stream"):
            figures[f"time_{path.rpartition('/')[2]}_vs_bare_haproxy"] = round(streams(pair, path, key), 3)
    print()
    print(json.dumps(figures))


def lost_lines(project: Project) -> int:
    answer = httpx.get(f"{Client(project).status().metrics}/routes").text
    return int(answer.rpartition("escala_access_log_lost_total ")[2].split()[0])


def write_project(folder: Path, ports: tuple[int, int], stream: int) -> None:
    files = folder / "files"
    files.mkdir()
    for path, size in SIZES.items():
        (folder / path.lstrip("/")).write_bytes(bytes(size))
    for number, port in enumerate(ports, start=1):
        (folder / f"static.{number}.sock.conf").write_text(f"""
            daemon off; master_process off; pid {folder}/{number}.pid; error_log /dev/null;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 600;
              default_type application/json;
              server {{
                listen 127.0.0.1:{port} backlog=4096;
                listen unix:{folder}/s/run/static.{number}.sock backlog=4096;
                location / {{ return 200 '{BODY}'; }}
                location /files/ {{ root {folder}; }}
              }}
            }}""")
    (folder / "escala.toml").write_text(f"""
[project]
name = "bench"
state = "s"

[gateway]
bind = "127.0.0.1:{free_port()}"
threads = 1
rate_limits = [{{ requests = 1000000, burst = 1000000 }}]
balance = {{ inflight = 1000 }}

[services.static]
command = "sh -c 'exec {required("nginx")} -c {folder}/$(basename $SOCKET).conf'"
replicas = 2
routes = [{{ path = "/data", scopes = ["data"] }}, "/files"]

[services.stream]
command = "{sys.executable} -m benchmarks.gateway_stream $PORT"
environment = {{ PYTHONPATH = "{Path(__file__).parents[1]}" }}
ports = [{stream}]
routes = ["/stream"]
""")


def start_all(
    stack: contextlib.ExitStack, folder: Path, project: Project, ports: tuple[int, int], stream: int
) -> Iterator[Contestant]:
    yield Contestant("escala", project.config.gateway.bind.port, pid_of(project, "gateway"))
    jwks = project.layout.jwks.read_text()
    over_tcp: Upstreams = (Address("127.0.0.1", ports[0]), Address("127.0.0.1", ports[1]))
    sockets = [project.layout.replica_socket("static", number) for number in (1, 2)]
    over_sockets: Upstreams = (UnixSocket(str(sockets[0])), UnixSocket(str(sockets[1])))
    for peer in PEERS:
        binary = peer.find()
        if binary is None:
            print(f"{peer.name} is skipped: {peer.remedy}")
            continue
        port = free_port()
        file = folder / peer.file
        upstreams = over_sockets if peer.over_sockets else over_tcp
        file.write_text(peer.configuration(port, upstreams, stream, jwks, str(folder)))
        pid = stack.enter_context(running(peer.command(binary, file), port, **peer.environment))
        yield Contestant(peer.name, port, pid)


def pid_of(project: Project, name: str) -> int:
    return next(p.pid for p in Client(project).status().processes if p.service == name and p.pid)


def table(found: dict[str, list[Measured]]) -> dict[str, float | int]:
    """Print the results of each proxy; return the ratios of medians."""
    cpu = {name: statistics.median(m.cpu_us for m in rounds) for name, rounds in found.items()}
    rps = {name: statistics.median(m.rps for m in rounds) for name, rounds in found.items()}
    failed = {name: sum(m.failed for m in rounds) for name, rounds in found.items()}
    print(f"{'':<16} {'CPU µs':>8} {'(best)':>8} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'failed':>7}")
    for name, rounds in found.items():
        best = min(m.cpu_us for m in rounds)
        p50, p99 = (statistics.median(getattr(m, key) for m in rounds) for key in ("p50_ms", "p99_ms"))
        print(f"{name:<16} {cpu[name]:8.1f} {best:8.1f} {rps[name]:9.0f} {p50:8.2f} {p99:8.2f} {failed[name]:7}")
    mine = cpu.pop("escala")
    return {
        **{f"cpu_vs_{name.replace(' ', '_')}": round(mine / theirs, 3) for name, theirs in cpu.items()},
        "rps_vs_bare_haproxy": round(rps["escala"] / rps["bare haproxy"], 3),
        "cpu_us": round(mine, 1),
        "failed": failed["escala"],
    }


def streams(pair: dict[str, Contestant], path: str, key: str) -> float:
    """Fetch `path` through Escala and bare HAProxy in turn; return the median ratio of their times."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    rounds = 3 * 10**8 // SIZES[path] if path in SIZES else 15  # short transfers vary more: ten of 1 MB take 7 ms
    for _ in range(rounds):
        for name, each in pair.items():
            times[name].append(asyncio.run(fetch(each.port, path, key)))
    ratio = statistics.median(a / b for a, b in zip(times["escala"], times["bare haproxy"], strict=True))
    medians = ", ".join(f"{name} {statistics.median(values) * 1000:.1f} ms" for name, values in times.items())
    print(f"{path:<14} {medians}; {ratio:.3f}")
    return ratio


async def fetch(port: int, path: str, key: str) -> float:
    """Return the total seconds of ten consecutive requests, each read to its end. Exit if an answer is cut off."""
    seconds = 0.0
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        began = time.perf_counter()
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.read()
        seconds += time.perf_counter() - began
        writer.close()
        whole = answer.endswith(b"0\r\n\r\n") if path == "/stream" else len(answer) > SIZES[path]
        if not whole:
            raise SystemExit(f"{path} through {port} was cut off after {len(answer)} bytes")
    return seconds


if __name__ == "__main__":
    main()
