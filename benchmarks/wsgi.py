"""Compare a Flask app in Escala's replica and in other WSGI servers: throughput, memory, start time.

Each server is one process with ten threads. The servers are measured in turn, without the gateway, by wrk with 64
keep-alive connections. Memory is the proportional set size of the process and its children after the load. The start
time is the time until the first answer. Servers that are not installed are skipped (pip install gunicorn waitress
granian).

    python -m benchmarks.wsgi [--rounds 3] [--seconds 4]
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.load import measure
from benchmarks.processes import running
from escala.processes.ports import free_port

APP = "benchmarks.wsgi_app:app"
THREADS = 10
PATHS = ("/small", "/stream")


@dataclass(frozen=True)
class Server:
    name: str
    package: str
    command: Callable[[int], list[str]]


def _python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


SERVERS = (
    Server(
        "escala",
        "escala",
        lambda port: _python(
            *("-P", "-m", "escala.replica", "app", APP), *("--root", ".", "--port", port, "--threads", THREADS)
        ),
    ),
    Server(
        "gunicorn",
        "gunicorn",
        lambda port: _python(
            *("-m", "gunicorn", "-k", "gthread", "--threads", THREADS, "--keep-alive", 75, "--log-level", "critical"),
            *("--bind", f"127.0.0.1:{port}", APP),
        ),
    ),
    Server(
        "waitress",
        "waitress",
        lambda port: _python("-m", "waitress", f"--threads={THREADS}", f"--listen=127.0.0.1:{port}", APP),
    ),
    Server(
        "granian",
        "granian",
        lambda port: _python(
            *("-m", "granian", "--interface", "wsgi", "--blocking-threads", THREADS, "--no-log", "--port", port, APP)
        ),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of load in each round")
    options = parser.parse_args()
    servers = [each for each in SERVERS if importlib.util.find_spec(each.package)]
    figures: dict[str, dict[str, list[float]]] = {each.name: {} for each in servers}
    for _ in range(options.rounds):
        for each in servers:
            for key, value in _measure(each, options.seconds).items():
                figures[each.name].setdefault(key, []).append(value)
    medians = {name: {key: statistics.median(values) for key, values in of.items()} for name, of in figures.items()}
    print(f"\n{options.rounds} rounds of {options.seconds} s, in turn, 64 connections, {THREADS} threads\n")
    print(f"{'':10} {'small/s':>9} {'stream/s':>9} {'failed':>7} {'MB':>6} {'start s':>8}")
    for name, of in medians.items():
        rates = " ".join(f"{of[path]:9.0f}" for path in PATHS)
        print(f"{name:10} {rates} {of['failed']:7.0f} {of['memory']:6.1f} {of['start']:8.2f}")
    own = medians["escala"]
    result = {
        f"{path.strip('/')}_vs_{name}": round(own[path] / of[path], 3)
        for name, of in medians.items()
        if name != "escala"
        for path in PATHS
    }
    print()
    print(json.dumps({**result, "memory_mb": {name: round(of["memory"], 1) for name, of in medians.items()}}))


def _measure(server: Server, seconds: int) -> dict[str, float]:
    port = free_port()
    began = time.monotonic()
    with running(server.command(port), port) as pid:
        httpx.get(f"http://127.0.0.1:{port}/small").raise_for_status()
        found = {"start": time.monotonic() - began, "failed": 0.0}
        for path in PATHS:
            load = measure(f"http://127.0.0.1:{port}{path}", "none", pid, seconds=seconds)
            found[path] = load.rps
            found["failed"] += load.failed
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        found["memory"] = sum(member.memory_full_info().pss for member in family) / 1e6
    return found


if __name__ == "__main__":
    main()
