"""Measure background jobs against the job queues that Python has.

Each contestant enqueues 20,000 jobs that do nothing but return a number, and empties the queue with one worker process
and with two; results are kept. All use the same PostgreSQL or the same Valkey, over Unix sockets. `pip install -e
'.[bench]'` installs the peers.

    python -m benchmarks.jobs [--jobs 20000] [--rounds 3] [--only NAME ...] [--no-burden]
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import uvloop

from benchmarks import jobs_tasks
from benchmarks.jobs_peers import PEERS, REPOSITORY, Peer, PostgresPeer, engines, spread, ticks, timed, wait_for, work
from benchmarks.processes import scratch_folder
from escala import database
from escala.database import Database
from escala.database.migrate import migrate

CALLS = 2000
CALLERS = 50
LAGS_PER_SECOND = 100
IDLE_SECONDS = 10
FINISHED, FOREIGN, WAITING = 1_000_000, 1_000_000, 100_000
CONCURRENCY = 100


class Escala(PostgresPeer):
    name = "escala"
    _count = "select count(*) from escala.finished_job where queue = 'bench'"

    def prepare(self) -> None:
        self._runner.run(self._prepare())

    async def _prepare(self) -> None:
        connection = await asyncpg.connect(self.url)
        await migrate(connection)
        await connection.execute("truncate escala.job, escala.worker; truncate escala.finished_job cascade")
        await connection.close()

    async def enqueue_one_by_one(self, count: int) -> float:
        return await self.enqueue_concurrently(count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        async with self._connected():
            return await spread(jobs_tasks.noop.enqueue, count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        async with self._connected():
            return await timed(jobs_tasks.noop.enqueue_many([{"number": number} for number in range(count)]))

    async def _send_lags(self, due: Iterable[float]) -> None:
        async with self._connected():
            async for sent in ticks(due):
                await jobs_tasks.lag.enqueue(sent)

    def _commands(self, processes: int) -> list[list[str]]:
        made = []
        for number in range(processes):
            socket = self._folder / f"{number}.sock"
            socket.unlink(missing_ok=True)
            options = ["--root", str(REPOSITORY), "--socket", str(socket), "--concurrency", str(CONCURRENCY)]
            made.append(["escala.replica", "tasks", jobs_tasks.__name__, *options])
        return made

    def _settings(self) -> dict[str, str]:
        return {"ESCALA_ENGINES__POSTGRES__URL": self.url}

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        pool = Database(self.url)
        await pool.open()
        database.slot.fill(pool)
        try:
            yield
        finally:
            database.slot.empty()
            await pool.close()


class EscalaAsynchronous(Escala):
    """Without waiting for the disk at a commit, as the peers on Valkey do."""

    name = "escala, async commit"

    def __init__(self, postgres: str, valkey_url: str, folder: Path) -> None:
        super().__init__(postgres, valkey_url, folder)
        self.url = f"{postgres}&synchronous_commit=off"


CONTESTANTS: tuple[type[Peer], ...] = (Escala, EscalaAsynchronous, *PEERS)
REPEATED = ("escala", "escala, async commit", "pgqueuer", "taskiq list", "taskiq stream")
"""The contestants that the bars name: these run in each round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000, help="number of jobs")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the contestants that the bars name")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="run only these contestants")
    parser.add_argument("--no-burden", action="store_true", help="leave out the millions of other jobs")
    options = parser.parse_args()
    chosen = [each for each in CONTESTANTS if not options.only or each.name in options.only]
    found: dict[str, list[dict[str, float]]] = {each.name: [] for each in chosen}
    burden: list[tuple[float, float]] = []
    with scratch_folder() as folder, engines(folder) as (postgres, valkey_url):
        for number in range(options.rounds):
            for kind in chosen:
                if number == 0 or kind.name in REPEATED:
                    found[kind.name].append(measure(kind(postgres, valkey_url, folder), options.jobs))
                    print(f"round {number + 1}: {kind.name}", flush=True)
        if not options.no_burden:
            burden = [burdened(Escala(postgres, valkey_url, folder), options.jobs) for _ in range(options.rounds)]
    middle = {
        name: {key: statistics.median(each[key] for each in rows) for key in rows[0]} for name, rows in found.items()
    }
    show(middle)
    figures: dict[str, Any] = {"jobs": options.jobs, "rounds": options.rounds, "contestants": middle}
    figures["ratios"] = ratios(found)
    if burden:
        shares = [heavy / clean for clean, heavy in burden]
        print(f"\nwith a burden, the queue is emptied at {statistics.median(shares):.0%} of the clean rate: {burden}")
        figures["burden"] = {"share": round(statistics.median(shares), 3), "rates": burden}
    print(json.dumps(figures))


