"""The jobs of the peers of the job queues, the objects their clients and workers share, and their worker processes.

    python -m benchmarks.jobs_peer_workers pgqueuer|procrastinate|arq

is a worker of a library whose command line cannot be given its settings; the other libraries' own commands import this
module. BENCH_JOBS_URL is the store's URL, and BENCH_JOBS_LATENCIES the folder where the handlers leave latencies.
Each library is imported where it is used, so that a worker has only its own in its memory.
"""

import asyncio
import functools
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import uvloop

URL = "BENCH_JOBS_URL"
LATENCIES = "BENCH_JOBS_LATENCIES"

PGQUEUER_BATCH = 1000
PROCRASTINATE_CONCURRENCY = 100
PROCRASTINATE_CONNECTIONS = 8
ARQ_JOBS = 200
ARQ_POLL_SECONDS = 0.01
TASKIQ_TASKS = 100
TASKIQ_CONNECTIONS = 32
DRAMATIQ_THREADS = 2
"""More threads are slower for jobs that do nothing: they wait for each other."""
DRAMATIQ_PREFETCH = 500
DRAMATIQ_RESULT_MS = 3_600_000


@functools.cache
def _record() -> int:
    """Open this process's file of latencies."""
    path = Path(os.environ[LATENCIES]) / f"{os.getpid()}.txt"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note_lag(sent: float) -> None:
    """Write how long ago a job was sent. A line is a single write, so threads need no lock."""
    os.write(_record(), f"{time.time() - sent!r}\n".encode())


def socket_path(url: str) -> str:
    """Return the path in a Valkey URL: unix:///path."""
    return unquote(urlsplit(url).path)


# ------------------------------------------------------------------------------------------------------------ pgqueuer


async def pgqueuer_worker(url: str) -> None:
    import asyncpg
    from pgqueuer.db import AsyncpgPoolDriver
    from pgqueuer.models import Job
    from pgqueuer.qm import QueueManager
    from pgqueuer.queries import Queries

    async with asyncpg.create_pool(url, min_size=2, max_size=4) as pool:
        manager: Any = QueueManager(Queries(AsyncpgPoolDriver(pool)))

        @manager.entrypoint("noop")
        async def noop(job: Job) -> None:
            int(job.payload or b"")

        @manager.entrypoint("lag")
        async def lag(job: Job) -> None:
            note_lag(float(job.payload or b""))

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, manager.shutdown.set)
        await manager.run(batch_size=PGQUEUER_BATCH, dequeue_timeout=timedelta(seconds=30))


# ------------------------------------------------------------------------------------------------------- procrastinate


def procrastinate_app(url: str, connections: int) -> Any:
    """Return the application, with its tasks "noop" and "lag"."""
    import procrastinate

    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=connections, max_size=connections)
    app: Any = procrastinate.App(connector=connector)

    @app.task(name="noop", queue="bench")
    async def noop(number: int) -> None:
        pass

    @app.task(name="lag", queue="bench")
    async def lag(sent: float) -> None:
        note_lag(sent)

    return app


async def procrastinate_worker(url: str) -> None:
    app = procrastinate_app(url, PROCRASTINATE_CONNECTIONS)
    async with app.open_async():
        await app.run_worker_async(queues=["bench"], concurrency=PROCRASTINATE_CONCURRENCY)


# ----------------------------------------------------------------------------------------------------------------- arq


def arq_settings(url: str) -> Any:
    from arq.connections import RedisSettings

    return RedisSettings(unix_socket_path=socket_path(url))


def arq_worker(url: str) -> None:
    from arq.worker import Worker, func

    async def noop(context: dict[str, Any], number: int) -> None:
        pass

    async def lag(context: dict[str, Any], sent: float) -> None:
        note_lag(sent)

    asyncio.set_event_loop(uvloop.new_event_loop())
    worker: Any = Worker(
        functions=[func(noop, name="noop"), func(lag, name="lag")],
        redis_settings=arq_settings(url),
        max_jobs=ARQ_JOBS,
        poll_delay=ARQ_POLL_SECONDS,
        queue_read_limit=ARQ_JOBS * 5,
    )
    worker.run()


