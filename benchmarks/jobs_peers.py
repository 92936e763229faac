"""The job queues that Escala's is compared with, tuned as their manuals say for many short jobs.

As a program, it runs all of them, as a check that they work:

    python -m benchmarks.jobs_peers [--jobs 2000] [--calls 2000] [--processes 1] [--callers 50] [NAME ...]
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Literal

import asyncpg
import psutil
import uvloop
import valkey

from benchmarks import jobs_peer_workers as workers
from benchmarks.processes import DEADLINE, scratch_folder
from escala.config import Config
from escala.engines import postgres_engine, valkey_engine
from escala.project.layout import Layout

REPOSITORY = Path(__file__).parents[1]
CONNECTIONS = 16
"""The most connections that an asynchronous client has, and its calls under way at once where it has no bulk call."""

Send = Callable[[int], Awaitable[object]]
SendPlain = Callable[[int], object]
Processes = list["subprocess.Popen[bytes]"]


class Peer(ABC):
    """A job queue with two kinds of jobs: "noop", with a number, and "lag", with the time when it was sent."""

    name: ClassVar[str]
    store: ClassVar[Literal["postgres", "valkey"]]

    def __init__(self, postgres: str, valkey_url: str, folder: Path) -> None:
        """`folder` is for what this peer writes; `valkey_url` is unix:///path or the path."""
        if valkey_url.startswith("/"):
            valkey_url = f"unix://{valkey_url}"
        self.url = postgres if self.store == "postgres" else valkey_url
        self._folder = folder / self.name.replace(" ", "-")
        self._latencies = self._folder / "latencies"
        self._latencies.mkdir(parents=True, exist_ok=True)
        self._processes: Processes = []
        self._environment = {workers.URL: self.url, workers.LATENCIES: str(self._latencies)}

    @abstractmethod
    def prepare(self) -> None:
        """Make its queue, and empty it. No worker may run meanwhile."""

    @abstractmethod
    async def enqueue_one_by_one(self, count: int) -> float:
        """Return the seconds for `count` calls, one after another."""

    @abstractmethod
    async def enqueue_concurrently(self, count: int, callers: int) -> float | None:
        """Return the seconds for `count` calls by so many tasks or threads."""

    @abstractmethod
    async def enqueue_bulk(self, count: int) -> float:
        """Return the seconds for `count` jobs by the fastest way that the library has."""

    @abstractmethod
    def finished(self) -> int:
        """Return the number of finished jobs that the store knows of. It costs little, so that it can be polled."""

    @abstractmethod
    async def _send_lags(self, due: Iterable[float]) -> None:
        """Send a "lag" at each of these times of `time.monotonic`."""

    @abstractmethod
    def _commands(self, processes: int) -> list[list[str]]:
        """Return the commands of so many worker processes."""

    def start_workers(self, processes: int) -> Processes:
        """Start workers. What they print is in the peer's folder."""
        environment = {**os.environ, **self._environment, **self._settings()}
        for command in self._commands(processes):
            with (self._folder / "workers.txt").open("ab") as output:
                started = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    cwd=REPOSITORY,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self._processes.append(started)
        return list(self._processes)

    def _settings(self) -> dict[str, str]:
        """Return the environment that its workers need besides."""
        return {}

    def latency_jobs(self, rate: float, seconds: float) -> list[float]:
        """Send jobs at this rate to the running workers; return the seconds from each call to its job's start."""
        for file in self._latencies.iterdir():
            os.truncate(file, 0)
        count = int(rate * seconds)
        first = time.monotonic()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._send_lags(first + number / rate for number in range(count)))
        end = time.monotonic() + DEADLINE
        while len(found := self._read_latencies()) < count:
            if time.monotonic() > end:
                raise SystemExit(f"{self.name}: {len(found)} of {count} latencies")
            time.sleep(0.05)
        return found

    def _read_latencies(self) -> list[float]:
        return [float(line) for file in self._latencies.iterdir() for line in file.read_text().splitlines()]

    def stop(self) -> None:
        """End the workers, and whatever they started."""
        families = {process.pid: _children(process.pid) for process in self._processes}
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for child in families[process.pid]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._processes.clear()


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


