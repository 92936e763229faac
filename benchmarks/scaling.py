"""Measure how throughput grows with replicas, how fast replicas join, and how load steps and rollouts affect clients.

    python -m benchmarks.scaling [--seconds 4] [--draw docs/scaling.svg]

The time that a replica needs to join is compared with a bare start: the same app under plain uvicorn, from exec to its
first answer. wrk generates the load. Replicas, gateway and wrk share the machine's processors.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil

from benchmarks.load import measure
from benchmarks.processes import escala_up, scratch_folder, token, wait_for_port
from benchmarks.usl import draw, fit
from escala.control.client import Client
from escala.control.messages import Roll, Scale
from escala.control.status import ServiceStatus, Status
from escala.errors import EscalaError
from escala.processes.ports import free_port
from escala.project.project import Project

REPOSITORY = Path(__file__).parents[1]
COUNTS = (1, 2, 4, 8, 16)
INFLIGHT = 10
DEADLINE = 120.0

PROJECT = """
[project]
name = "scaling"
state = "s"

[gateway]
bind = "127.0.0.1:{port}"

[services.waiting]
app = "benchmarks.scaling_app:app"
directory = "{root}"
balance = {{ inflight = {inflight}, queue = 10000, queue_timeout = "30s" }}
routes = ["/wait"]

[services.calculating]
app = "benchmarks.scaling_app:app"
directory = "{root}"
routes = ["/calculate"]

[services.joining]
app = "benchmarks.scaling_app:app"
directory = "{root}"
replicas = 2
routes = ["/name"]

[services.stepping]
app = "benchmarks.scaling_app:app"
directory = "{root}"
replicas = {{ min = 1, max = 8, target_inflight = 40, down_after = "10s" }}
balance = {{ inflight = 50, queue = 10000, queue_timeout = "30s" }}
routes = [{{ path = "/step", to = "/wait" }}]

[services.rolling]
app = "rolling:app"
replicas = 4
routes = ["/roll"]
"""

ROLLING = """
import os
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def roll(request):
    return Response("{version}")

app = Starlette(routes=[Route("/roll", roll)])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="duration of the load for each number of replicas")
    parser.add_argument("--draw", type=Path, help="write the fit of the Universal Scalability Law as SVG")
    options = parser.parse_args()
    with scratch_folder() as folder:
        (folder / "rolling.py").write_text(ROLLING.format(version="old"))
        file = folder / "escala.toml"
        file.write_text(PROJECT.format(port=free_port(), root=REPOSITORY, inflight=INFLIGHT))
        with escala_up(folder) as project:
            key = token(project)
            figures: dict[str, float] = {}
            figures.update(growth(project, key, options.seconds, options.draw))
            figures.update(calculation(project, key, options.seconds))
            figures.update(asyncio.run(joins(project, key)))
            figures.update(asyncio.run(step(project, key)))
            figures.update(asyncio.run(rollouts(project, key, folder)))
            figures.update(idle(project))
    print()
    print(json.dumps(figures))


def growth(project: Project, key: str, seconds: int, picture: Path | None) -> dict[str, float]:
    """Measure the throughput of a handler that waits, for each number of replicas."""
    url = f"{project.config.gateway.bind.url}/wait"
    print("\nreplicas  requests/s   linear   p99 ms  (each request waits 50 ms; 10 at a time per replica)")
    measured: dict[int, float] = {}
    for count in COUNTS:
        scale(project, "waiting", count)
        found = measure(url, key, os.getpid(), connections=int(count * INFLIGHT * 1.3), seconds=seconds)
        if found.failed:
            print(f"{found.failed} requests of the next line failed")
        measured[count] = found.rps
        print(f"{count:8} {found.rps:11.0f} {found.rps / count / measured[1]:8.3f} {found.p99_ms:8.1f}")
    law = fit(measured)
    print(f"Universal Scalability Law: {law}")
    if picture is not None:
        picture.write_text(draw(measured, law))
    scale(project, "waiting", 1)
    return {
        "io_efficiency_16": round(measured[16] / (16 * measured[1]), 3),
        "io_efficiency_16_of_limit": round(measured[16] / (16 * INFLIGHT / 0.05), 3),
    }