# -------------------------------------------------------------------------------------------------------------- taskiq


def taskiq_list_broker(url: str | None = None) -> Any:
    """Return the broker whose queue is a list: the fastest, but a worker that dies loses the jobs it had taken."""
    from taskiq_redis import ListQueueBroker

    # redis-py 8 ends a read after 5 s, and the broker waits for jobs longer than that.
    url = url or os.environ[URL]
    return _with_tasks(ListQueueBroker(url, max_connection_pool_size=TASKIQ_CONNECTIONS, socket_timeout=None), url)


def taskiq_stream_broker(url: str | None = None) -> Any:
    """Return the broker whose queue is a stream, and that acknowledges jobs."""
    from taskiq_redis import RedisStreamBroker

    url = url or os.environ[URL]
    broker = RedisStreamBroker(url, max_connection_pool_size=TASKIQ_CONNECTIONS, xread_count=TASKIQ_TASKS)
    return _with_tasks(broker, url)


def _with_tasks(broker: Any, url: str) -> Any:
    from taskiq_redis import RedisAsyncResultBackend

    # The results have a database of their own, where they can be counted at no cost.
    results: Any = RedisAsyncResultBackend(f"{url}?db=1", max_connection_pool_size=TASKIQ_CONNECTIONS)
    broker = broker.with_result_backend(results)

    @broker.task(task_name="noop")
    async def noop(number: int) -> None:
        pass

    @broker.task(task_name="lag")
    async def lag(sent: float) -> None:
        note_lag(sent)

    return broker


# ------------------------------------------------------------------------------------------------------------ dramatiq


def dramatiq_broker(url: str | None = None) -> Any:
    """Make the broker, and make it dramatiq's own, as its command line wants; return it."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    url = url or os.environ[URL]
    broker: Any = RedisBroker(url=url)
    results: Any = RedisBackend(url=f"{url}?db=1")
    broker.add_middleware(Results(backend=results, store_results=True, result_ttl=DRAMATIQ_RESULT_MS))
    dramatiq.set_broker(broker)

    # Plain functions: its threads run coroutines only by way of another thread, which is slower.
    @dramatiq.actor(actor_name="noop", broker=broker)
    def noop(number: int) -> None:
        pass

    @dramatiq.actor(actor_name="lag", broker=broker)
    def lag(sent: float) -> None:
        note_lag(sent)

    return broker


# -------------------------------------------------------------------------------------------------------------- celery


def celery_app(url: str | None = None, *, with_results: bool = True) -> Any:
    """Return the application, with its tasks "noop" and "lag".

    Without results, it is a client that does not wait for them: otherwise each call subscribes to its result's channel.
    What workers do is not changed by it.
    """
    from celery import Celery

    path = socket_path(url or os.environ[URL])
    backend = f"redis+socket://{path}?virtual_host=1" if with_results else "disabled://"
    app: Any = Celery("bench", broker=f"redis+socket://{path}", backend=backend)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_pool_limit=64,
        task_acks_late=False,
        worker_prefetch_multiplier=1000,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
    )

    @app.task(name="noop", shared=False)
    def noop(number: int) -> None:
        pass

    @app.task(name="lag", shared=False)
    def lag(sent: float) -> None:
        note_lag(sent)

    return app


def celery_worker() -> None:
    options = ["--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=warning"]
    celery_app().worker_main(["worker", *options, f"--hostname=bench{os.getpid()}@localhost"])


def main() -> None:
    url = os.environ[URL]
    match sys.argv[1]:
        case "pgqueuer":
            uvloop.run(pgqueuer_worker(url))
        case "procrastinate":
            uvloop.run(procrastinate_worker(url))
        case "arq":
            arq_worker(url)
        case "celery":
            celery_worker()


if __name__ == "__main__":
    main()