async def spread(send: Send, count: int, callers: int) -> float:
    """Return the seconds for `count` calls by so many tasks."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await send(number)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - began


def _spread_threads(send: SendPlain, count: int, callers: int) -> float:
    """Return the seconds for `count` calls by so many threads."""

    def caller(first: int) -> None:
        for number in range(first, count, callers):
            send(number)

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        list(pool.map(caller, range(callers)))
        return time.perf_counter() - began


async def ticks(due: Iterable[float]) -> AsyncIterator[float]:
    """Yield the wall clock's time at each of these times of the monotonic clock, or at once if it has passed."""
    for when in due:
        await asyncio.sleep(max(0.0, when - time.monotonic()))
        yield time.time()


async def _send_plainly(send: Callable[[float], object], due: Iterable[float]) -> None:
    async for sent in ticks(due):
        send(sent)


async def timed(awaitable: Awaitable[object]) -> float:
    began = time.perf_counter()
    await awaitable
    return time.perf_counter() - began


# ------------------------------------------------------------------------------------------------ peers on PostgreSQL


class PostgresPeer(Peer):
    store = "postgres"
    _count: ClassVar[str]
    """The statement that counts the finished jobs."""

    def __init__(self, postgres: str, valkey_url: str, folder: Path) -> None:
        super().__init__(postgres, valkey_url, folder)
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    def finished(self) -> int:
        return int(self._runner.run(self._fetch(self._count)))

    async def _fetch(self, statement: str) -> Any:
        """Return a statement's value, by a connection of its own that stays open."""
        if self._connection is None:
            self._connection = await asyncpg.connect(self.url)
        return await self._connection.fetchval(statement)

    def stop(self) -> None:
        super().stop()
        if self._connection is not None:
            self._runner.run(self._connection.close())
            self._connection = None


