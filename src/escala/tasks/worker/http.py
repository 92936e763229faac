"""The worker's own HTTP interface: POST /task enqueues a job; /health and /metrics report its state."""

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from escala.auth import Middleware
from escala.connections import running
from escala.database import Database
from escala.environment import Environment
from escala.errors import UnknownTask
from escala.http import problem, prometheus
from escala.http.problem import Problem
from escala.tasks import queue
from escala.tasks.task import Task
from escala.tasks.worker.worker import Worker


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /task."""

    task: str
    arguments: dict[str, Any] = {}


def worker_app(tasks: Mapping[str, Task[..., Any]], *, concurrency: int, drain_seconds: float) -> Starlette:
    """Return the ASGI app of a worker replica. The worker runs as long as the app does."""
    environment = Environment.read()
    database = Database(environment.postgres, size=4)
    worker: Worker

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        nonlocal worker
        await database.open()
        worker = Worker(database=database, tasks=tasks, concurrency=concurrency, context=running(environment))
        work = asyncio.create_task(worker.run(), name="worker")
        work.add_done_callback(_end_loudly)
        yield
        await worker.drain(drain_seconds)
        await work
        await database.close()

    async def enqueue(request: Request) -> Response:
        try:
            order = msgspec.json.decode(await request.body(), type=Order)
        except msgspec.ValidationError as error:
            raise Problem(422, f'The body must be like {{"task": "...", "arguments": {{}}}}: {error}.') from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, f"The body is not valid JSON: {error}.") from None
        task = tasks.get(order.task)
        if task is None:
            raise UnknownTask(order.task, sorted(tasks))
        async with database.connection() as connection:
            job = await task.enqueue_on(connection, **order.arguments)
        return JSONResponse({"job": job.id}, 202, {"Location": f"/jobs/{job.id}"})

    async def health(request: Request) -> Response:
        if not worker.healthy:
            raise Problem(503, "The worker has not reached the job queue for more than 15 seconds.")
        return JSONResponse({"status": "ok", "replica": environment.replica, "running": len(worker.attempts)})

    async def metrics(request: Request) -> Response:
        async with database.connection() as connection:
            counts = await queue.count(connection)
        return PlainTextResponse(_exposition(worker, counts), media_type=prometheus.MEDIA_TYPE)

    app = Starlette(
        routes=[
            Route("/task", enqueue, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
        exception_handlers=problem.handlers(),
    )
    app.add_middleware(Middleware, public=("/health", "/metrics"))
    return app


def _end_loudly(work: "asyncio.Task[None]") -> None:
    """End the process if the worker ended with an error. A server without its worker would seem healthy."""
    if not work.cancelled() and work.exception() is not None:
        traceback.print_exception(work.exception())
        os._exit(70)


def _exposition(worker: Worker, counts: queue.Counts) -> str:
    """Return the metrics in Prometheus' text format."""
    figures = [
        ("escala_jobs_waiting", "gauge", "Jobs waiting in the queue.", counts.waiting),
        ("escala_jobs_running", "gauge", "Jobs running in any worker.", counts.running),
        (
            "escala_jobs_oldest_seconds",
            "gauge",
            "Seconds that the oldest due job has been waiting.",
            counts.oldest_seconds,
        ),
        ("escala_worker_running", "gauge", "Jobs running in this replica.", len(worker.attempts)),
        ("escala_worker_succeeded_total", "counter", "Attempts of this replica that succeeded.", worker.succeeded),
        ("escala_worker_failed_total", "counter", "Attempts of this replica that failed.", worker.failed),
    ]
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value:g}\n" for name, kind, text, value in figures
    )