def measure(peer: Peer, jobs: int) -> dict[str, float]:
    """Return the figures of one contestant, by name."""
    peer.prepare()
    row = {"one by one /s": CALLS / uvloop.run(peer.enqueue_one_by_one(CALLS))}
    peer.prepare()
    row["50 callers /s"] = CALLS / (uvloop.run(peer.enqueue_concurrently(CALLS, CALLERS)) or float("nan"))
    for processes in (1, 2):
        peer.prepare()
        seconds = uvloop.run(peer.enqueue_bulk(jobs))
        if processes == 1:
            row["bulk /s"] = jobs / seconds
        started = peer.start_workers(processes)
        try:
            row[f"drain {processes} /s"] = work(peer, jobs)
            if processes == 1:
                row["CPU us/job"] = _cpu(started) / jobs * 1e6
                lags = [lag * 1000 for lag in peer.latency_jobs(LAGS_PER_SECOND, 3)]
                row["lag p50 ms"] = statistics.median(lags)
                row["lag p99 ms"] = statistics.quantiles(lags, n=100)[98]
                wait_for(peer, jobs + len(lags))
                before = _cpu(started)
                time.sleep(IDLE_SECONDS)  # it is what is measured
                row["idle CPU %"] = (_cpu(started) - before) / IDLE_SECONDS * 100
        finally:
            peer.stop()
    return row


def _cpu(processes: "list[subprocess.Popen[bytes]]") -> float:
    """Return the seconds of processor time that worker processes and their children have used."""
    seconds = 0.0
    for process in processes:
        family = psutil.Process(process.pid)
        for each in (family, *family.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = each.cpu_times()
                seconds += times.user + times.system
    return seconds


def burdened(peer: Escala, jobs: int) -> tuple[float, float]:
    """Return the rates of a clean queue, and of one behind millions of jobs with a reader that holds a transaction."""
    peer.prepare()
    uvloop.run(peer.enqueue_bulk(jobs))
    clean = _drained(peer, jobs, lambda: peer.finished())
    peer.prepare()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reader = runner.run(_burden(peer.url))
        uvloop.run(peer.enqueue_bulk(WAITING))
        try:
            heavy = _drained(peer, jobs, lambda: peer.finished() - FINISHED)
        finally:
            runner.run(_release(reader))
    peer.prepare()
    return clean, heavy


def _drained(peer: Escala, jobs: int, finished: Callable[[], int]) -> float:
    """Return the rate at which one worker process finishes so many jobs, after the first ones."""
    peer.start_workers(1)
    try:
        end = time.monotonic() + 120
        while (first := finished()) == 0:
            if time.monotonic() > end:
                raise SystemExit("no job is finished")
            time.sleep(0.01)
        began = time.monotonic()
        while (last := finished()) < jobs:
            if time.monotonic() > end:
                raise SystemExit(f"{last} of {jobs} jobs are finished")
            time.sleep(0.01)
        return (last - first) / (time.monotonic() - began)
    finally:
        peer.stop()


async def _burden(url: str) -> "asyncpg.Connection[Any]":
    """Add a million finished jobs and a million of another queue, and hold a transaction open for a minute."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        f"""
        insert into escala.finished_job (id, task, queue, arguments, state, attempt, message, enqueued_at)
        select gen_random_uuid(), 'other', 'bench', '{{}}', 'succeeded', 1, '', now()
        from generate_series(1, {FINISHED});
        insert into escala.job (task, queue, arguments, retries)
        select 'other', 'foreign', '{{}}', 3 from generate_series(1, {FOREIGN});
        """
    )
    await connection.execute("analyze escala.job; analyze escala.finished_job")
    await connection.execute("begin isolation level repeatable read; select count(*) from escala.worker")
    await connection.execute("set statement_timeout = 0")
    return connection


async def _release(connection: "asyncpg.Connection[Any]") -> None:
    await connection.execute("rollback")
    await connection.close()


def ratios(found: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return the ratios that the bars name: the median over the rounds of what was measured beside each other."""
    made: dict[str, float] = {}
    for peer in ("pgqueuer", "taskiq list", "taskiq stream"):
        if peer in found and "escala" in found:
            for name in ("drain 1 /s", "drain 2 /s", "bulk /s"):
                pairs = zip(found["escala"], found[peer], strict=True)
                made[f"{name} over {peer}"] = round(
                    statistics.median(ours[name] / theirs[name] for ours, theirs in pairs), 2
                )
    return made


def show(rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    print(f"\n{'':<22}" + "".join(f"{name:>15}" for name in names))
    for contestant, row in rows.items():
        print(f"{contestant:<22}" + "".join(f"{row[name]:>15,.{1 if row[name] < 100 else 0}f}" for name in names))


if __name__ == "__main__":
    main()
