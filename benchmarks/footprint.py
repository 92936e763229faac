"""Measure how fast the laboratory starts, and how much memory it uses while idle.

The first start creates the database and loads 336,776 flights. Later starts find the database in place. The start time
is measured from the command to the gateway's first answer. Memory is the sum of the proportional set sizes (PSS) of all
processes. It is measured after a few idle seconds, and again after a short load has warmed the processes up.

    python -m benchmarks.footprint [--rounds 5]
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

from benchmarks.processes import scratch_folder
from escala.cli.commands.demo import laboratory
from escala.cli.support.tables import total_memory
from escala.config import FILE
from escala.control.client import Client
from escala.control.status import Status
from escala.processes.ports import free_port
from escala.project.project import Project

IDLE_SECONDS = 3.0
WARM_REQUESTS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of warm starts")
    rounds = parser.parse_args().rounds
    with scratch_folder() as folder:
        measure(folder, rounds)


def measure(folder: Path, rounds: int) -> None:
    settings = [f"project.state={folder / 's'}", f"gateway.bind=127.0.0.1:{free_port()}"]
    project = Project.open(laboratory() / FILE, settings=settings)
    for name, service in project.config.services.items():
        settings.append(f"services.{name}.ports={[free_port() for _ in service.ports]}")
    project = Project.open(laboratory() / FILE, settings=settings)

    first, _ = start(project, settings)
    print(f"first start   {first:6.2f} s")
    warm, statuses = [], []
    for number in range(rounds):
        seconds, status = start(project, settings)
        warm.append(seconds)
        statuses.append(status)
        print(f"warm start {number + 1}  {seconds:6.2f} s")
    idle, loaded = statuses[-1]
    print("\nidle memory (PSS)")
    for process in sorted(idle.processes, key=lambda p: -(p.memory or 0)):
        print(f"  {process.service + '/' + process.replica:<18} {(process.memory or 0) / 1e6:7.1f} MB")
    print(f"  {'supervisor':<18} {(idle.memory or 0) / 1e6:7.1f} MB")
    figures = {
        "first_start_s": round(first, 2),
        "warm_start_s": round(statistics.median(warm), 2),
        "idle_memory_mb": round(total_memory(idle) / 1e6, 1),
        "warmed_memory_mb": round(total_memory(loaded) / 1e6, 1),
        "processes": len(idle.processes) + 1,
    }
    print()
    print(json.dumps(figures))


def start(project: Project, settings: list[str]) -> tuple[float, tuple[Status, Status]]:
    """Start the laboratory, wait for its first answer, measure its memory, stop it."""
    options = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "escala", "demo", "--no-output", *options]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = project.config.gateway.bind.url
        wait_for_answer(process, url)
        seconds = time.monotonic() - began
        time.sleep(IDLE_SECONDS)
        idle = Client(project).status()
        for _ in range(WARM_REQUESTS):
            httpx.get(f"{url}/.well-known/jwks.json")
        return seconds, (idle, Client(project).status())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_for_answer(process: "subprocess.Popen[bytes]", url: str) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/.well-known/jwks.json").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.01)
    raise SystemExit(f"the laboratory ended with exit code {process.returncode}")


if __name__ == "__main__":
    main()