class Pgqueuer(PostgresPeer):
    """Its log is kept, so what happened to a job is known; tables are logged (`durable`), as by default."""

    name = "pgqueuer"
    _count = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"

    def prepare(self) -> None:
        self._runner.run(self._prepare())

    async def _prepare(self) -> None:
        if await self._fetch("SELECT to_regclass('pgqueuer') IS NULL"):
            async with self._pool(1) as queries:
                await queries.install()
        await self._fetch("TRUNCATE pgqueuer, pgqueuer_log, pgqueuer_statistics")

    async def enqueue_one_by_one(self, count: int) -> float:
        return await self._enqueue(count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        return await self._enqueue(count, callers)

    async def _enqueue(self, count: int, callers: int) -> float:
        async with self._pool(min(callers, CONNECTIONS)) as queries:
            return await spread(lambda number: queries.enqueue("noop", b"%d" % number), count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        payloads: list[bytes | None] = [b"%d" % number for number in range(count)]
        async with self._pool(1) as queries:
            return await timed(queries.enqueue(["noop"] * count, payloads, [0] * count))

    async def _send_lags(self, due: Iterable[float]) -> None:
        async with self._pool(1) as queries:
            async for sent in ticks(due):
                await queries.enqueue("lag", repr(sent).encode())

    def _commands(self, processes: int) -> list[list[str]]:
        return [["benchmarks.jobs_peer_workers", "pgqueuer"]] * processes

    @contextlib.asynccontextmanager
    async def _pool(self, size: int) -> AsyncIterator[Any]:
        from pgqueuer.db import AsyncpgPoolDriver
        from pgqueuer.queries import Queries

        async with asyncpg.create_pool(self.url, min_size=size, max_size=size) as pool:
            yield Queries(AsyncpgPoolDriver(pool))


class Procrastinate(PostgresPeer):
    """Its jobs are kept when they are finished, as by default."""

    name = "procrastinate"
    _count = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"

    def prepare(self) -> None:
        self._runner.run(self._prepare())

    async def _prepare(self) -> None:
        if await self._fetch("SELECT to_regclass('procrastinate_jobs') IS NULL"):
            async with self._app(1) as app:
                await app.schema_manager.apply_schema_async()
        await self._fetch("TRUNCATE procrastinate_jobs, procrastinate_events, procrastinate_workers CASCADE")

    async def enqueue_one_by_one(self, count: int) -> float:
        return await self._enqueue(count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        return await self._enqueue(count, callers)

    async def _enqueue(self, count: int, callers: int) -> float:
        async with self._app(min(callers, CONNECTIONS)) as app:
            task = app.tasks["noop"]
            return await spread(lambda number: task.defer_async(number=number), count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        arguments = [{"number": number} for number in range(count)]
        async with self._app(1) as app:
            return await timed(app.tasks["noop"].batch_defer_async(*arguments))

    async def _send_lags(self, due: Iterable[float]) -> None:
        async with self._app(1) as app:
            task = app.tasks["lag"]
            async for sent in ticks(due):
                await task.defer_async(sent=sent)

    def _commands(self, processes: int) -> list[list[str]]:
        return [["benchmarks.jobs_peer_workers", "procrastinate"]] * processes

    @contextlib.asynccontextmanager
    async def _app(self, connections: int) -> AsyncIterator[Any]:
        app = workers.procrastinate_app(self.url, connections)
        async with app.open_async():
            yield app


# --------------------------------------------------------------------------------------------------- peers on Valkey


class ValkeyPeer(Peer):
    store = "valkey"

    def prepare(self) -> None:
        with self._client(0) as client:
            client.flushall()

    def finished(self) -> int:
        """Count the results, which have a database of their own."""
        with self._client(1) as client:
            return int(client.dbsize())

    def _client(self, database: int) -> "valkey.Valkey":
        return valkey.Valkey(unix_socket_path=workers.socket_path(self.url), db=database)


class Taskiq(ValkeyPeer):
    _broker: ClassVar[str]

    async def enqueue_one_by_one(self, count: int) -> float:
        return await self._enqueue(count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        return await self._enqueue(count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        """It has no bulk call."""
        return await self._enqueue(count, CONNECTIONS)

    async def _enqueue(self, count: int, callers: int) -> float:
        async with self._open() as broker:
            task = broker.find_task("noop")
            return await spread(task.kiq, count, callers)

    async def _send_lags(self, due: Iterable[float]) -> None:
        async with self._open() as broker:
            task = broker.find_task("lag")
            async for sent in ticks(due):
                await task.kiq(sent)

    def _commands(self, processes: int) -> list[list[str]]:
        tasks = str(workers.TASKIQ_TASKS)
        return [
            [
                *("taskiq", "worker", f"benchmarks.jobs_peer_workers:{self._broker}", "--workers", str(processes)),
                *("--max-async-tasks", tasks, "--max-prefetch", tasks, "--log-level", "WARNING", "--no-parse"),
            ]
        ]

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Any]:
        broker = getattr(workers, self._broker)(self.url)
        await broker.startup()
        try:
            yield broker
        finally:
            await broker.shutdown()


class TaskiqList(Taskiq):
    name = "taskiq list"
    _broker = "taskiq_list_broker"


class TaskiqStream(Taskiq):
    name = "taskiq stream"
    _broker = "taskiq_stream_broker"


class Dramatiq(ValkeyPeer):
    name = "dramatiq"

    def __init__(self, postgres: str, valkey_url: str, folder: Path) -> None:
        super().__init__(postgres, valkey_url, folder)
        self._broker = workers.dramatiq_broker(self.url)

    async def enqueue_one_by_one(self, count: int) -> float:
        return _spread_threads(self._broker.get_actor("noop").send, count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        return _spread_threads(self._broker.get_actor("noop").send, count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        """Its groups are sent one by one."""
        from dramatiq import group

        message = self._broker.get_actor("noop").message
        began = time.perf_counter()
        group((message(number) for number in range(count)), broker=self._broker).run()
        return time.perf_counter() - began

    async def _send_lags(self, due: Iterable[float]) -> None:
        await _send_plainly(self._broker.get_actor("lag").send, due)

    def _commands(self, processes: int) -> list[list[str]]:
        app = "benchmarks.jobs_peer_workers:dramatiq_broker"
        threads = str(workers.DRAMATIQ_THREADS)
        return [["dramatiq", app, "--processes", str(processes), "--threads", threads, "--skip-logging"]]

    def _settings(self) -> dict[str, str]:
        return {"dramatiq_queue_prefetch": str(workers.DRAMATIQ_PREFETCH)}


class Arq(ValkeyPeer):
    name = "arq"

    def __init__(self, postgres: str, valkey_url: str, folder: Path) -> None:
        super().__init__(postgres, valkey_url, folder)
        self._sent = 0

    def prepare(self) -> None:
        super().prepare()
        self._sent = 0

    async def enqueue_one_by_one(self, count: int) -> float:
        return await self._enqueue(count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        return await self._enqueue(count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        """It has no bulk call."""
        return await self._enqueue(count, CONNECTIONS)

    async def _enqueue(self, count: int, callers: int) -> float:
        async with self._pool() as pool:
            seconds = await spread(lambda number: pool.enqueue_job("noop", number), count, callers)
        self._sent += count
        return seconds

    async def _send_lags(self, due: Iterable[float]) -> None:
        async with self._pool() as pool:
            async for sent in ticks(due):
                await pool.enqueue_job("lag", sent)
                self._sent += 1

    def finished(self) -> int:
        """Count what left the queue, and in the end the results: one transaction writes a result and removes its job.

        The results are among other keys. Counting them often would delay the worker.
        """
        with self._client(0) as client:
            queued = int(client.zcard("arq:queue"))
            return self._sent - queued if queued else sum(1 for _ in client.scan_iter("arq:result:*", count=1000))

    def _commands(self, processes: int) -> list[list[str]]:
        return [["benchmarks.jobs_peer_workers", "arq"]] * processes

    @contextlib.asynccontextmanager
    async def _pool(self) -> AsyncIterator[Any]:
        from arq.connections import create_pool

        pool: Any = await create_pool(workers.arq_settings(self.url))
        try:
            yield pool
        finally:
            await pool.aclose()


class Celery(ValkeyPeer):
    name = "celery"

    def __init__(self, postgres: str, valkey_url: str, folder: Path) -> None:
        super().__init__(postgres, valkey_url, folder)
        self._app = workers.celery_app(self.url, with_results=False)

    async def enqueue_one_by_one(self, count: int) -> float:
        return _spread_threads(self._app.tasks["noop"].delay, count, 1)

    async def enqueue_concurrently(self, count: int, callers: int) -> float:
        return _spread_threads(self._app.tasks["noop"].delay, count, callers)

    async def enqueue_bulk(self, count: int) -> float:
        """Send all by one producer, which its manual advises; a group does the same with more around it."""
        task = self._app.tasks["noop"]
        began = time.perf_counter()
        with self._app.producer_pool.acquire(block=True) as producer:
            for number in range(count):
                task.apply_async((number,), producer=producer)
        return time.perf_counter() - began

    async def _send_lags(self, due: Iterable[float]) -> None:
        await _send_plainly(self._app.tasks["lag"].delay, due)

    def _commands(self, processes: int) -> list[list[str]]:
        return [["benchmarks.jobs_peer_workers", "celery"]] * processes


PEERS: Sequence[type[Peer]] = (Pgqueuer, Procrastinate, TaskiqList, TaskiqStream, Dramatiq, Arq, Celery)


# --------------------------------------------------------------------------------------------------------- the check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the peers to run: all, if none is given")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument(
        "--calls", type=int, default=2000, help="number of jobs that are enqueued by calls of their own"
    )
    parser.add_argument("--processes", type=int, default=1, help="number of worker processes")
    parser.add_argument("--callers", type=int, default=50, help="number of concurrent callers")
    options = parser.parse_args()
    peers = [peer for peer in PEERS if not options.names or peer.name in options.names]
    print("jobs per second, and milliseconds from a call to its job's start at 100 jobs per second")
    titles = ("one by one", "concurrent", "bulk", "work", "median", "99 %")
    print(f"{'':<14}" + "".join(f"{title:>12}" for title in titles))
    with scratch_folder() as folder, engines(folder) as (postgres, valkey_url):
        for peer in peers:
            figures = measure(peer(postgres, valkey_url, folder), options)
            print(f"{peer.name:<14}" + "".join(f"{figure:>12.{digits}f}" for figure, digits in figures), flush=True)


def measure(peer: Peer, options: argparse.Namespace) -> list[tuple[float, int]]:
    """Return the figures of a row of the table, with their numbers of decimals."""
    calls, jobs = options.calls, options.jobs
    peer.prepare()
    rates = [calls / uvloop.run(peer.enqueue_one_by_one(calls))]
    peer.prepare()
    rates.append(calls / (uvloop.run(peer.enqueue_concurrently(calls, options.callers)) or float("nan")))
    peer.prepare()
    rates.append(jobs / uvloop.run(peer.enqueue_bulk(jobs)))
    peer.start_workers(options.processes)
    try:
        rates.append(work(peer, jobs))
        lags = peer.latency_jobs(100, 3)
        if len(lags) != 300:
            raise SystemExit(f"{peer.name}: {len(lags)} jobs instead of 300 have started")
        wait_for(peer, jobs + 300)
    finally:
        peer.stop()
    milliseconds = [lag * 1000 for lag in lags]
    tail = statistics.quantiles(milliseconds, n=100)[98]
    return [*((rate, 0) for rate in rates), (statistics.median(milliseconds), 1), (tail, 1)]


def work(peer: Peer, jobs: int) -> float:
    """Return the rate at which the queue is emptied, from the first finished jobs that are seen to the last."""
    first, began = wait_for(peer, 1)
    last, ended = wait_for(peer, jobs)
    if last != jobs:
        raise SystemExit(f"{peer.name}: {last} jobs instead of {jobs} are finished")
    return (last - first) / (ended - began) if last > first else float("nan")


def wait_for(peer: Peer, count: int) -> tuple[int, float]:
    """Wait for so many finished jobs; return how many there are, and when they were counted."""
    end = time.monotonic() + 10 * DEADLINE
    while True:
        began = time.monotonic()
        found = peer.finished()
        now = time.monotonic()
        if found >= count:
            return found, now
        if now > end:
            raise SystemExit(f"{peer.name}: {found} of {count} jobs are finished")
        time.sleep(max(0.01, 20 * (now - began)))  # counting takes at most a twentieth of the time


@contextlib.contextmanager
def engines(folder: Path) -> Iterator[tuple[str, str]]:
    """Run PostgreSQL and Valkey until the end of the block; yield their URLs.

    Valkey evicts what does not fit into its memory, so it gets enough.
    """
    config = Config.model_validate(
        {
            "project": {"name": "bench"},
            "services": {"web": {"app": "web:app"}},
            "engines": {"valkey": {"memory": "1GB"}},
        }
    )
    layout = Layout(folder / "engines")
    layout.create()
    with ExitStack() as stack:
        urls = []
        for engine in (postgres_engine(config, layout), valkey_engine(config, layout)):
            engine.prepare()
            spec = engine.process()
            assert spec is not None
            process = subprocess.Popen(
                spec.argv,
                cwd=spec.cwd,
                env=dict(spec.environment),
                user=spec.user,
                group=spec.user,
                extra_groups=[] if spec.user else None,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(_stop_engine, process, spec.stop_signal)
            end = time.monotonic() + DEADLINE
            while not _answers(engine.probe):
                if time.monotonic() > end:
                    raise SystemExit(f"{engine.name} does not answer")
                time.sleep(0.05)
            urls.append(engine.url)
        yield urls[0], urls[1]


def _answers(probe: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    try:
        asyncio.run(probe())
    except OSError:
        return False
    return True


def _stop_engine(process: "subprocess.Popen[bytes]", stop: int) -> None:
    process.send_signal(stop)
    process.wait(DEADLINE)


if __name__ == "__main__":
    main()