def calculation(project: Project, key: str, seconds: int) -> dict[str, float]:
    """Measure a handler that calculates, with one replica per processor. Return its share of the possible throughput.

    The possible throughput is that of as many plain processes that run the same calculation without a server.
    """
    processors = len(os.sched_getaffinity(0))
    code = (
        "import time; from benchmarks.scaling_app import ROUNDS\n"
        "def one():\n"
        "    total = 0\n"
        "    for number in range(ROUNDS): total += number * number % 7\n"
        f"end = time.perf_counter() + {seconds}; done = 0\n"
        "while time.perf_counter() < end: one(); done += 1\n"
        "print(done)"
    )
    ratios = []
    scale(project, "calculating", processors)
    for _ in range(3):
        bare = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True)
            for _ in range(processors)
        ]
        limit = sum(int(process.communicate()[0]) for process in bare) / seconds
        url = f"{project.config.gateway.bind.url}/calculate"
        found = measure(url, key, os.getpid(), connections=4 * processors, seconds=seconds)
        print(f"calculating on {processors} processors: {found.rps:.0f} a second, without any server {limit:.0f}")
        ratios.append(found.rps / limit)
    scale(project, "calculating", 1)
    return {"cpu_efficiency": round(statistics.median(ratios), 3)}


async def joins(project: Project, key: str, rounds: int = 5) -> dict[str, float]:
    """Measure the time from `scale` to the new replica's first answer, and compare it with the app's bare start."""
    url = f"{project.config.gateway.bind.url}/name"
    bare, joined = [], []
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http:
        for _ in range(rounds):
            bare.append(await asyncio.to_thread(bare_start))
            began = time.perf_counter()
            await asyncio.to_thread(Client(project).begin, Scale("joining", 3))
            while (await http.get(url)).text != "joining/3":
                pass
            joined.append(time.perf_counter() - began)
            await asyncio.to_thread(scale, project, "joining", 2)
    start, join = statistics.median(bare), statistics.median(joined)
    print(f"a replica answers {join * 1000:.0f} ms after `scale`; the app's bare start takes {start * 1000:.0f} ms")
    return {"join_ms": round(join * 1000), "join_overhead_ms": round((join - 1.2 * start) * 1000)}


def bare_start() -> float:
    port = free_port()
    command = ["-m", "uvicorn", "benchmarks.scaling_app:app", "--port", str(port), "--log-level", "error"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        httpx.get(f"http://127.0.0.1:{port}/name")
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(10)


class Clients:
    """A number of clients. Each sends its next request as soon as the previous one is answered."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = url, {"Authorization": f"Bearer {key}"}
        self.statuses: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self.times: list[tuple[float, float]] = []
        """For each answer, when it arrived and how many seconds it took."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, count: int) -> None:
        self._tasks += [asyncio.create_task(self._ask()) for _ in range(count)]

    async def stop(self, count: int | None = None) -> None:
        ending, self._tasks = (self._tasks[:count], self._tasks[count:]) if count else (self._tasks, [])
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _ask(self) -> None:
        async with httpx.AsyncClient(headers=self._headers, timeout=60) as http:
            while True:
                began = time.perf_counter()
                try:
                    answer = await http.get(self._url)
                except httpx.TransportError as error:
                    self.statuses[type(error).__name__] += 1
                    continue
                self.statuses[str(answer.status_code)] += 1
                self.bodies[answer.text] += 1
                self.times.append((time.perf_counter(), time.perf_counter() - began))

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "200")


@contextlib.asynccontextmanager
async def clients(url: str, key: str, count: int) -> AsyncIterator[Clients]:
    made = Clients(url, key)
    made.start(count)
    yield made
    await made.stop()


