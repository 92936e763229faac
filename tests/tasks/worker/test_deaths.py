"""Workers as processes of their own, which die of signals. Nothing is lost, and nothing is completed twice."""

import asyncio
import collections
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from escala import database
from escala.database import Database
from escala.database.migrate import migrate
from escala.engines import Engine, postgres_engine
from escala.errors import DatabaseUnavailable
from escala.project.layout import Layout
from escala.tasks import Task
from escala.tasks.store import workers
from tests.support import CHAOS, REPOSITORY, eventually, minimal_config, start_engine, stop_engine
from tests.tasks.worker import journaled

NODE = "here"


@dataclass
class Fleet:
    """Worker processes of one database."""

    url: str
    folder: Path
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    started: int = 0

    def start(self, concurrency: int = 20, stop_timeout: float = 10.0) -> "subprocess.Popen[bytes]":
        self.started += 1
        log = (self.folder / f"{self.started}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "escala.replica", "tasks", journaled.__name__),
                    *("--root", str(REPOSITORY), "--socket", str(self.folder / f"{self.started}.sock")),
                    *("--concurrency", str(concurrency), "--stop-timeout", str(stop_timeout)),
                ],
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    "JOURNAL": str(self.folder / "journal"),
                    "ESCALA_ENGINES__POSTGRES__URL": self.url,
                    "ESCALA_NODE": NODE,
                    "ESCALA_REPLICA": f"worker/{self.started}",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def log(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text()

    async def rescue(self, process: "subprocess.Popen[bytes]") -> workers.Rescued:
        """Do what the supervisor does when it sees a worker die."""
        connection = await asyncpg.connect(self.url)
        try:
            return await workers.rescue_dead(connection, NODE, process.pid)
        finally:
            await connection.close()

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def journal(self) -> list[tuple[str, str, int]]:
        """Return the notes: what happened, the job, the attempt."""
        notes = []
        for file in (self.folder / "journal").iterdir():
            for line in file.read_text().splitlines():
                what, job, attempt, _ = line.split()
                notes.append((what, job, int(attempt)))
        return notes


class Server:
    """PostgreSQL of one test alone, as it is stopped."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        engine.prepare()
        self._process = start_engine(engine)

    def restart(self, *, gently: bool) -> None:
        if gently:
            self.stop()
        else:
            self._process.send_signal(signal.SIGQUIT)  # an immediate shutdown, as after a crash
            self._process.wait()
        self._process = start_engine(self.engine)

    def stop(self) -> None:
        stop_engine(self.engine, self._process)


@pytest.fixture
def server(folder: Path, seed: Callable[[Path], Path]) -> Iterator[Server]:
    config = minimal_config()
    layout = Layout.of(config.project.state, config.project.name, seed(folder))
    made = Server(postgres_engine(config, layout))
    yield made
    made.stop()


@pytest.fixture
def fleet(empty_queue: str, tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / "journal").mkdir()
    made = Fleet(empty_queue, tmp_path)
    yield made
    made.end()


async def row(url_or_pool: Database, job: str) -> Any:
    async with url_or_pool.connection() as connection:
        return await connection.fetchrow(
            "select state, attempt, error, crashes from escala.job where id = $1 union all"
            " select state, attempt, error, crashes from escala.finished_job where id = $1",
            uuid.UUID(job),
        )


async def until(pool: Database, job: str, state: str) -> Any:
    async def look() -> Any:
        found = await row(pool, job)
        return found if found is not None and found["state"] == state else None

    return await eventually(look, f"the job is {state}", 60)


async def test_a_silent_zombie_is_refused(fleet: Fleet, connected: Database, tmp_path: Path) -> None:
    """It is stopped past its lease; another worker finishes its job; then it goes on."""
    zombie = fleet.start()
    job = await journaled.until_told.enqueue(file=str(tmp_path / "go"))
    await until(connected, job.id, "running")
    await _has_started(fleet, job.id, 1)
    zombie.send_signal(signal.SIGSTOP)
    fleet.start()
    await _has_started(fleet, job.id, 2)
    (tmp_path / "go").touch()
    record = await until(connected, job.id, "succeeded")
    assert record["attempt"] == 2
    zombie.send_signal(signal.SIGCONT)

    async def has_noticed() -> bool:
        return "the lease of this worker ended" in fleet.log(1)

    await eventually(has_noticed, "the zombie gives up")
    assert (await row(connected, job.id))["attempt"] == 2
    after = await journaled.work.enqueue(1)
    await until(connected, after.id, "succeeded")


async def _has_started(fleet: Fleet, job: str, attempt: int) -> None:
    async def look() -> bool:
        return ("start", job, attempt) in fleet.journal()

    await eventually(look, f"attempt {attempt} has begun", 60)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
async def test_a_worker_that_is_asked_to_stop_finishes_its_jobs(
    fleet: Fleet, connected: Database, tmp_path: Path, number: str
) -> None:
    worker = fleet.start(stop_timeout=30)
    job = await journaled.until_told.enqueue(file=str(tmp_path / "go"))
    await _has_started(fleet, job.id, 1)
    worker.send_signal(signal.Signals[number])

    async def drains() -> bool:
        return "waiting for 1 running jobs" in fleet.log(1)

    await eventually(drains, "it waits for the job")
    later = await journaled.work.enqueue(1)
    (tmp_path / "go").touch()
    assert (await until(connected, job.id, "succeeded"))["attempt"] == 1
    worker.wait(20)
    assert (await row(connected, later.id))["state"] == "waiting"


async def test_what_a_stopped_worker_cannot_finish_waits_again_at_once(
    fleet: Fleet, connected: Database, tmp_path: Path
) -> None:
    worker = fleet.start(stop_timeout=4.5)
    job = await journaled.until_told.enqueue(file=str(tmp_path / "go"))
    await _has_started(fleet, job.id, 1)
    worker.terminate()
    worker.wait(20)
    assert tuple(await row(connected, job.id)) == ("waiting", 1, None, 0)
    (tmp_path / "go").touch()
    fleet.start()
    assert (await until(connected, job.id, "succeeded"))["attempt"] == 2


@pytest.mark.parametrize("number", ["SIGKILL", "SIGQUIT"])
async def test_a_death_that_nobody_saw(fleet: Fleet, connected: Database, tmp_path: Path, number: str) -> None:
    """The lease ends, and another worker takes the job back."""
    worker = fleet.start()
    fleet.start()
    job = await journaled.until_told.enqueue(file=str(tmp_path / "go"))
    await _has_started(fleet, job.id, 1)
    async with connected.connection() as connection:
        pid = await connection.fetchval(
            "select pid from escala.worker join escala.job using (owner) where job.id = $1", uuid.UUID(job.id)
        )
    os.kill(pid, signal.Signals[number])
    del worker
    await _has_started(fleet, job.id, 2)
    (tmp_path / "go").touch()
    assert tuple(await until(connected, job.id, "succeeded"))[1] == 2


async def test_a_poison_pill_harms_no_neighbour(fleet: Fleet, connected: Database, tmp_path: Path) -> None:
    """It ends the worker, once. Then all that ran there run alone, and only the pill is set aside."""
    worker = fleet.start()
    neighbours = [await journaled.until_told.enqueue(file=str(tmp_path / "go")) for _ in range(3)]
    for job in neighbours:
        await _has_started(fleet, job.id, 1)
    pill = await journaled.toxic.enqueue(kind="exit")
    worker.wait(30)
    rescued = await fleet.rescue(worker)
    assert {str(job) for job in rescued.again} == {pill.id, *(job.id for job in neighbours)}
    (tmp_path / "go").touch()
    second = fleet.start()
    record = await until(connected, pill.id, "failed")
    assert "set aside: it ended 3 processes that ran nothing else" in record["error"]
    for job in neighbours:
        assert tuple(await until(connected, job.id, "succeeded"))[1:] == (
            2,
            "the worker process ended, or was cut off, during attempt 1",
            0,
        )
    assert second.poll() is None


@pytest.fixture
async def unsteady(server: Server) -> AsyncIterator[Database]:
    """The database of `server`, which `Task.enqueue` uses meanwhile."""
    connection = await asyncpg.connect(server.engine.url)
    await migrate(connection)
    await connection.close()
    pool = Database(server.engine.url)
    await pool.open()
    database.slot.fill(pool)
    yield pool
    database.slot.empty()
    await pool.close()


async def test_chaos(server: Server, unsteady: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs under random kills of workers and restarts of PostgreSQL, with toxic ones among them."""
    (tmp_path / "journal").mkdir()
    fleet = Fleet(server.engine.url, tmp_path)
    try:
        for _ in range(3):
            fleet.start()
        await _chaos(fleet, unsteady, server, 20_000 if CHAOS else 1_500, capsys)
    finally:
        fleet.end()


async def _chaos(fleet: Fleet, pool: Database, server: Server, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random()
    good: list[str] = []
    bad: list[str] = []
    events: collections.Counter[str] = collections.Counter()

    async def put(into: list[str], task: Task[..., Any], **arguments: Any) -> None:
        try:
            job = await task.enqueue(**arguments)
        except DatabaseUnavailable:  # whether that job exists is unknown
            events["refused enqueues"] += 1
        else:
            into.append(job.id)

    async def produce(share: int) -> None:
        while share > 0:
            some: list[Task[..., Any]] = [journaled.work, journaled.work_in_a_thread]
            await asyncio.gather(*(put(good, chance.choice(some), number=n) for n in range(20)))
            share -= 20
            await asyncio.sleep(0.5)

    producers = [asyncio.create_task(produce(count // 3)) for _ in range(3)]
    end = time.monotonic() + (600 if CHAOS else 150)
    kinds = ["exit", "leave", "raise", "sleep"]
    certain = [0.2, 0.05, 0.2, 0.12, 0.2, 0.05, 0.09, 0.12, 0.2]
    """The first throws: each event happens in a short run, too."""

    async def left() -> int:
        try:
            async with pool.connection() as connection:
                return int(await connection.fetchval("select count(*) from escala.job"))
        except (DatabaseUnavailable, asyncpg.PostgresError):
            return -1

    while time.monotonic() < end:
        is_producing = bool(certain) or not all(each.done() for each in producers)
        throw = certain.pop() if certain else chance.random()
        if is_producing and throw < 0.08:
            events["killed workers"] += 1
            victim = chance.choice([each for each in fleet.processes if each.poll() is None])
            victim.kill()
            victim.wait()
            fleet.start()
            if chance.random() < 0.5:  # a supervisor saw it
                with suppress(OSError, asyncpg.PostgresError):
                    await fleet.rescue(victim)
        elif is_producing and throw < 0.10:
            events["restarts of PostgreSQL"] += 1
            await asyncio.to_thread(server.restart, gently=chance.random() < 0.5)
        elif is_producing and throw < 0.15:
            events["toxic jobs"] += 1
            await put(bad, journaled.toxic, kind=chance.choice(kinds))
        elif not is_producing and await left() == 0:
            break
        for each in fleet.processes:
            if each.poll() is not None and each.returncode in (1, 75) and not getattr(each, "seen", False):
                each.seen = True  # type: ignore[attr-defined] # ended by a toxic job
                events["workers that a job ended"] += 1
                fleet.start()
                await fleet.rescue(each)
        await asyncio.sleep(0.25)
    assert await left() == 0, await _what_is_left(pool)
    await asyncio.gather(*producers)  # an enqueue that failed in another way than it says is told here

    async with pool.connection() as connection:
        rows = await connection.fetch("select id, task, state, attempt, error from escala.finished_job")
    records = {str(row["id"]): row for row in rows}
    starts = [(job, attempt) for what, job, attempt in fleet.journal() if what == "start"]
    ends = {(job, attempt) for what, job, attempt in fleet.journal() if what == "end"}
    latest: dict[str, int] = {}
    for job, attempt in starts:
        latest[job] = max(attempt, latest.get(job, 0))
    succeeded = {job: record for job, record in records.items() if record["state"] == "succeeded"}
    lost = [job for job in good if job not in records]
    unjust = [job for job in good if job in records and job not in succeeded]
    late = [job for job, record in succeeded.items() if record["attempt"] != latest[job]]
    unfounded = [job for job, record in succeeded.items() if (job, record["attempt"]) not in ends]
    twice = len(starts) - len(set(starts))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{len(good)} jobs, {len(starts)} attempts, {dict(events)}: {len(lost)} lost, {twice} begun twice,"
            f" {len(late)} completed by an attempt that was not the last, {len(unfounded)} without its end,"
            f" {len(unjust)} failed though nothing was wrong with them"
        )
    assert (lost, twice, late, unfounded, unjust) == ([], 0, [], [], [])
    assert all(records[job]["state"] == "failed" for job in bad), [records[job] for job in bad]
    assert events["killed workers"] > 0


async def _what_is_left(pool: Database) -> list[Any]:
    async with pool.connection() as connection:
        rows = await connection.fetch(
            "select state, alone, owner in (select owner from escala.worker) as held, count(*), min(started_at)::text,"
            " min(error) from escala.job group by 1, 2, 3"
        )
        return [tuple(row) for row in rows]
