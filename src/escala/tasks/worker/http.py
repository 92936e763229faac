"""The worker's own HTTP interface: POST /task enqueues a job; /health and /metrics report its state."""

import asyncio
import os
import sys
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
from escala.errors import TaskClash, UnknownTask, WorkerWornOut
from escala.http import problem, prometheus
from escala.http.problem import Problem
from escala.tasks.store import jobs
from escala.tasks.task import Task
from escala.tasks.worker.worker import Worker

EXIT_CLASH = 2
EXIT_BUG = 70
EXIT_WORN_OUT = 75


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /task."""

    task: str
    arguments: dict[str, Any] = {}


def worker_app(
    tasks: Mapping[str, Task[..., Any]],
    *,
    module: str,
    root: str,
    concurrency: int,
    queues: Mapping[str, float] | None,
    drain_seconds: float,
) -> Starlette:
    """Return the ASGI app of a worker replica. The worker runs as long as the app does."""
    environment = Environment.read()
    database = Database(environment.postgres, size=2)
    worker = Worker(
        url=environment.postgres,
        tasks=tasks,
        module=module,
        root=root,
        concurrency=concurrency,
        queues=queues,
        context=running(environment),
        node=environment.node,
        replica=environment.replica,
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await database.open()
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
        task = worker.task_named(order.task)
        if task is None:
            raise UnknownTask(order.task, sorted(tasks))
        async with database.connection() as connection:
            job = await task.with_options(connection=connection).enqueue(**order.arguments)
        return JSONResponse({"job": job.id}, 202, {"Location": f"/jobs/{job.id}"})

    async def health(request: Request) -> Response:
        if not worker.healthy:
            raise Problem(503, "The worker has not reached the job queue for more than 15 seconds.")
        return JSONResponse({"status": "ok", "replica": environment.replica, "running": len(worker.running)})

    async def metrics(request: Request) -> Response:
        async with database.connection() as connection:
            counts = await jobs.count(connection)
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
    if work.cancelled() or (error := work.exception()) is None:
        return
    if isinstance(error, WorkerWornOut):
        os._exit(EXIT_WORN_OUT)  # it has said why
    if isinstance(error, TaskClash):
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the error output of the replica's program
        os._exit(EXIT_CLASH)
    traceback.print_exception(error)
    os._exit(EXIT_BUG)


def _exposition(worker: Worker, counts: jobs.Counts) -> str:
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
        ("escala_worker_running", "gauge", "Jobs running in this replica.", len(worker.running)),
        ("escala_worker_succeeded_total", "counter", "Attempts of this replica that succeeded.", worker.succeeded),
        ("escala_worker_failed_total", "counter", "Attempts of this replica that failed.", worker.failed),
    ]
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value:g}\n" for name, kind, text, value in figures
    )