async def step(project: Project, key: str) -> dict[str, float]:
    """Measure a step from 10 to 400 concurrent requests, and back."""
    async with clients(f"{project.config.gateway.bind.url}/step", key, 10) as asking:
        await asyncio.sleep(5)
        before = p99(asking, 0)
        changes: list[int] = []
        began = time.perf_counter()
        asking.start(390)
        recovered = None
        quiet = 0
        while time.perf_counter() - began < 60:
            await asyncio.sleep(0.2)
            found = service(await asyncio.to_thread(status, project), "stepping")
            note(changes, found.replicas)
            quiet = quiet + 1 if not found.queued else 0
            if quiet >= 5 and found.replicas == 8:
                recovered = time.perf_counter() - began - 1.0
                break
        await asyncio.sleep(3)
        after = p99(asking, time.perf_counter() - 2)
        await asking.stop(390)
        left = time.perf_counter()
        while time.perf_counter() - left < 60:
            await asyncio.sleep(0.2)
            found = service(await asyncio.to_thread(status, project), "stepping")
            note(changes, found.replicas)
            if found.replicas == 1:
                break
        failed = asking.failed
    print(
        f"step 10 → 400: the queue is empty after {recovered if recovered is None else round(recovered, 1)} s, replicas"
        f" {' → '.join(map(str, changes))}, p99 {before * 1000:.0f} ms before, {after * 1000:.0f} ms after,"
        f" {sum(asking.statuses.values())} requests, {failed} failed"
    )
    flaps = sum(
        (changes[i] - changes[i - 1] > 0) != (changes[i + 1] - changes[i] > 0) for i in range(1, len(changes) - 1)
    )
    return {
        "step_failed": failed,
        "step_recovery_s": round(recovered, 1) if recovered is not None else -1,
        "step_turns": flaps,
        "step_end": changes[-1],
    }


async def rollouts(project: Project, key: str, folder: Path) -> dict[str, float]:
    """Measure two rolling restarts of four replicas under load: to a good version, then to a broken one."""
    async with clients(f"{project.config.gateway.bind.url}/roll", key, 8) as asking:
        await asyncio.sleep(1)
        (folder / "rolling.py").write_text(ROLLING.format(version="new"))
        began = time.perf_counter()
        await roll(project)
        print(f"rolling restart of 4 replicas: {time.perf_counter() - began:.1f} s, {dict(asking.statuses)}")
        rolling = asking.failed
        (folder / "rolling.py").write_text("raise SystemExit('broken')")
        await roll(project)
        asking.bodies.clear()
        await asyncio.sleep(1)
        broken = asking.failed - rolling
        print(f"rollout of a broken version: {service(status(project), 'rolling').rollout}; {dict(asking.bodies)}")
        if set(asking.bodies) != {"new"}:
            broken = -1
    return {"rolling_failed": rolling, "broken_rollout_failed": broken}


async def roll(project: Project) -> None:
    client = Client(project)
    with contextlib.suppress(EscalaError):  # the rollout of the broken version fails
        await asyncio.to_thread(lambda: client.follow(client.begin(Roll(["rolling"])), DEADLINE))


def idle(project: Project, seconds: float = 20.0) -> dict[str, float]:
    """Measure the supervisor's processor time and memory with twenty idle replicas."""
    others = sum(p.replica != "" for p in status(project).processes) - 1
    scale(project, "waiting", 20 - others)
    pid = status(project).pid
    supervisor = psutil.Process(pid)
    time.sleep(2)
    before = supervisor.cpu_times()
    time.sleep(seconds)
    after = supervisor.cpu_times()
    used = (after.user + after.system - before.user - before.system) / seconds * 100
    memory = supervisor.memory_full_info().pss / 1024**2
    print(f"supervisor with 20 replicas, idle: {used:.2f} % of a processor, {memory:.1f} MiB")
    return {"supervisor_cpu_percent": round(used, 2), "supervisor_rss_mb": round(memory, 1)}


def p99(asking: Clients, since: float) -> float:
    taken = sorted(seconds for at, seconds in asking.times if at >= since)
    return taken[int(len(taken) * 0.99)] if taken else 0.0


def note(changes: list[int], count: int) -> None:
    if not changes or changes[-1] != count:
        changes.append(count)


def status(project: Project) -> Status:
    return Client(project).status()


def service(found: Status, name: str) -> ServiceStatus:
    return next(each for each in found.services if each.name == name)


def scale(project: Project, name: str, count: int) -> None:
    """Scale a service and wait until it has `count` replicas."""
    client = Client(project)
    client.follow(client.begin(Scale(name, count)), DEADLINE)


if __name__ == "__main__":
    main()
