"""Measure what clients notice while the gateway and its replicas change, and how evenly the replicas are loaded.

Eight clients send requests through the gateway without pause, each on its own keep-alive connection. Meanwhile replicas
are killed; the service is scaled from 2 to 8 and back, with long requests in flight; the gateway is reloaded twenty
times; its certificate is changed; and its worker process is killed. A request counts as failed if it gets no answer, or
one that is not 200.

    python -m benchmarks.failover [--kills 5] [--reloads 20] [--long 20]
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.processes import escala_up, scratch_folder, token
from escala.control.client import Client
from escala.control.status import Status
from escala.gateway.haproxy.self_signed import self_signed
from escala.processes.ports import free_port
from escala.project.project import Project

CLIENTS = 8
EVEN_REQUESTS = 20_000
DEADLINE = 90.0
REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="how many times a replica is killed")
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--long", type=float, default=20.0, help="seconds that each long request takes")
    options = parser.parse_args()
    with scratch_folder() as folder:
        (folder / "certs").mkdir()
        (folder / "certs" / "a.pem").write_text(self_signed(["localhost", "127.0.0.1"], 1))
        (folder / "escala.toml").write_text(f"""
[project]
name = "failover"
state = "s"

[gateway]
bind = "127.0.0.1:{free_port()}"
tls = {{ certificates = "certs" }}

[services.web]
app = "benchmarks.failover_app:app"
replicas = 2
environment = {{ PYTHONPATH = "{REPOSITORY}" }}
routes = ["/quick", "/long"]
""")
        with escala_up(folder) as project:
            figures = asyncio.run(measure(project, options))
        print()
        print(json.dumps(figures))


class Load:
    """Sends requests without pause, and counts them by outcome."""

    def __init__(self, project: Project, key: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.replicas: Counter[str] = Counter()
        self._url = f"https://127.0.0.1:{project.config.gateway.bind.port}"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._go_on = True
        self.last_failure = 0.0

    async def ask(self, path: str, times: int | None = None) -> None:
        """Send requests until `end` is called, or `times` requests have been sent."""
        asked = 0
        async with self.client() as http:
            while self._go_on and asked != times:
                asked += 1
                await self.once(http, path)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, headers=self._headers, verify=False, timeout=120)

    async def once(self, http: httpx.AsyncClient, path: str) -> None:
        try:
            answer = await http.get(path)
        except httpx.TransportError as error:
            self.outcomes[type(error).__name__] += 1
            self.last_failure = time.monotonic()
            return
        self.outcomes[str(answer.status_code)] += 1
        if answer.status_code == 200:
            self.replicas[answer.text] += 1
        else:
            self.last_failure = time.monotonic()

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["200"]

    def end(self) -> None:
        self._go_on = False

    async def more(self, count: int = 100) -> None:
        """Wait for `count` more answers with status 200."""
        wanted = self.outcomes["200"] + count
        async with asyncio.timeout(DEADLINE):
            while self.outcomes["200"] < wanted:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def under_load(project: Project, key: str, what: str) -> AsyncIterator[Load]:
    """Send requests during the block, then print the outcomes."""
    load = Load(project, key)
    asking = [asyncio.create_task(load.ask("/quick")) for _ in range(CLIENTS)]
    await load.more()
    began = time.monotonic()
    yield load
    await load.more()
    load.end()
    await asyncio.gather(*asking)
    bad = {outcome: count for outcome, count in load.outcomes.items() if outcome != "200"}
    seconds = time.monotonic() - began
    print(f"{what:<34} {load.outcomes.total():7} requests in {seconds:5.1f} s, failed {load.failed} {bad or ''}")


async def measure(project: Project, options: argparse.Namespace) -> dict[str, float | int]:
    key = token(project)
    figures: dict[str, float | int] = {}

    async with under_load(project, key, f"{options.kills} replicas killed") as load:
        for _ in range(options.kills):
            victim = next(p for p in (await status(project)).processes if p.service == "web" and p.state == "serving")
            assert victim.pid is not None
            psutil.Process(victim.pid).kill()
            await replicas(project, 2, other_than=victim.pid)
            await load.more()
    figures["failed_kill_replica"] = load.failed

    long = Load(project, key)
    async with under_load(project, key, "scaled 2 → 8 → 2") as load:
        in_flight = [asyncio.create_task(long.ask(f"/long?seconds={options.long}", 1)) for _ in range(16)]
        await escala(project, "scale", "web=8", "--no-wait")
        await replicas(project, 8)
        in_flight += [asyncio.create_task(long.ask(f"/long?seconds={options.long}", 1)) for _ in range(32)]
        await load.more()
        await escala(project, "scale", "web=2", "--no-wait")
        await asyncio.gather(*in_flight)
        await replicas(project, 2)
    print(f"{'':<34} {long.outcomes.total():7} of them of {options.long:g} s, failed {long.failed}")
    figures["failed_scale"] = load.failed + long.failed

    async with under_load(project, key, f"{options.reloads} reloads") as load:
        for number in range(options.reloads):
            text = project.file.read_text()
            present = f'"/long{number - 1}"' if number else '"/long"'
            project.file.write_text(text.replace(present, f'"/long{number}"'))
            await escala(project, "apply")
            await load.more(20)
    figures["failed_reload"] = load.failed

    async with under_load(project, key, "the certificate changed") as load:
        events = Client(project).events()
        await asyncio.to_thread(next, events)  # subscribed
        (project.root / "certs" / "a.pem").write_text(self_signed(["localhost", "127.0.0.1"], 2))
        await asyncio.to_thread(wait_for, "Reloaded", events)
    figures["failed_certificate"] = load.failed

    async with under_load(project, key, "the gateway's worker killed") as load:
        master = next(p.pid for p in (await status(project)).processes if p.service == "gateway")
        killed = time.monotonic()
        psutil.Process(master).children()[0].kill()
        async with asyncio.timeout(DEADLINE):
            while not load.failed:
                await asyncio.sleep(0.001)
        good = load.outcomes["200"]
        async with asyncio.timeout(DEADLINE):
            while load.outcomes["200"] == good:
                await asyncio.sleep(0.001)
        figures["recovery_kill_worker_s"] = round(time.monotonic() - killed, 2)
        await load.more()
    print(f"{'':<34} {CLIENTS} clients; the next answer came after {figures['recovery_kill_worker_s']} s")
    figures["failed_kill_worker"] = max(0, load.failed - CLIENTS)
    figures["in_flight_kill_worker"] = load.failed

    await escala(project, "scale", "web=8")
    even = Load(project, key)
    await asyncio.gather(*(even.ask("/quick", EVEN_REQUESTS // 32) for _ in range(32)))
    counts = even.replicas.values()
    figures["busiest_vs_idlest"] = round(max(counts) / min(counts), 3)
    print(f"{EVEN_REQUESTS} requests on 8 replicas: {sorted(counts)}, {even.failed} failed")
    return figures


def wait_for(name: str, events: Iterator[dict[str, Any]]) -> None:
    deadline = time.monotonic() + DEADLINE
    for event in events:
        if event.get("event") == name:
            return
        if time.monotonic() > deadline:
            break
    raise SystemExit(f"no event {name} within {DEADLINE} s")


async def status(project: Project) -> Status:
    return await asyncio.to_thread(Client(project).status)


async def replicas(project: Project, count: int, other_than: int = 0) -> None:
    """Wait until exactly `count` replicas are running, all of them ready, and none has the pid `other_than`."""
    async with asyncio.timeout(DEADLINE):
        while True:
            mine = [p for p in (await status(project)).processes if p.service == "web"]
            if len(mine) == count and all(p.state == "serving" and p.pid != other_than for p in mine):
                return
            await asyncio.sleep(0.05)


async def escala(project: Project, *words: str) -> None:
    command = [sys.executable, "-m", "escala", words[0], "--file", str(project.file), *words[1:]]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")


if __name__ == "__main__":
    main()
